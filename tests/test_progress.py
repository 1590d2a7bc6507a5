"""Going on where an earlier runner stopped: what is done is not done again, and what is not is."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.progress import read_progress
from runner.errors import Fault, GuestDied, MachineKilled, RunnerError, TaskSetError, UsageError
from runner.events import ExitType, JobRecord, Outcome, Run, RunResult
from runner.faults.incidents import Incident
from runner.faults.tries import Tries
from runner.model import TaskSet
from runner.monitors.channel import MonitorChannel
from runner.monitors.dispatcher import MonitorDispatcher
from runner.monitors.sqlite import SQLiteMonitor
from runner.monitors.summary import SummaryMonitor
from runner.queue.lease import Job, Lease
from runner.queue.taskset_queue import TaskSetQueue
from tests.fleet_samples import Sets, one
from tests.monitor_samples import failed


def ask(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


GOOD = RunResult(
    outcome=Outcome.COMPLETED, jobs=(JobRecord(0, 0, 0, 0, 1_000_000, 1_000_000, ExitType.EXIT, 0),)
)


PANIC = GuestDied("its kernel panicked", fault=Fault.TASKSET)


class Runner:
    """A runner of one machine that does what it is told, and forgets everything but the file."""

    def __init__(self, path: Path, source: object, *, repeat: int = 1, max_tries: int = 3) -> None:
        self._owned = ExitStack()
        progress = read_progress(path)
        dispatcher = self._owned.enter_context(MonitorDispatcher())
        channel = dispatcher.channel((SQLiteMonitor(path),))
        job = Job(source, channel, progress=progress)  # type: ignore[arg-type]
        self.queue = TaskSetQueue(job, max_tries=max_tries, repeat=repeat)
        channel.submission(self.queue.submission)
        self.channel = channel

    def begin(self) -> Lease | None:
        lease = self.queue.acquire()
        if lease is not None:
            self.channel.start(run_of(lease))
        return lease

    def succeed(self, lease: Lease) -> None:
        self.channel.finish(run_of(lease), GOOD)
        self.queue.done(lease)

    def fail(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> set[int]:
        """The set, if it is given up thereby."""
        self.channel.stop(run_of(lease), failed(Outcome.INFRA_ERROR if charged else Outcome.ABORTED))
        fault = self.queue.blame(lease, error)
        bad = self.queue.give_back(lease, error, charged=charged)
        if bad:
            self.channel.bad(run_of(lease), error)
        if fault is not None:
            self.channel.incident(
                Incident(
                    what=str(error),
                    fault=fault,
                    machine="qemu1",
                    submission=lease.job.submission,
                    set_idx=lease.set_idx,
                    repetition=lease.repetition,
                )
            )
        return {lease.set_idx} if bad else set()

    def finish(self) -> Counter[int]:
        """Measure what is left; how often each set was begun."""
        begun: Counter[int] = Counter()
        while (lease := self.begin()) is not None:
            begun[lease.set_idx] += 1
            self.succeed(lease)
        return begun

    def close(self) -> None:
        self._owned.close()


def run_of(lease: Lease) -> Run:
    return Run(
        taskset=lease.taskset,
        machine="qemu1",
        attempt=lease.attempt,
        repetition=lease.repetition,
        submission=lease.job.submission,
        set_idx=lease.set_idx,
        identity=lease.taskset.taskset_id,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def taken(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_what_is_done_is_not_handed_out_again(path: Path) -> None:
    with closing(Runner(path, Sets(5))) as first:
        for _ in range(2):
            first.succeed(taken(first.begin()))
        first.begin()
    assert ask(path, "SELECT n_submitted, n_done, n_bad, n_pending FROM progress") == [(5, 2, 0, 3)]
    with closing(Runner(path, Sets(5))) as second:
        assert (second.queue.n_done, second.queue.n_left) == (2, 3)
        assert second.finish() == {2: 1, 3: 1, 4: 1}
        assert (second.queue.n_done, second.queue.drained) == (5, True)
    assert ask(path, "SELECT n_submitted, n_done, n_bad, n_pending FROM progress") == [(5, 5, 0, 0)]
    assert ask(path, "SELECT count(*), count(DISTINCT taskset_id) FROM runs") == [(5, 5)]


def test_a_complete_run_has_nothing_to_hand_out(path: Path) -> None:
    with closing(Runner(path, Sets(3))) as first:
        first.finish()
    with closing(Runner(path, Sets(3))) as second:
        assert second.queue.drained
        assert second.queue.n_left == 0
        assert second.begin() is None


def test_a_half_measured_set_gets_what_is_missing_and_is_held_to_its_first_table(path: Path) -> None:
    with closing(Runner(path, Sets(1), repeat=3)) as first:
        first.succeed(taken(first.begin()))
    with closing(Runner(path, Sets(1), repeat=3)) as second:
        lease = taken(second.begin())
        assert lease.repetition == 2
        identity = lease.taskset.taskset_id
        assert second.queue.compare(lease, "another table", identity=identity) is not None
        assert second.queue.compare(lease, GOOD.table_sha256, identity=identity) is None
        second.succeed(lease)
        assert second.queue.n_done == 0
        assert second.finish() == {0: 1}
        assert second.queue.n_done == 1


def test_failed_tries_count_over_runners_and_kills_do_not(path: Path) -> None:
    for _ in range(2):
        with closing(Runner(path, Sets(1))) as runner:
            runner.fail(taken(runner.begin()), PANIC)
        with closing(Runner(path, Sets(1))) as runner:
            runner.fail(taken(runner.begin()), MachineKilled("x"), charged=False)
        with closing(Runner(path, Sets(1))) as runner:
            runner.begin()  # and the runner dies
    with closing(Runner(path, Sets(1))) as runner:
        lease = taken(runner.begin())
        assert (lease.attempt, lease.tries) == (3, Tries(n_taskset=2))
        runner.fail(lease, PANIC)
        assert runner.queue.drained
    assert ask(path, "SELECT n_done, n_bad, n_pending FROM progress") == [(0, 1, 0)]


def test_a_bad_set_stays_bad(path: Path) -> None:
    with closing(Runner(path, Sets(2), repeat=2)) as first:
        measured = taken(first.begin())
        first.succeed(measured)
        first.fail(taken(first.begin()), TaskSetError("it cannot run"))
    with closing(Runner(path, Sets(2), repeat=2)) as second:
        assert second.queue.n_bad == 1
        assert second.finish() == {1: 2}
    assert ask(path, "SELECT n_submitted, n_done, n_bad, n_pending FROM progress") == [(2, 1, 1, 0)]
    assert ask(path, "SELECT error FROM ledger WHERE state = 'bad'") == [("it cannot run",)]


def test_an_endless_source_goes_on_behind_what_was_handed_out(path: Path) -> None:
    with closing(Runner(path, Sets(None))) as first:
        leases = [taken(first.begin()) for _ in range(4)]
        first.succeed(leases[1])
        first.succeed(leases[3])
    assert ask(path, "SELECT n_submitted, n_done, n_pending, complete FROM progress") == [(4, 2, 2, 0)]
    with closing(Runner(path, Sets(None))) as second:
        assert [taken(second.begin()).set_idx for _ in range(4)] == [0, 2, 4, 5]


def test_equal_sets_at_two_places_are_two_sets(path: Path) -> None:
    class Twins:
        n_variants = 2

        def variants(self) -> Iterator[TaskSet]:
            yield from (one(1), one(1))

    with closing(Runner(path, Twins())) as first:
        first.succeed(taken(first.begin()))
    with closing(Runner(path, Twins())) as second:
        assert second.finish() == {1: 1}
    assert ask(path, "SELECT n_done FROM progress") == [(2,)]
    assert ask(path, "SELECT count(*) FROM runs") == [(1,)]


def test_a_source_that_yields_other_sets_is_refused(path: Path) -> None:
    class Others(Sets):
        def variants(self) -> Iterator[TaskSet]:
            yield from (one(100 + number) for number in range(3))

    with closing(Runner(path, Sets(3))) as first:
        first.succeed(taken(first.begin()))
    with (
        closing(Runner(path, Others(3))) as second,
        pytest.raises(UsageError, match="yields another one at place 0"),
    ):
        second.begin()


def test_another_number_of_repetitions_is_refused(path: Path) -> None:
    with closing(Runner(path, Sets(3))) as first:
        first.succeed(taken(first.begin()))
    progress = read_progress(path)
    assert progress is not None
    with pytest.raises(UsageError, match="repeat is 2, and was 1"):
        TaskSetQueue(Job(Sets(3), MonitorChannel((), lambda call: None), progress=progress), repeat=2)


def test_a_file_that_nobody_has_written_to_knows_nothing(path: Path) -> None:
    assert read_progress(path) is None
    path.touch()
    assert read_progress(path) is None
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    assert read_progress(path) is None
    path.write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(UsageError):
        read_progress(path)


def test_a_runner_that_died_while_it_changed_the_file_in_place_is_gone_on_with(path: Path) -> None:
    """As it does at the very end, when it leaves one plain file: a journal beside it then holds what it has changed."""
    with closing(Runner(path, Sets(3))) as runner:
        runner.succeed(taken(runner.begin()))
    changing = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("DELETE FROM ledger")
for table in range(50):
    database.execute(f"CREATE TABLE more{table} (text)")
    database.execute(f"INSERT INTO more{table} VALUES (?)", ("x" * 10_000,))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", changing, str(path)], check=True, timeout=60)
    assert path.with_name("results.sqlite-journal").stat().st_size
    with closing(Runner(path, Sets(3))) as runner:
        assert runner.queue.n_done == 1
        assert runner.finish() == {1: 1, 2: 1}


def test_a_run_that_was_gone_on_with_is_one_plain_file(path: Path) -> None:
    for n in (1, 2):
        runner = Runner(path, Sets(3))
        for _ in range(n):
            runner.succeed(taken(runner.begin()))
        runner.close()
        assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_later_fleets_add_submissions_of_their_own(path: Path) -> None:
    """From a Python shell: the same file again, and again from the beginning."""
    for _ in range(2):
        with MonitorDispatcher() as dispatcher:
            channel = dispatcher.channel((SQLiteMonitor(path),))
            queue = TaskSetQueue(Job(Sets(2), channel))
            channel.submission(queue.submission)
            while (lease := queue.acquire()) is not None:
                channel.start(run_of(lease))
                channel.finish(run_of(lease), GOOD)
                queue.done(lease)
    assert ask(path, "SELECT submission, source, n_done FROM progress") == [(1, "Sets", 2), (2, "Sets", 2)]
    second = read_progress(path, 2)
    assert second is not None
    assert second.complete


@given(
    n=st.integers(0, 6),
    repeat=st.integers(1, 3),
    announced=st.booleans(),
    script=st.lists(
        st.lists(st.sampled_from(["begin", "done", "fail", "kill", "bad"]), max_size=12), max_size=5
    ),
    data=st.data(),
)
@settings(max_examples=60)
def test_nothing_is_lost_and_nothing_doubled_however_often_the_runner_ends(  # noqa: PLR0917 - as hypothesis passes them
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    repeat: int,
    announced: bool,
    script: list[list[str]],
    data: st.DataObject,
) -> None:
    """Any number of runners, each of which ends in the midst of anything; the last one measures what is left."""
    path = tmp_path_factory.mktemp("run") / "results.sqlite"
    successes: Counter[tuple[int, int]] = Counter()
    given_up: set[int] = set()
    for steps in script:
        with closing(Runner(path, Sets(n, announced=announced), repeat=repeat)) as runner:
            assert runner.queue.n_bad == len(given_up)
            leases: list[Lease] = []
            for step in steps:
                if step == "begin":
                    lease = runner.begin()
                    leases += [] if lease is None else [lease]
                elif leases:
                    lease = leases.pop(data.draw(st.integers(0, len(leases) - 1)))
                    match step:
                        case "done":
                            successes[lease.set_idx, lease.repetition] += 1
                            runner.succeed(lease)
                        case "fail":
                            given_up |= runner.fail(lease, PANIC)
                        case "kill":
                            given_up |= runner.fail(lease, MachineKilled("x"), charged=False)
                        case "bad":
                            given_up |= runner.fail(lease, TaskSetError("x"))
    with closing(Runner(path, Sets(n, announced=announced), repeat=repeat)) as runner:
        while (lease := runner.begin()) is not None:
            successes[lease.set_idx, lease.repetition] += 1
            runner.succeed(lease)
        assert runner.queue.drained
    assert set(successes.values()) <= {1}, "measured twice"
    ((submitted, done, bad_sets, pending),) = ask(
        path, "SELECT n_submitted, n_done, n_bad, n_pending FROM progress"
    )
    assert (submitted, pending) == (n, 0)
    assert done + bad_sets == n
    assert bad_sets == len(given_up)
    assert {idx for idx, _ in successes} | given_up == set(range(n))
    assert ask(path, "PRAGMA foreign_key_check") == []


def test_a_summary_of_all_is_that_of_the_parts(path: Path) -> None:
    """What the first runner has measured and given up counts in the second one's table."""
    whole = io.StringIO()
    with closing(Runner(path, Sets(4))) as first:
        first.succeed(taken(first.begin()))
        first.fail(taken(first.begin()), TaskSetError("it cannot run"))
    progress = read_progress(path)
    assert progress is not None
    summary = SummaryMonitor(whole)
    for past in progress.past():
        summary.add_past(past)
    with closing(Runner(path, Sets(4))) as second:
        while (lease := second.begin()) is not None:
            second.succeed(lease)
            summary.__taskset_finish__(run_of(lease), GOOD)
    total = summary.total()
    assert (total.n_tasksets, total.n_schedulable, total.n_bad, total.n_jobs) == (4, 3, 1, 3)
    assert total.worst_response == pytest.approx(0.1)
