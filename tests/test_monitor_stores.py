"""Monitors beside the ledger: CSV, Parquet parts, PostgreSQL on a real server, MongoDB on one that speaks its protocol."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import bson
import pyarrow as pa
import pymongo
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from runner import load
from runner.data.batch import DATA_TABLES, Batch
from runner.data.parquet import arrow_schema, is_enum
from runner.data.schema import ANALYSES, JOBS, Table
from runner.errors import HostError, ProtocolError, SessionLost, UsageError
from runner.events import EndEvent, Run, StartEvent
from runner.monitors.batching import BatchingMonitor
from runner.monitors.csv import CSVMonitor
from runner.monitors.mongodb import MongoDBMonitor, documents
from runner.monitors.parquet import ParquetMonitor
from runner.monitors.postgresql import PostgreSQLMonitor
from runner.monitors.sqlite import SQLiteMonitor
from tests.mongodb_server import Server as MongoDBServer
from tests.monitor_samples import MS, failed, good, run, taskset
from tests.postgresql_server import Server

Made = Callable[[], BatchingMonitor]
AnyServer = TypeVar("AnyServer", Server, MongoDBServer)


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


@dataclass
class Servers:
    """Those that a test may need, each started when it is asked for first."""

    ends: ExitStack

    @cached_property
    def postgresql(self) -> Server:
        return self._started(Server())

    @cached_property
    def mongodb(self) -> MongoDBServer:
        return self._started(MongoDBServer())

    def _started(self, server: AnyServer) -> AnyServer:
        self.ends.callback(server.remove)
        server.start()
        return server


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as ends:
        yield Servers(ends)


def csv_rows(folder: Path, table: Table) -> list[tuple[Any, ...]]:
    """As a reader finds them who knows the columns' types: an empty field is null, `""` a text without letters."""
    kinds = {one.name: pa.string() if is_enum(one.type) else one.type for one in arrow_schema(table)}
    read = arrow_csv.read_csv(
        folder / f"{table.name}.csv",
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=kinds, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    return [tuple(row.values()) for row in read.to_pylist()]


def mongodb_rows(server: MongoDBServer, database: str, table: Table) -> list[tuple[Any, ...]]:
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        found = list(client[database][table.name].find())
    assert all(one.pop("_id") == "/".join(str(one[name]) for name in table.key) for one in found)
    assert all(tuple(one) == table.names for one in found)
    return [tuple(one.values()) for one in found]


def contents(kind: str, tmp_path: Path, servers: Servers) -> dict[str, list[tuple[Any, ...]]]:
    """What a reader of its own finds, row by row."""
    match kind:
        case "csv":
            return {table.name: csv_rows(tmp_path / "csv", table) for table in DATA_TABLES}
        case "parquet":
            tables = load(tmp_path / "parquet").tables
            return {one.name: values(tables[one.name]) for one in DATA_TABLES}
        case "mongodb" | "mongodb_fitting":
            return {table.name: mongodb_rows(servers.mongodb, kind, table) for table in DATA_TABLES}
        case schema:
            found = servers.postgresql.sql
            return {table.name: found(f"SELECT * FROM {schema}.{table.name}") for table in DATA_TABLES}


def values(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def maker(kind: str, tmp_path: Path, servers: Servers) -> Made:
    match kind:
        case "csv":
            return lambda: CSVMonitor(tmp_path / "csv")
        case "parquet":
            return lambda: ParquetMonitor(tmp_path / "parquet")
        case "mongodb" | "mongodb_fitting":
            return lambda: MongoDBMonitor(servers.mongodb.url, database=kind)
        case schema:
            return lambda: PostgreSQLMonitor(servers.postgresql.url, db_schema=schema)


def rows(table: Table, some: list[tuple[Any, ...]], *, without: tuple[str, ...] = ()) -> list[str]:
    """In an order of their own, with their types; what is measured anew each time left out."""
    kept = [place for place, name in enumerate(table.names) if name not in ("wall_us", *without)]
    return sorted(repr([row[place] for place in kept]) for row in some)


@pytest.mark.parametrize("kind", ["csv", "parquet", "postgresql", "mongodb"])
def test_the_same_rows_as_in_the_ledger_and_each_once(kind: str, tmp_path: Path, servers: Servers) -> None:
    made = maker(kind, tmp_path, servers)
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
    found = contents(kind, tmp_path, servers)
    for table in DATA_TABLES:
        expected = values(want[table.name])
        if table is ANALYSES:  # the simulation is the ledger's own
            expected = [row for row in expected if row[1] != "simulation"]
        # A line that is written stays, and says what was known of its set then.
        without = ("state",) if kind in ("csv", "parquet") else ()
        assert rows(table, found[table.name], without=without) == rows(table, expected, without=without), (
            table.name
        )
    assert [len(found[name]) for name in ("tasksets", "runs", "jobs", "events")] == [3, 3, 6, 4]


@given(st.text(max_size=12), st.text(min_size=1, max_size=8), st.integers(-(1 << 63), (1 << 63) - 1))
@example('he said "no",\r\nand\n"",\t', "NA", (1 << 63) - 1)
@example("1", " true", -(1 << 63))
@example("", '"', (1 << 53) + 1)
@settings(max_examples=15, deadline=None)
def test_csv_has_the_values_of_the_ledger(error: str, machine: str, t0_ns: int) -> None:
    """Texts that are like other things, numbers that no float holds, and what is not known."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        monitors = SQLiteMonitor(folder / "results.sqlite"), CSVMonitor(folder / "csv")
        for monitor in monitors:
            monitor.open()
            monitor.__taskset_start__(one := replace(attempt(), machine=machine))
            monitor.__taskset_finish__(one, replace(good(), error=error, t0_guest_ns=t0_ns))
            monitor.__taskset_start__(one := replace(attempt(1), machine=machine))
            monitor.__taskset_stop__(one, replace(failed(), error=error, wall_s=0.1 + 0.2))
            monitor.close()
        want = load(folder / "results.sqlite").tables
        for table in DATA_TABLES:
            expected = [row for row in values(want[table.name]) if row[1] != "simulation"]
            found = csv_rows(folder / "csv", table)
            assert rows(table, found, without=("state",)) == rows(table, expected, without=("state",))
        # Whoever reads without Arrow finds the same texts.
        with (folder / "csv/runs.csv").open(newline="", encoding="utf-8") as file:
            assert {row["machine"] for row in csv.DictReader(file)} == {machine}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_a_killed_runner_left_half_written_goes(kind: str, tmp_path: Path, servers: Servers) -> None:
    made = maker(kind, tmp_path, servers)
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
    found = contents(kind, tmp_path, servers)
    assert [len(found[name]) for name in ("tasksets", "runs", "jobs")] == [2, 2, 6]


def test_csv_of_another_schema_is_refused(tmp_path: Path) -> None:
    monitor = CSVMonitor(tmp_path)
    monitor.open()
    monitor.close()
    noted = json.loads((tmp_path / "committed.json").read_text())
    (tmp_path / "committed.json").write_text(json.dumps({**noted, "schema_version": 1}))
    with pytest.raises(UsageError, match="holds data of schema 1"):
        CSVMonitor(tmp_path).open()


@pytest.mark.parametrize("kind", [Server, MongoDBServer])
def test_a_server_that_goes_away_blocks_and_nothing_is_lost(kind: type[Server] | type[MongoDBServer]) -> None:
    server = kind()

    def made() -> BatchingMonitor:
        return (PostgreSQLMonitor if kind is Server else MongoDBMonitor)(server.url, flush_interval_s=0.0)

    try:
        server.start()
        monitor = made()
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
        if isinstance(server, Server):
            assert server.sql("SELECT count(*) FROM rtfleet.jobs") == [(9,)]
        else:
            assert len(mongodb_rows(server, "rtfleet", JOBS)) == 9
        late = made()
        late.open()
        server.stop()
        tell(late, attempt(3))
        with pytest.raises(HostError, match="1 attempts are not in it") as raised:
            late.close()
        assert "hidden-word" not in str(raised.value)
        with pytest.raises(HostError, match="cannot be opened") as raised:
            made().open()
        assert "hidden-word" not in str(raised.value)
    finally:
        server.remove()


def test_memory_is_bounded_while_a_server_is_away(servers: Servers) -> None:
    monitor = PostgreSQLMonitor(
        servers.postgresql.url, db_schema="bounded", flush_interval_s=0.0, max_waiting_rows=60
    )
    monitor.open()
    monitor.blocked = "as if"
    monitor._n_waiting_rows = 50
    with pytest.raises(HostError, match="1 attempts are not in it"):
        tell(monitor, attempt())
    monitor.blocked = ""
    monitor.close()


@pytest.mark.parametrize("kind", ["csv", "parquet", "fitting", "mongodb_fitting"])
def test_a_row_that_does_not_fit_costs_no_other(kind: str, tmp_path: Path, servers: Servers) -> None:
    monitor = maker(kind, tmp_path, servers)()
    monitor.open()
    tell(monitor, attempt())
    monitor.__taskset_start__(attempt(1))
    monitor.__taskset_finish__(attempt(1), replace(good(), end_ns=1 << 70))
    tell(monitor, attempt(2))
    with pytest.raises(ProtocolError, match="do not fit"):
        monitor.close()
    assert len(contents(kind, tmp_path, servers)["runs"]) == 2


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
