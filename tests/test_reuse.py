"""Results of an earlier run: the same as measured, only what repeats, and never from data that somebody touched."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.data import schema
from runner.data.reuse import EarlierRun
from runner.errors import RunnerError, UnrepeatableError, UsageError
from runner.events import (
    EndEvent,
    Event,
    ExitType,
    JobEvent,
    JobRecord,
    Outcome,
    RefusedEvent,
    Run,
    RunResult,
    StartEvent,
    TaskDoneEvent,
    Validity,
)
from runner.exit_codes import ExitCode
from runner.model import TaskSet
from runner.monitors.sqlite import SQLiteMonitor
from tests.cli import run_cli
from tests.fleet_samples import HANG_S
from tests.monitor_samples import MS, failed, good, run, taskset

EXACT = replace(good(), validity=Validity.EXACT)
EVENTS: tuple[Event, ...] = (
    StartEvent(1_000_000_000),
    RefusedEvent(1, 16, "EBUSY"),
    TaskDoneEvent(0, 19 * MS),
    TaskDoneEvent(1, 20 * MS),
    EndEvent(20 * MS, stopped=False),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder."""
    path = tmp_path / "earlier run #1"  # characters that mean something in a URI
    path.mkdir()
    return path


@pytest.fixture
def monitor(folder: Path) -> Iterator[SQLiteMonitor]:
    """What writes its data."""
    monitor = SQLiteMonitor(folder / "results.sqlite")
    monitor.open()
    yield monitor
    monitor.close()


def attempt(identity: str | None = "ab", *, which: TaskSet | None = None, repetition: int = 1) -> Run:
    return replace(run(which), identity=identity, repetition=repetition, run_id="")


def tell(monitor: SQLiteMonitor, which: Run, result: RunResult) -> None:
    """A whole attempt, in the file when this returns."""
    monitor.__taskset_start__(which)
    for event in EVENTS:
        monitor.__taskset_event__(which, event)
    if result.error:
        monitor.__taskset_stop__(which, result)
    else:
        monitor.__taskset_finish__(which, result)
    monitor.idle()


def test_what_was_measured_comes_back_as_it_was(folder: Path, monitor: SQLiteMonitor) -> None:
    """Also while the file is still being written."""
    with EarlierRun(folder) as earlier:
        assert earlier.find("ab") is None
        tell(monitor, attempt(), EXACT)
        found = earlier.find("ab")
        assert found is not None
        assert sorted(found.jobs) == sorted(EXACT.jobs)
        assert all(isinstance(job.exit_type, ExitType) for job in found.jobs)
        assert found.table_sha256 == EXACT.table_sha256
        assert (found.outcome, found.validity) == (Outcome.COMPLETED, Validity.EXACT)
        assert (found.t0_guest_ns, found.end_ns, found.wall_s) == (1_000_000_000, 20 * MS, 0.0)
        assert found.reused_from == f"{attempt().run_id} in {folder / 'results.sqlite'}"
        assert found.events == EVENTS
        assert earlier.find("cd") is None


def test_its_events_can_be_told_again(folder: Path, monitor: SQLiteMonitor) -> None:
    """In an order that makes sense: a task's end comes after its jobs."""
    tell(monitor, attempt(), EXACT)
    with EarlierRun(folder) as earlier:
        found = earlier.find("ab")
    assert found is not None
    told = list(found.replayed())
    assert [event for event in told if not isinstance(event, JobEvent)] == list(EVENTS)
    assert [type(event).__name__ for event in told] == [
        *("StartEvent", "RefusedEvent"),
        *["JobEvent"] * 3,
        *("TaskDoneEvent", "TaskDoneEvent", "EndEvent"),
    ]


def test_a_file_may_be_named_as_well_as_its_folder(folder: Path, monitor: SQLiteMonitor) -> None:
    tell(monitor, attempt(), replace(good(), validity=Validity.COMPUTED))
    with EarlierRun(folder / "results.sqlite") as earlier:
        found = earlier.find("ab")
    assert found is not None
    assert found.validity is Validity.COMPUTED


def test_reading_leaves_the_data_alone(folder: Path, monitor: SQLiteMonitor) -> None:
    tell(monitor, attempt(), EXACT)
    monitor.close()
    before = (folder / "results.sqlite").read_bytes()
    with EarlierRun(folder) as earlier:
        assert earlier.find("ab") is not None
    assert (folder / "results.sqlite").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["results.sqlite"]


