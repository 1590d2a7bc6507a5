"""Monitors beside the ledger: CSV, Parquet parts, PostgreSQL on a real server, MongoDB's documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import pytest
from pyarrow import csv as arrow_csv

from runner import load
from runner.data.batch import DATA_TABLES, Batch
from runner.errors import HostError, ProtocolError, SessionLost, UsageError
from runner.events import EndEvent, Run, StartEvent
from runner.monitors.batching import BatchingMonitor
from runner.monitors.csv import CSVMonitor
from runner.monitors.mongodb import MongoDBMonitor, documents
from runner.monitors.parquet import ParquetMonitor
from runner.monitors.postgresql import PostgreSQLMonitor
from runner.monitors.sqlite import SQLiteMonitor
from tests.monitor_samples import MS, failed, good, run, taskset
from tests.postgresql_server import Server

Made = Callable[[], BatchingMonitor]


def attempt(n: int = 0, *, number: int = 1) -> Run:
    """One whose `run_id` follows from what it measures."""
    which = taskset(n=n)
    return replace(run(which, attempt=number), identity=which.taskset_id, run_id="")


def tell(monitor: BatchingMonitor | SQLiteMonitor, one: Run, *, bad: bool = False) -> None:
    monitor.__taskset_start__(one)
    if bad:
        monitor.__taskset_stop__(one, failed())
        monitor.__taskset_bad__(one, SessionLost("it went away"))
    else:
        monitor.__taskset_event__(one, StartEvent(5))
        monitor.__taskset_event__(one, EndEvent(20 * MS, stopped=False))
        monitor.__taskset_finish__(one, good())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    try:
        found.start()
        yield found
    finally:
        found.remove()


def contents(kind: str, tmp_path: Path, server: Server) -> dict[str, list[tuple[Any, ...]]]:
    """What a reader of its own finds, row by row."""
    if kind not in ("csv", "parquet"):
        return {table.name: server.sql(f"SELECT * FROM {kind}.{table.name}") for table in DATA_TABLES}
    if kind == "csv":
        found = {}
        for table in DATA_TABLES:
            # An empty field is null, `""` a text without letters.
            options = arrow_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
            path = tmp_path / "csv" / f"{table.name}.csv"
            found[table.name] = arrow_csv.read_csv(path, convert_options=options).to_pylist()
        return {name: [tuple(row.values()) for row in rows] for name, rows in found.items()}
    tables = load(tmp_path / "parquet").tables
    return {
        table.name: [tuple(row.values()) for row in tables[table.name].to_pylist()] for table in DATA_TABLES
    }


def maker(kind: str, tmp_path: Path, server: Server) -> Made:
    match kind:
        case "csv":
            return lambda: CSVMonitor(tmp_path / "csv")
        case "parquet":
            return lambda: ParquetMonitor(tmp_path / "parquet")
        case schema:
            return lambda: PostgreSQLMonitor(server.url, db_schema=schema)


@pytest.mark.parametrize("kind", ["csv", "parquet", "postgresql"])
def test_the_same_rows_as_in_the_ledger_and_each_once(kind: str, tmp_path: Path, server: Server) -> None:
    made = maker(kind, tmp_path, server)
    ledger = SQLiteMonitor(tmp_path / "results.sqlite")
    first = made()
    for monitor in (ledger, first):
        monitor.open()
        tell(monitor, attempt())
        tell(monitor, attempt(1), bad=True)
        monitor.close()
    # The run is resumed: one set again, one more, and the second after all.
    second = made()
    for resumed in (ledger, second):
        resumed.open()
        tell(resumed, attempt())
        tell(resumed, attempt(2))
        resumed.close()
    want = load(tmp_path / "results.sqlite").tables
    found = contents(kind, tmp_path, server)
    skipped = {"wall_us"}  # measured anew
    for table in DATA_TABLES:
        kept = [place for place, name in enumerate(table.names) if name not in skipped]
        expected = [
            tuple(row.values())
            for row in want[table.name].to_pylist()
            if row.get("test") != "simulation"  # the ledger's own
        ]

        def rows(some: list[tuple[Any, ...]], kept: list[int] = kept) -> list[str]:
            def plain(value: Any) -> Any:
                return value if value is None or isinstance(value, bool | str) else float(value)

            return sorted(repr([plain(row[place]) for place in kept]) for row in some)

        if kind == "csv":  # its reader guesses types: texts like dates
            assert len(found[table.name]) == len(expected), table.name
        elif not (kind == "parquet" and table.name == "tasksets"):
            assert rows(found[table.name]) == rows(expected), table.name
    assert [len(found[name]) for name in ("tasksets", "runs", "jobs", "events")] == [3, 3, 6, 4]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_a_killed_runner_left_half_written_goes(kind: str, tmp_path: Path, server: Server) -> None:
    made = maker(kind, tmp_path, server)
    monitor = made()
    monitor.open()
    tell(monitor, attempt())
    monitor.close()
    if kind == "csv":
        with (tmp_path / "csv/jobs.csv").open("a") as file:
            file.write('"half a li')
    else:
        part = (tmp_path / "parquet/jobs/000001.parquet").read_bytes()
        (tmp_path / "parquet/jobs/000002.parquet").write_bytes(part)
        (tmp_path / "parquet/jobs/.000003.parquet").write_bytes(part[:100])
    resumed = made()
    resumed.open()
    tell(resumed, attempt(1))
    resumed.close()
    found = contents(kind, tmp_path, server)
    assert [len(found[name]) for name in ("tasksets", "runs", "jobs")] == [2, 2, 6]


def test_csv_of_another_schema_is_refused(tmp_path: Path) -> None:
    monitor = CSVMonitor(tmp_path)
    monitor.open()
    monitor.close()
    noted = json.loads((tmp_path / "committed.json").read_text())
    (tmp_path / "committed.json").write_text(json.dumps({**noted, "schema_version": 1}))
    with pytest.raises(UsageError, match="holds data of schema 1"):
        CSVMonitor(tmp_path).open()


def test_a_server_that_goes_away_blocks_and_nothing_is_lost() -> None:
    server = Server()
    try:
        server.start()
        monitor = PostgreSQLMonitor(server.url, flush_interval_s=0.0)
        monitor.open()
        tell(monitor, attempt())
        server.stop()
        tell(monitor, attempt(1))
        assert "cannot be written" in monitor.blocked
        assert "hidden-word" not in monitor.blocked
        server.start()
        tell(monitor, attempt(2))
        monitor.close()
        assert not monitor.blocked
        assert server.sql("SELECT count(*) FROM rtfleet.jobs") == [(9,)]
        late = PostgreSQLMonitor(server.url, flush_interval_s=0.0)
        late.open()
        server.stop()
        tell(late, attempt(3))
        with pytest.raises(HostError, match="1 attempts are not in it") as raised:
            late.close()
        assert "hidden-word" not in str(raised.value)
        with pytest.raises(HostError, match="cannot be opened") as raised:
            PostgreSQLMonitor(server.url).open()
        assert "hidden-word" not in str(raised.value)
    finally:
        server.remove()


def test_memory_is_bounded_while_a_server_is_away(server: Server) -> None:
    monitor = PostgreSQLMonitor(server.url, db_schema="bounded", flush_interval_s=0.0, max_waiting_rows=60)
    monitor.open()
    monitor.blocked = "as if"
    monitor._n_waiting_rows = 50
    with pytest.raises(HostError, match="1 attempts are not in it"):
        tell(monitor, attempt())
    monitor.blocked = ""
    monitor.close()


@pytest.mark.parametrize("kind", ["csv", "parquet", "fitting"])
def test_a_row_that_does_not_fit_costs_no_other(kind: str, tmp_path: Path, server: Server) -> None:
    monitor = maker(kind, tmp_path, server)()
    monitor.open()
    tell(monitor, attempt())
    monitor.__taskset_start__(attempt(1))
    monitor.__taskset_finish__(attempt(1), replace(good(), end_ns=1 << 70))
    tell(monitor, attempt(2))
    with pytest.raises(ProtocolError, match="do not fit"):
        monitor.close()
    assert len(contents(kind, tmp_path, server)["runs"]) == 2


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "postgresql://host:port/db"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="url"):
        PostgreSQLMonitor(url)


def test_mongodb_documents_are_bson_and_keyed() -> None:
    batches = [Batch.of(attempt(), good()), Batch.of(attempt(1), failed())]
    for table in DATA_TABLES:
        found = documents(table, batches)
        assert len({one["_id"] for one in found}) == len(found), table.name
        assert [bson.decode(bson.encode(one)) for one in found] == found
    jobs = documents(DATA_TABLES[5], batches)
    assert [one["missed"] for one in jobs] == [False] * 3


def test_mongodb_that_is_not_there_is_an_error_without_the_password(unused_port: int) -> None:
    monitor = MongoDBMonitor(
        f"mongodb://me:hidden-word@127.0.0.1:{unused_port}/?serverSelectionTimeoutMS=100"
    )
    with pytest.raises(HostError, match="cannot be opened") as raised:
        monitor.open()
    assert "hidden-word" not in str(raised.value)
    with pytest.raises(UsageError, match="no address"):
        MongoDBMonitor("postgresql://host/")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
