"""Results in SQLite: whole, readable meanwhile, and never lost without a word."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.data import ledger, schema
from runner.errors import HostError, ProtocolError, RunnerError, UnrepeatableError, UsageError
from runner.events import EndEvent, ExitType, JobEvent, Outcome, Run, StartEvent, Validity
from runner.model import Policy, TaskSet
from runner.monitors.dispatcher import MonitorDispatcher
from runner.monitors.sqlite import SQLiteMonitor
from tests.monitor_samples import MS, failed, good, job, run, taskset


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the results go."""
    return tmp_path / "results.sqlite"


def ask(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a reader sees now."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def write(path: Path, *results) -> None:
    """A whole life: open, each (run, result), close."""
    monitor = SQLiteMonitor(path)
    monitor.open()
    for attempt, result in results:
        monitor.__taskset_finish__(attempt, result)
    monitor.close()


def test_a_run_becomes_rows(path):
    attempt, result = run(accel="tcg", icount_shift=3), good(slow_ns=21 * MS)
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((SQLiteMonitor(path),))
        channel.start(attempt)
        channel.event(attempt, StartEvent(1_000_000_000))
        channel.event(attempt, JobEvent(result.jobs[0]))
        channel.event(attempt, EndEvent(20 * MS, stopped=False))
        channel.finish(attempt, result)
    assert dispatcher.failures == {}
    assert ask(path, "SELECT name, state, n_tasks FROM tasksets") == [("pair", "done", 2)]
    assert ask(path, "SELECT count(*) FROM tasks") == [(2,)]
    assert ask(
        path, "SELECT machine, outcome, accel, icount_shift, n_jobs, n_missed, schedulable FROM runs"
    ) == [("qemu1", "completed", "tcg", 3, 3, 1, 0)]
    assert ask(path, "SELECT task_idx, job_idx, response_ns, missed, exit_type FROM jobs") == [
        (0, 0, 2 * MS, 0, "EXIT"), (0, 1, 3 * MS, 0, "EXIT"), (1, 0, 21 * MS, 1, "EXIT"),
    ]  # fmt: skip
    # Jobs have a table of their own, so they are not repeated among the events.
    assert ask(path, "SELECT seq, kind FROM events") == [(0, "start"), (1, "end")]
    assert ask(path, "PRAGMA foreign_key_check") == []
    # One plain file, not in WAL mode any more (bytes 18 and 19 of its header), so a read-only disk may hold it.
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert path.read_bytes()[18:20] == b"\x01\x01"


def test_views_answer_in_one_line(path):
    write(
        path,
        (run(taskset(n=1, target=0.5)), good()),
        (run(taskset(n=2, target=0.5)), good(slow_ns=21 * MS)),
    )
    assert ask(path, "SELECT * FROM acceptance") == [(0.5, 2, 2, 1, 0.5, 0, "fifo")]
    assert ask(
        path, "SELECT task, worst_response_ns, n_missed, max(response_over_deadline) FROM responses"
    ) == [("slow", 21 * MS, 1, 1.05)]


def test_each_scheduler_has_its_own_acceptance_ratio(path):
    """The same sets under two of them are two curves, and no mean of both."""
    by_rank = taskset(target=0.5)
    by_deadline = replace(
        by_rank, tasks=tuple(replace(task, policy=Policy.DEADLINE) for task in by_rank.tasks)
    )
    write(path, (run(by_rank), good(slow_ns=21 * MS)), (run(by_deadline), good()))
    assert ask(path, "SELECT scheduler, utilization, n_tasksets, n_schedulable, ratio FROM acceptance") == [
        ("deadline", 0.5, 1, 1, 1.0),
        ("fifo", 0.5, 1, 0, 0.0),
    ]


def test_a_set_that_is_measured_often_counts_once(path):
    """By its worst run, and only by those that the host did not disturb; what does not repeat says nothing."""
    met, late = good(), good(slow_ns=21 * MS)
    often, now_and_then, noisy, partly, broken = (taskset(n=n, target=0.5) for n in range(5))
    opens = replace(good(), jobs=(job(0, 0, 2 * MS, ExitType.EXIT_ERROR),))
    monitor = SQLiteMonitor(path)
    monitor.open()
    for which, results in (
        (often, [met, met, met]),
        (now_and_then, [met, late, opens]),
        (noisy, [replace(late, validity=Validity.DISTURBED)] * 2),
        (partly, [replace(late, validity=Validity.DISTURBED), replace(met, validity=Validity.UNDISTURBED)]),
        (broken, [met]),
        (taskset(n=5, target=0.7), [met, opens]),
    ):
        for repetition, result in enumerate(results, start=1):
            monitor.__taskset_finish__(replace(run(which), repetition=repetition), result)
    monitor.__taskset_bad__(run(broken), UnrepeatableError("another table"))
    monitor.close()
    assert ask(path, "SELECT * FROM acceptance") == [
        (0.5, 3, 7, 2, 2 / 3, 1, "fifo"),
        (0.7, 1, 2, 0, None, 0, "fifo"),
    ]


def test_an_attempt_that_does_not_count_leaves_no_label(path):
    monitor = SQLiteMonitor(path)
    monitor.open()
    first, second = run(), run(attempt=2)
    monitor.__taskset_start__(first)
    monitor.__taskset_event__(first, StartEvent(1))
    monitor.__taskset_stop__(first, failed())
    monitor.__taskset_stop__(second, failed(Outcome.DISTURBED))
    monitor.__taskset_bad__(second, RunnerError("given up"))
    monitor.close()
    assert ask(path, "SELECT state FROM tasksets") == [("bad",)]
    assert ask(path, "SELECT attempt, outcome, n_jobs, schedulable, error FROM runs ORDER BY attempt") == [
        (1, "guest_crash", None, None, "the guest died\n  log: console.log"),
        (2, "disturbed", None, None, "the guest died\n  log: console.log"),
    ]
    assert ask(path, "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM events)") == [(0,)]


def test_a_set_with_a_valid_run_stays_done(path):
    """One of several repetitions was given up: the set has been measured all the same, whichever came first."""
    monitor = SQLiteMonitor(path)
    monitor.open()
    for n, bad_first in ((1, True), (2, False)):
        which = taskset(n=n)
        for bad in (bad_first, not bad_first):
            if bad:
                monitor.__taskset_bad__(run(which), RunnerError("given up"))
            else:
                monitor.__taskset_finish__(run(which), good())
    monitor.close()
    assert ask(path, "SELECT state FROM tasksets") == [("done",), ("done",)]


def test_a_set_that_runs_again_is_there_once(path):
    write(path, (run(), good()), (run(), good()))
    write(path, (run(), good()))  # and a later run adds to the same file
    assert ask(path, "SELECT count(*) FROM tasksets") == [(1,)]
    assert ask(path, "SELECT count(*) FROM tasks") == [(2,)]
    assert ask(path, "SELECT count(*), count(DISTINCT run_id) FROM runs") == [(3, 3)]
    assert ask(path, "SELECT count(*) FROM jobs") == [(9,)]


def known(attempt: int = 1, *, machine: str = "qemu1", which: TaskSet | None = None) -> Run:
    """An attempt whose `run_id` follows from what it measures."""
    return replace(run(which, machine=machine, attempt=attempt), identity="ab", run_id="")


def test_the_same_run_is_there_once_however_often_it_is_told(path):
    """A folder that is measured again, or a set that the source yields twice."""
    write(path, (known(), good()), (known(machine="qemu2"), replace(good(), wall_s=9.0)))
    write(path, (known(machine="qemu3"), good()))
    assert ask(path, "SELECT machine, wall_s, n_jobs FROM runs") == [("qemu1", 0.25, 3)]
    assert ask(path, "SELECT count(*) FROM jobs") == [(3,)]


def test_failed_attempts_stand_beside_the_valid_run_which_nothing_undoes(path):
    """And its jobs are found under the same `run_id`, whatever else went wrong."""
    monitor = SQLiteMonitor(path)
    monitor.open()
    monitor.__taskset_stop__(known(), failed())
    monitor.__taskset_stop__(known(machine="qemu2"), failed(Outcome.INFRA_ERROR))
    monitor.idle()
    assert ask(path, "SELECT machine, outcome FROM runs") == [("qemu2", "infra_error")]
    monitor.__taskset_start__(known(2, machine="qemu3"))
    monitor.__taskset_event__(known(2, machine="qemu3"), StartEvent(1))
    monitor.__taskset_finish__(known(2, machine="qemu3"), good())
    monitor.__taskset_stop__(known(), failed())
    monitor.close()
    assert ask(path, "SELECT run_id, machine, outcome FROM runs ORDER BY outcome") == [
        (known().run_id, "qemu3", "completed"),
        (f"{known().run_id}.1", "qemu1", "guest_crash"),
    ]
    assert ask(path, "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM events)") == [(3, 1)]
    assert ask(path, "SELECT state, n_failed, run_id FROM ledger") == [("done", 1, known().run_id)]
    assert ask(path, "PRAGMA foreign_key_check") == []


def test_another_table_for_the_same_run_is_an_error_and_does_not_get_in(path):
    write(path, (known(), good()))
    monitor = SQLiteMonitor(path)
    monitor.open()
    other = good(slow_ns=11 * MS)
    monitor.__taskset_finish__(known(machine="qemu2"), other)
    monitor.__taskset_finish__(run(taskset(n=1)), good())
    with pytest.raises(UnrepeatableError) as caught:
        monitor.idle()
    assert {good().table_sha256, other.table_sha256} < set(caught.value.what.replace(",", "").split())
    assert known().run_id in caught.value.what
    assert caught.value.next_step
    monitor.close()
    assert ask(path, "SELECT machine, table_sha256 FROM runs WHERE identity = 'ab'") == [
        ("qemu1", good().table_sha256)
    ]
    assert ask(path, "SELECT state FROM tasksets ORDER BY state") == [("done",), ("unrepeatable",)]


def test_a_set_that_does_not_repeat_stays_so(path):
    """Whatever its other repetitions, still out when it showed, come to."""
    monitor = SQLiteMonitor(path)
    monitor.open()
    for repetition in (1, 2, 3):
        monitor.__taskset_finish__(replace(run(), repetition=repetition), good(slow_ns=repetition * MS))
        if repetition == 2:
            monitor.__taskset_bad__(run(), UnrepeatableError("another table"))
    monitor.__taskset_bad__(run(), RunnerError("given up"))
    monitor.close()
    assert ask(path, "SELECT state FROM tasksets") == [("unrepeatable",)]
    assert ask(path, "SELECT count(*) FROM runs") == [(3,)]


def test_equal_sets_at_the_same_time_keep_their_events_apart(path):
    """Two machines run the same set for the first time: one row, with the events of one of them."""
    monitor = SQLiteMonitor(path)
    monitor.open()
    one, two = known(machine="qemu1"), known(machine="qemu2")
    monitor.__taskset_start__(one)
    monitor.__taskset_event__(one, StartEvent(1))
    monitor.__taskset_start__(two)
    monitor.__taskset_event__(two, StartEvent(1))
    monitor.__taskset_event__(one, EndEvent(20 * MS, stopped=False))
    monitor.__taskset_event__(two, EndEvent(20 * MS, stopped=False))
    monitor.__taskset_finish__(two, good())
    monitor.__taskset_finish__(one, good())
    monitor.close()
    assert ask(path, "SELECT seq, kind FROM events") == [(0, "start"), (1, "end")]


def test_results_can_be_read_while_the_run_goes_on(path):
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        with closing(sqlite3.connect(path)) as database:
            while not stop.is_set():
                torn = database.execute(
                    "SELECT count(*) FROM runs WHERE n_jobs <> (SELECT count(*) FROM jobs WHERE jobs.run_id = runs.run_id)"
                ).fetchone()
                assert torn == (0,)
                seen.append(database.execute("SELECT count(*) FROM runs").fetchone()[0])

    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((SQLiteMonitor(path, commit_interval_s=0.01),))
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(300):
            channel.finish(run(taskset(n=number)), good())
            time.sleep(0.001)
        stop.set()
        reader.join()
    assert dispatcher.failures == {}
    assert len(set(seen)) > 3  # it saw the data grow
    assert seen == sorted(seen)
    assert ask(path, "SELECT count(*) FROM jobs") == [(900,)]


def test_results_are_there_as_soon_as_nothing_else_waits(path):
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((SQLiteMonitor(path, commit_interval_s=3600),))
        channel.finish(run(), good())
        deadline_s = time.monotonic() + 5
        while ask(path, "SELECT count(*) FROM runs") == [(0,)] and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert ask(path, "SELECT count(*) FROM runs") == [(1,)]


def child(script: str, *args: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A Python of its own that has the samples at hand."""
    prelude = (
        "import sys; from tests.monitor_samples import *; from runner.monitors.sqlite import SQLiteMonitor\n"
    )
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", prelude + script, *map(str, args)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_writer_leaves_whole_runs(path):
    script = """
monitor = SQLiteMonitor(sys.argv[1], commit_interval_s=0.005)
monitor.open()
n = 0
while True:
    monitor.__taskset_finish__(run(taskset(n=n)), good())
    n += 1
    if n == 500: print("well under way", flush=True)
"""
    with child(script, path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA foreign_key_check") == []
    ((n_runs, n_jobs),) = ask(path, "SELECT count(*), sum(n_jobs) FROM runs")
    assert n_runs >= 400
    assert ask(path, "SELECT count(*) FROM jobs") == [(n_jobs,)] == [(3 * n_runs,)]
    write(path, (run(), good()))  # and the next run goes on in it
    assert ask(path, "SELECT count(*) FROM runs") == [(n_runs + 1,)]


FULL_DISK = """
import os, pathlib
folder = pathlib.Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(1 << 20))
monitor = SQLiteMonitor(folder / "results.sqlite", commit_interval_s=0)
monitor.open()
n = 0
while not monitor.blocked:
    n += 1
    monitor.__taskset_finish__(run(taskset(n=n)), good())
print(monitor.blocked)
ballast.unlink()
while monitor.blocked:
    monitor.idle()
monitor.__taskset_finish__(run(taskset(n=0)), good())
monitor.close()
import sqlite3
database = sqlite3.connect(folder / "results.sqlite")
print(n + 1, *database.execute("SELECT count(*), sum(n_jobs), (SELECT count(*) FROM jobs) FROM runs").fetchone())
print(*database.execute("PRAGMA integrity_check").fetchone())
"""


def test_a_full_disk_blocks_and_nothing_is_lost_once_there_is_room(tmp_path):
    inside = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-c", inside, str(tmp_path))
    if shutil.which("unshare") is None or subprocess.call([*wrapper, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("this host lets nobody mount a small file system")
    with child(FULL_DISK, tmp_path, wrapper=wrapper) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    message, counts, integrity = out.splitlines()
    assert "results.sqlite cannot be written: database or disk is full; results wait in memory" in message
    told, n_runs, n_jobs, n_job_rows = map(int, counts.split())
    assert n_runs == told
    assert n_jobs == n_job_rows == 3 * told
    assert integrity == "ok"


def test_a_file_that_may_not_grow_is_an_error_that_says_what_is_missing(path):
    """RLIMIT_FSIZE works without any privilege; the limit stays, so `close()` has to say that data is lost."""
    script = """
import resource
from runner.errors import HostError
monitor = SQLiteMonitor(sys.argv[1], commit_interval_s=0)
monitor.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
for n in range(2000):
    monitor.__taskset_finish__(run(taskset(n=n)), good())
assert "disk I/O error" in monitor.blocked, monitor.blocked
try:
    monitor.close()
except HostError as exc:
    print(exc.what)
"""
    with child(script, path) as process:
        what, _ = process.communicate(timeout=60)
    assert "attempts wait in memory" in what
    ((n_runs,),) = ask(path, "SELECT count(*) FROM runs")
    assert f"{2000 - n_runs} attempts" in what
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_is_locked_for_a_while_costs_nothing(path, caplog):
    monitor = SQLiteMonitor(path)
    monitor.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monitor.__taskset_finish__(run(), good())
        monitor.idle()
        assert "is locked by another program; 1 results wait" in caplog.text
        other.execute("ROLLBACK")
    monitor.close()
    assert ask(path, "SELECT count(*) FROM runs") == [(1,)]


def test_a_file_that_stays_locked_blocks(path, monkeypatch):
    monkeypatch.setattr(ledger, "_BUSY_FOR_LONG_S", 0.2)
    monitor = SQLiteMonitor(path)
    monitor.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monitor.__taskset_finish__(run(), good())
        monitor.idle()
        assert monitor.blocked == ""  # whoever only looks is soon gone
        while not monitor.blocked:
            monitor.idle()
        assert "is locked by another program; results wait in memory" in monitor.blocked
        other.execute("ROLLBACK")
    while monitor.blocked:
        monitor.idle()
    assert ask(path, "SELECT count(*) FROM runs") == [(1,)]
    monitor.close()


def test_the_end_waits_for_whoever_holds_a_lock(path):
    monitor = SQLiteMonitor(path)
    monitor.open()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        monitor.__taskset_finish__(run(), good())
        release = threading.Timer(0.3, other.execute, ("ROLLBACK",))
        release.start()
        monitor.close()
        release.join()
    assert ask(path, "SELECT count(*) FROM runs") == [(1,)]


def test_what_waits_is_bounded(path):
    """A disk that stays full must not take the memory as well: what no longer fits is lost, and each loss is said."""
    monitor = SQLiteMonitor(path, max_waiting_jobs=6)
    monitor.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monitor.__taskset_finish__(run(), good())
        monitor.__taskset_finish__(run(), good())
        with pytest.raises(HostError, match="this attempt is lost"):
            monitor.__taskset_finish__(run(), good())
        other.execute("ROLLBACK")
    monitor.close()
    assert ask(path, "SELECT count(*) FROM runs") == [(2,)]


def test_a_reader_that_stays_does_not_disturb_the_end(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        monitor = SQLiteMonitor(path)
        monitor.open()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        monitor.__taskset_finish__(run(), good())
        monitor.close()
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)  # its own snapshot
    assert ask(path, "SELECT count(*) FROM runs") == [(1,)]


def test_a_result_that_contradicts_itself_costs_only_itself(path):
    """A session that reports a job twice, or a number beyond 64 bits, is refused; what waits with it is written."""
    monitor = SQLiteMonitor(path, commit_interval_s=3600)
    monitor.open()
    twice = replace(good(), jobs=(job(0, 0, 1 * MS), job(0, 0, 2 * MS)))
    huge = replace(good(), end_ns=1 << 70)
    foreign = replace(good(), jobs=(job(7, 0, 1 * MS),))
    for result in (good(), twice, huge, foreign, good()):
        monitor.__taskset_finish__(run(), result)
    with pytest.raises(ProtocolError, match="UNIQUE constraint failed: jobs") as caught:
        monitor.idle()
    assert caught.value.what.count("are not in the data") == 3
    monitor.close()
    assert ask(path, "SELECT n_jobs FROM runs") == [(3,), (3,)]
    assert ask(path, "SELECT count(*) FROM jobs") == [(6,)]


def refusal(path: Path) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        SQLiteMonitor(path).open()
    assert caught.value.next_step
    return caught.value


def test_another_schema_is_refused(path):
    write(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    error = refusal(path)
    assert isinstance(error, UsageError)
    assert f"holds data of schema {schema.SCHEMA_VERSION + 1}" in error.what
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_untouched(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    assert "holds other data" in refusal(path).what
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(path):
    path.write_text("task,period\n" * 100)
    assert "is not an SQLite database" in refusal(path).what
    assert path.read_text() == "task,period\n" * 100


def test_a_missing_folder_is_named(path):
    error = refusal(path.parent / "nowhere" / "results.sqlite")
    assert isinstance(error, UsageError)
    assert "its folder does not exist" in error.what


def test_a_place_that_cannot_be_written_is_the_hosts_fault(path):
    path.mkdir()
    error = refusal(path)
    assert isinstance(error, HostError)
    assert "cannot be written" in error.what


def test_closing_what_was_never_opened_does_nothing(path):
    SQLiteMonitor(path).close()
    assert not path.exists()


def test_the_dispatcher_learns_that_data_is_lost(path):
    """What ends a run with an error: the monitor is required, so its failure is kept."""
    with MonitorDispatcher() as dispatcher, pytest.raises(UsageError):
        dispatcher.channel((SQLiteMonitor(path.parent / "nowhere" / "results.sqlite"),))
    assert isinstance(dispatcher.required_failure, UsageError)