def test_a_run_that_was_killed_serves_as_well(folder: Path, monitor: SQLiteMonitor, tmp_path: Path) -> None:
    """It leaves its last results in a file beside the data."""
    tell(monitor, attempt(), EXACT)
    left = tmp_path / "left"
    left.mkdir()
    for path in folder.glob("results.sqlite*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, left)
    assert sorted(path.name for path in left.iterdir()) == ["results.sqlite", "results.sqlite-wal"]
    with EarlierRun(left) as earlier:
        assert earlier.find("ab") is not None


@pytest.mark.parametrize(
    "result",
    [
        good(),
        replace(good(), validity=Validity.UNDISTURBED),
        replace(good(), validity=Validity.DISTURBED),
        replace(failed(), validity=Validity.EXACT),
        failed(Outcome.DISTURBED),
    ],
)
def test_what_need_not_repeat_is_not_taken(folder: Path, monitor: SQLiteMonitor, result: RunResult) -> None:
    tell(monitor, attempt(), result)
    with EarlierRun(folder) as earlier:
        assert earlier.find("ab") is None


def test_what_did_not_repeat_is_not_taken(folder: Path, monitor: SQLiteMonitor) -> None:
    for repetition in (1, 2):
        tell(monitor, attempt(repetition=repetition), EXACT)
    with EarlierRun(folder) as earlier:
        assert earlier.find("ab") is not None
        monitor.__taskset_bad__(attempt(repetition=2), UnrepeatableError("another table"))
        monitor.idle()
        assert earlier.find("ab") is None


def test_a_result_that_was_taken_over_names_who_measured_it(folder: Path, tmp_path: Path) -> None:
    """Not the run that handed it on."""
    origins = []
    for n in range(3):
        path = tmp_path / f"{n}.sqlite"
        monitor = SQLiteMonitor(path)
        monitor.open()
        result: RunResult = EXACT
        if n:
            with EarlierRun(tmp_path / f"{n - 1}.sqlite") as earlier:
                found = earlier.find("ab")
                assert found is not None
                result = found
        tell(monitor, attempt(), result)
        monitor.close()
        origins.append(result.reused_from)
    assert origins == [None, *[f"{attempt().run_id} in {tmp_path / '0.sqlite'}"] * 2]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET finish_ns = finish_ns + 1 WHERE job_idx = 1",
        "UPDATE jobs SET exit_type = 'SKIPPED' WHERE task_idx = 1",
        "UPDATE jobs SET exit_type = 'TELEPORTED' WHERE task_idx = 1",
        "DELETE FROM jobs WHERE task_idx = 1",
        "UPDATE runs SET table_sha256 = NULL",
        "UPDATE events SET kind = 'party' WHERE seq = 0",
    ],
)
def test_data_that_were_changed_are_refused(folder: Path, monitor: SQLiteMonitor, change: str) -> None:
    tell(monitor, attempt(), EXACT)
    monitor.close()
    with closing(sqlite3.connect(folder / "results.sqlite")) as database, database:
        assert database.execute(change).rowcount == 1
    with EarlierRun(folder) as earlier, pytest.raises(UsageError, match="was changed after it") as caught:
        earlier.find("ab")
    assert attempt().run_id in caught.value.what
    assert (caught.value.where, bool(caught.value.next_step)) == ("reuse", True)


def test_data_that_cannot_be_read_any_more_are_an_error(folder: Path, monitor: SQLiteMonitor) -> None:
    for n in range(200):
        tell(monitor, attempt(f"{n}", which=taskset(n=n)), EXACT)
    monitor.close()
    with EarlierRun(folder) as earlier:
        path = folder / "results.sqlite"
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        with pytest.raises(RunnerError) as caught:
            [earlier.find(f"{n}") for n in range(200)]
    assert str(path) in caught.value.what
    assert caught.value.next_step


