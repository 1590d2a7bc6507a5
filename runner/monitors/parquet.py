"""Results as Parquet while the run goes on: a folder per table, a file per flush, which readers take for one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runner.data.batch import DATA_TABLES, Batch
from runner.data.parquet import columns, from_rows, read_files, write_file
from runner.data.rows import Row
from runner.data.schema import RUNS, TASKSETS, Table
from runner.files.durable import sync_folder
from runner.monitors.batching import BatchingMonitor, StoreUnavailable


class ParquetMonitor(BatchingMonitor):
    """Add `tasksets/000001.parquet`, `jobs/000001.parquet` … to a folder, which `runner.load` reads.

    Guarantees: a part appears whole, that of `runs` last: a part without that was never finished, and goes when the folder is next opened.
    A set and a run stand there once, also when a run is resumed. `state` is what it was when the set's first attempt ended. For each set
    and attempt some 100 bytes of memory are taken.

    Args:
        folder: Made if need be.
        required, max_waiting_rows: As `BatchingMonitor`.
        flush_interval_s: How long results may wait for others: few large files are better to read than many small ones.
        rows_per_part: Rows that are written without waiting for that.
    """

    def __init__(
        self,
        folder: str | Path = "stream",
        *,
        required: bool = False,
        flush_interval_s: float = 60.0,
        rows_per_part: int = 200_000,
        max_waiting_rows: int = 2_000_000,
    ) -> None:
        super().__init__(
            required=required, flush_interval_s=flush_interval_s, max_waiting_rows=max_waiting_rows
        )
        self.folder = Path(folder)
        self._rows_per_part = rows_per_part
        self._n_parts = 0
        self._sets: set[str] = set()
        self._runs: set[str] = set()

    @property
    def place(self) -> str:
        return str(self.folder)

    def open_store(self) -> None:
        """Make the folders, or take over what is whole in them.

        Raises:
            UsageError: the files are of another schema, or not ours.
            StoreUnavailable: they cannot be written.
        """
        try:
            for table in DATA_TABLES:
                (self.folder / table.name).mkdir(parents=True, exist_ok=True)
            whole = {path.name for path in (self.folder / RUNS.name).glob("*.parquet")}
            for table in DATA_TABLES:
                for path in (self.folder / table.name).iterdir():
                    if path.name not in whole and path.name.lstrip(".").partition(".")[0].isdigit():
                        path.unlink()
        except OSError as exc:
            raise StoreUnavailable(str(exc)) from exc
        self._n_parts = max((int(name.partition(".")[0]) for name in whole), default=0)
        self._sets, self._runs = self._ids(TASKSETS), self._ids(RUNS)

    def _ids(self, table: Table) -> set[str]:
        files = sorted((self.folder / table.name).glob("*.parquet"))
        return {one for (one,) in columns(read_files(table, files), table.key[0])}

    def idle(self) -> None:
        """Write only what has waited long enough: other monitors are for looking on."""
        if self.is_due or self.n_waiting_rows >= self._rows_per_part:
            super().idle()

    def write(self, batches: Sequence[Batch]) -> None:
        """Write one part of each table."""
        sets, runs = set(self._sets), set(self._runs)
        rows: dict[Table, list[Row]] = {table: [] for table in DATA_TABLES}
        for batch in batches:
            if batch.taskset_id not in sets:
                sets.add(batch.taskset_id)
                for table, some in batch.of_set.items():
                    rows[table] += some
            if batch.run_id and batch.run_id not in runs:
                runs.add(batch.run_id)
                for table, some in batch.of_run.items():
                    rows[table] += some
        if not any(rows.values()):
            return
        name = f"{self._n_parts + 1:06}.parquet"
        try:
            # That of `runs` is what makes the part count.
            for table in sorted(DATA_TABLES, key=lambda one: one is RUNS):
                self._write_part(table, rows[table], name)
        except OSError as exc:
            raise StoreUnavailable(str(exc)) from exc
        self._n_parts += 1
        self._sets, self._runs = sets, runs

    def _write_part(self, table: Table, rows: list[Row], name: str) -> None:
        folder = self.folder / table.name
        if not rows and table is not RUNS:
            (folder / name).unlink(missing_ok=True)  # of a try that failed half-way
            return
        write_file(from_rows(table, rows), folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)
        sync_folder(folder)

    def close_store(self) -> None:
        """Nothing is held open."""
