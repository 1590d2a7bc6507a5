"""The tables as Parquet: the same as in SQLite, in an order that depends on nothing but what was measured."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from runner.data import schema
from runner.data.parquet import STORED, write_parquet
from runner.data.schema import Kind
from runner.errors import Fault, HostError, RunnerError, UsageError
from runner.events import EndEvent, ExitType, RefusedEvent, Run, RunResult, StartEvent, Validity
from runner.faults.incidents import Incident
from runner.model import TaskSet
from runner.monitors.sqlite import SQLiteMonitor
from tests.monitor_samples import MS, failed, good, job, run, taskset

ARROW_TYPES = {
    Kind.INT: pa.int64(),
    Kind.REAL: pa.float64(),
    Kind.BOOL: pa.bool_(),
    Kind.TEXT: pa.string(),
    Kind.ENUM: pa.dictionary(pa.int32(), pa.string()),
}


def attempt(which: TaskSet, *, repetition: int = 1, number: int = 1) -> Run:
    """One whose `run_id` follows from what it measures."""
    plain = run(which, attempt=number, arch="arm64", icount_shift=3)
    return replace(plain, identity=which.taskset_id, repetition=repetition, run_id="")


def measured(folder: Path, *told: tuple[Run, RunResult]) -> dict[str, pa.Table]:
    """The Parquet files of a run that was told these results."""
    folder.mkdir()
    monitor = SQLiteMonitor(folder / "results.sqlite", parquet=folder / "parquet")
    monitor.open()
    for which, result in told:
        monitor.__taskset_start__(which)
        monitor.__taskset_event__(which, StartEvent(5))
        monitor.__taskset_event__(which, RefusedEvent(1, 16, "EBUSY"))
        monitor.__taskset_event__(which, EndEvent(20 * MS, stopped=True))
        if result.error:
            monitor.__taskset_stop__(which, result)
            monitor.__incident__(Incident(what="it died", fault=Fault.GUEST, machine=which.machine))
        else:
            monitor.__taskset_finish__(which, result)
    monitor.close()
    names = sorted(path.name for path in (folder / "parquet").iterdir())
    assert names == sorted(f"{table.name}.parquet" for table in STORED)
    return {
        table.name: parquet.read_table(folder / "parquet" / f"{table.name}.parquet")
        for table in schema.TABLES
    }


def rows_of(database: Path, table: schema.Table) -> list[dict[str, Any]]:
    """What SQLite holds, with truth values."""
    flags = {column.name for column in table.columns if column.kind is Kind.BOOL}
    with closing(sqlite3.connect(database)) as source:
        rows = source.execute(f"SELECT * FROM {table.name}").fetchall()
    return [
        {
            name: bool(value) if name in flags and value is not None else value
            for name, value in zip(table.names, row, strict=True)
        }
        for row in rows
    ]


def test_every_table_is_there_with_all_its_rows_columns_and_types(tmp_path: Path) -> None:
    never_ran = replace(good(), jobs=(job(0, 0, None, ExitType.SKIPPED), *good().jobs[1:]))
    late = replace(good(slow_ns=21 * MS), validity=Validity.EXACT)
    tables = measured(
        tmp_path / "run",
        (attempt(taskset(target=0.5)), late),
        (attempt(taskset(n=1)), never_ran),
        (attempt(taskset(n=2)), failed()),
    )
    for table in schema.TABLES:
        found = tables[table.name]
        assert found.schema.names == list(table.names)
        assert [found.schema.field(column.name).type for column in table.columns] == [
            ARROW_TYPES[column.kind] for column in table.columns
        ]
        assert [found.schema.field(column.name).nullable for column in table.columns] == [
            not column.required for column in table.columns
        ]
        stored = rows_of(tmp_path / "run" / "results.sqlite", table)
        assert stored
        in_order = [
            sorted(rows, key=lambda row: [row[name] for name in table.key])
            for rows in (found.to_pylist(), stored)
        ]
        assert in_order[0] == in_order[1]
    assert tables["jobs"].schema.metadata[b"rtfleet.schema_version"] == str(schema.SCHEMA_VERSION).encode()


def test_a_run_without_results_has_tables_without_rows(tmp_path: Path) -> None:
    tables = measured(tmp_path / "run")
    assert [table.num_rows for table in tables.values()] == [0] * len(schema.TABLES)
    assert tables["jobs"].schema.names == list(schema.JOBS.names)


def test_who_measured_when_does_not_show_in_the_jobs(tmp_path: Path) -> None:
    """Two runs of the same sets, in another order, by other machines: the same files for all that a set decides."""
    told = [
        (attempt(taskset(n=n), repetition=repetition), good(slow_ns=10 * MS + n))
        for n in range(20)
        for repetition in (1, 2)
    ]
    shuffled = [
        (replace(which, machine=f"qemu{n % 3}"), replace(result, jobs=result.jobs[::-1], wall_s=n / 7))
        for n, (which, result) in enumerate(told[::-1])
    ]
    broken = (attempt(taskset(n=3), repetition=2, number=7), failed())
    one = measured(tmp_path / "one", *told)
    measured(tmp_path / "other", *shuffled[:9], broken, *shuffled[9:])
    for name in ("jobs", "tasks", "tasksets", "events"):
        file = Path("parquet") / f"{name}.parquet"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes(), name
    order = {row["run_id"]: (row["taskset_id"], row["repetition"]) for row in one["runs"].to_pylist()}
    keys = [(*order[row["run_id"]], row["task_idx"], row["job_idx"]) for row in one["jobs"].to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 120


def test_more_rows_than_one_group_holds(tmp_path: Path) -> None:
    n_jobs = 150_000
    jobs = tuple([job(0, idx, 1 * MS) for idx in range(n_jobs)])
    table = measured(tmp_path / "run", (run(), replace(good(), jobs=jobs)))["jobs"]
    assert table["job_idx"].to_pylist() == list(range(n_jobs))
    file = parquet.ParquetFile(tmp_path / "run" / "parquet" / "jobs.parquet")
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [65536, 65536, n_jobs - 2 * 65536]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Five times the jobs take hardly more."""
    script = """
import resource, sys
from pathlib import Path
from tests.monitor_samples import *
from runner.monitors.sqlite import SQLiteMonitor
from runner.data.parquet import STORED, write_parquet
import pyarrow.parquet
path = Path(sys.argv[1])
jobs = tuple([job(0, idx, 1 * MS) for idx in range(20_000)])
peaks = []
for n_runs in (4, 20):
    database = path / f"{n_runs}.sqlite"
    monitor = SQLiteMonitor(database)
    monitor.open()
    for n in range(n_runs):
        monitor.__taskset_finish__(run(taskset(n=n)), RunResult(outcome=Outcome.COMPLETED, jobs=jobs))
    monitor.close()
    write_parquet(database, path / str(n_runs))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(*peaks)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    few_mib, many_mib = map(int, done.stdout.split())
    # The 320,000 rows more would take some 200 MiB as Python objects.
    assert many_mib - few_mib < 60, (few_mib, many_mib)


def test_it_can_be_written_again_and_while_the_data_grow(tmp_path: Path) -> None:
    """What a reader of the folder sees is whole, and one state of the data."""
    database, folder = tmp_path / "results.sqlite", tmp_path / "parquet"
    monitor = SQLiteMonitor(database)
    monitor.open()
    for n in range(3):
        monitor.__taskset_finish__(run(taskset(n=n)), good())
        monitor.idle()
        write_parquet(database, folder)
        assert parquet.read_table(folder / "jobs.parquet").num_rows == 3 * (n + 1)
    monitor.close()


def test_files_that_are_there_stay_whole_when_new_ones_cannot_be_written(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a full disk that works without any privilege."""
    measured(tmp_path / "run", (run(), good()))
    database, folder = tmp_path / "run" / "results.sqlite", tmp_path / "run" / "parquet"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = """
import resource, sys
from pathlib import Path
from runner.errors import HostError
from runner.data.parquet import STORED, write_parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    write_parquet(Path(sys.argv[1]), Path(sys.argv[2]))
except HostError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, database, folder], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout
    assert f"nothing is lost: {database} is complete" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    measured(tmp_path / "run", (attempt(taskset()), good()))
    folder = tmp_path / "run" / "parquet"
    before = sorted(folder.iterdir())
    (folder / ".partial-12345678").mkdir()
    (folder / ".partial-12345678" / "jobs.parquet").write_bytes(b"PAR1")
    write_parquet(tmp_path / "run" / "results.sqlite", folder)
    assert sorted(folder.iterdir()) == before


def test_a_folder_that_cannot_be_made_is_the_hosts_fault(tmp_path: Path) -> None:
    measured(tmp_path / "run", (run(), good()))
    with pytest.raises(HostError, match="cannot be written"):
        write_parquet(tmp_path / "run" / "results.sqlite", tmp_path / "run" / "results.sqlite" / "parquet")


def test_only_a_data_set_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("task,period\n" * 100)
    for name, what in (("nowhere", "there is no data set"), ("notes", "no sound SQLite database")):
        with pytest.raises(UsageError, match=what) as caught:
            write_parquet(tmp_path / name, tmp_path / "parquet")
        assert isinstance(caught.value, RunnerError)
        assert caught.value.next_step
    assert not (tmp_path / "parquet").exists()


def test_who_does_not_write_parquet_does_not_load_it() -> None:
    """Its library takes 0.12 s and 40 MiB to load, at the start of every run."""
    script = "import sys, runner.monitors.sqlite, runner.run; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