def test_many_threads_may_ask_while_the_run_goes_on(folder: Path, monitor: SQLiteMonitor) -> None:
    n_sets, n_threads = 60, 6
    wrong: list[str] = []
    written = threading.Semaphore(0)

    def ask(first: int) -> None:
        for n in range(first, n_sets, n_threads):
            written.acquire()
            result = None
            while result is None:
                result = earlier.find(f"{n}")
            if result.table_sha256 != good(slow_ns=n * MS).table_sha256:
                wrong.append(f"{n}")

    with EarlierRun(folder) as earlier:
        threads = [threading.Thread(target=ask, args=(first,)) for first in range(n_threads)]
        for thread in threads:
            thread.start()
        for n in range(n_sets):
            exact = replace(good(slow_ns=n * MS), validity=Validity.EXACT)
            tell(monitor, attempt(f"{n}", which=taskset(n=n)), exact)
            written.release()
        for thread in threads:
            thread.join(HANG_S)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("task,period\n" * 100)
    with closing(sqlite3.connect(tmp_path / "recipes.sqlite")) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as database:
        database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION - 1}")
    for name, what in {
        "nowhere": "there is no data set at",
        ".": "there is no data set at",
        "notes.txt": "no sound SQLite database",
        "recipes.sqlite": "holds other data",
        "old.sqlite": f"holds data of schema {schema.SCHEMA_VERSION - 1}",
    }.items():
        with pytest.raises(UsageError, match=what) as caught:
            EarlierRun(tmp_path / name)
        assert caught.value.next_step


numbers = st.none() | st.integers(-(1 << 50), 1 << 50)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            JobRecord,
            st.integers(0, 1),
            st.integers(0, 5),
            numbers,
            numbers,
            numbers,
            numbers,
            st.sampled_from(ExitType),
            numbers,
            numbers,
            numbers,
            numbers,
            numbers,
        ),
        max_size=8,
        unique_by=lambda job: job[:2],
    ),
    st.integers(0, 1 << 128),
)
def test_any_table_survives_the_file(
    folder: Path, monitor: SQLiteMonitor, jobs: list[JobRecord], identity: int
) -> None:
    result = RunResult(outcome=Outcome.TIMEOUT, jobs=tuple(jobs), validity=Validity.EXACT)
    # The same identity drawn twice is another table, so make each its own.
    which = attempt(f"{identity:x} {result.table_sha256}")
    tell(monitor, which, result)
    with EarlierRun(folder) as earlier:
        found = earlier.find(which.identity or "")
    assert found is not None
    assert sorted(map(str, found.jobs)) == sorted(map(str, jobs))


def test_a_run_takes_over_what_another_has_computed(tmp_path: Path) -> None:
    """The whole way, from one command line to the next: the same rows, and each says where it comes from."""
    simulated = ("machines=simulation", "monitors=[sqlite]", "repeat=2", "tasksets.sets_per_utilization=2")
    first = run_cli(tmp_path, *simulated, "hydra.run.dir=first")
    assert first.returncode == ExitCode.OK, first.stderr
    second = run_cli(tmp_path, *simulated, "reuse=first", "hydra.run.dir=second")
    assert second.returncode == ExitCode.OK, second.stderr
    runs = "SELECT run_id, repetition, identity, table_sha256, n_jobs, schedulable FROM runs ORDER BY run_id"
    jobs = "SELECT * FROM jobs ORDER BY run_id, task_idx, job_idx"
    events = "SELECT * FROM events ORDER BY run_id, seq"
    answers = []
    for name in ("first", "second"):
        with closing(sqlite3.connect(tmp_path / name / "results.sqlite")) as database:
            answers.append([database.execute(sql).fetchall() for sql in (runs, jobs, events)])
            origins = {row[0] for row in database.execute("SELECT reused_from FROM runs")}
        if name == "first":
            assert origins == {None}
        else:
            assert all(origin.endswith(f" in {tmp_path / 'first' / 'results.sqlite'}") for origin in origins)
    assert answers[0] == answers[1]
    assert len(answers[0][0]) == 20
    assert {row[1] for row in answers[0][0]} == {1, 2}
    files = [tmp_path / name / "parquet" / "jobs.parquet" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("reuse=nowhere", "there is no data set at"),
        ("repeat=0", "repeat is 0"),
        ("repeat=1001", "repeat is 1001"),
        ("repeat=often", "repeat"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    tmp_path: Path, override: str, what: str
) -> None:
    done = run_cli(tmp_path, "machines=simulation", override)
    assert done.returncode == ExitCode.USAGE
    assert what in done.stderr
    assert override.partition("=")[0] in done.stderr
    assert not (tmp_path / "run" / "manifest.json").exists()
