"""Results as CSV: one file per table, for spreadsheets and whatever reads nothing better."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

from runner.data.batch import DATA_TABLES, Batch
from runner.data.parquet import to_csv
from runner.data.rows import Row
from runner.data.schema import RUNS, SCHEMA_VERSION, TASKSETS, Table
from runner.errors import UsageError
from runner.files.durable import parse_json, replace_text
from runner.monitors.batching import BatchingMonitor, StoreUnavailable

_COMMITTED = "committed.json"


class CSVMonitor(BatchingMonitor):
    """Append to `tasksets.csv`, `tasks.csv`, `analyses.csv`, `runs.csv`, `jobs.csv` … in a folder.

    Guarantees: an empty field is null, a text that is empty stands in quotes. A run that is resumed goes on with the files: how long they
    are is noted in `committed.json` after each flush, and what a killed runner has written beyond that is cut off. A set and a run stand
    there once. `state` is what it was when the set's first attempt ended. For each set and attempt some 100 bytes of memory are taken.

    Args:
        folder: Made if need be.
        required, flush_interval_s, max_waiting_rows: As `BatchingMonitor`.
    """

    def __init__(
        self,
        folder: str | Path = "csv",
        *,
        required: bool = False,
        flush_interval_s: float = 1.0,
        max_waiting_rows: int = 2_000_000,
    ) -> None:
        super().__init__(
            required=required, flush_interval_s=flush_interval_s, max_waiting_rows=max_waiting_rows
        )
        self.folder = Path(folder)
        self._sizes: dict[str, int] = {}
        self._sets: set[str] = set()
        self._runs: set[str] = set()

    @property
    def place(self) -> str:
        return str(self.folder)

    def open_store(self) -> None:
        """Make the files, or cut them to what was committed.

        Raises:
            UsageError: the files are of another schema, or not ours.
            StoreUnavailable: they cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            committed = self.folder / _COMMITTED
            if committed.exists():
                self._take_over(committed)
            else:
                self._begin()
        except OSError as exc:
            raise StoreUnavailable(str(exc)) from exc

    def _begin(self) -> None:
        for table in DATA_TABLES:
            header = to_csv(table, [], header=True)
            self._path(table).write_bytes(header)
            self._sizes[table.name] = len(header)
        self._commit()

    def _take_over(self, committed: Path) -> None:
        try:
            noted = parse_json(committed.read_bytes())
            version, sizes = noted["schema_version"], noted["bytes"]
            self._sizes = {table.name: int(sizes[table.name]) for table in DATA_TABLES}
        except (ValueError, TypeError, KeyError) as exc:
            raise UsageError(
                f"{committed} is not what was written there: {exc}", next_step="choose another folder"
            ) from exc
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{self.folder} holds data of schema {version}; this version writes schema {SCHEMA_VERSION}",
                next_step="choose another folder",
            )
        for table in DATA_TABLES:
            if self._path(table).stat().st_size < self._sizes[table.name]:
                raise UsageError(
                    f"{self._path(table)} is shorter than it was", next_step="choose another folder"
                )
            os.truncate(self._path(table), self._sizes[table.name])
        self._sets, self._runs = self._ids(TASKSETS), self._ids(RUNS)

    def _ids(self, table: Table) -> set[str]:
        with self._path(table).open(encoding="utf-8", newline="") as file:
            return {row[0] for row in csv.reader(file)}

    def write(self, batches: Sequence[Batch]) -> None:
        """Append, and note how long the files are then."""
        sets, runs = set(self._sets), set(self._runs)
        added: dict[Table, list[Row]] = {}
        for batch in batches:
            parts = []
            if batch.taskset_id not in sets:
                sets.add(batch.taskset_id)
                parts.append(batch.of_set)
            if batch.run_id and batch.run_id not in runs:
                runs.add(batch.run_id)
                parts.append(batch.of_run)
            for part in parts:
                for table, rows in part.items():
                    added.setdefault(table, []).extend(rows)
        before = dict(self._sizes)
        try:
            for table, rows in added.items():
                self._append(table, to_csv(table, rows))
            self._commit()
        except OSError as exc:
            self._sizes = before
            raise StoreUnavailable(str(exc)) from exc
        self._sets, self._runs = sets, runs

    def _append(self, table: Table, text: bytes) -> None:
        with self._path(table).open("r+b") as file:
            # What a write that failed has left is overwritten.
            file.truncate(self._sizes[table.name])
            file.seek(self._sizes[table.name])
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._sizes[table.name] += len(text)

    def _commit(self) -> None:
        noted = {"schema_version": SCHEMA_VERSION, "bytes": self._sizes}
        replace_text(self.folder / _COMMITTED, json.dumps(noted), sync=True)

    def close_store(self) -> None:
        """Nothing is held open."""

    def _path(self, table: Table) -> Path:
        return self.folder / f"{table.name}.csv"
