"""What every session must keep, whatever is on its other side: subclass `SessionContract` and override `session`.

The suite needs a few seconds of guest time in all. Where a real processor is never exact, it asks the tolerance fixtures.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.deadline import Deadline
from runner.errors import InfrastructureError, MachineKilled, RunnerError, TaskSetError
from runner.events import (
    EndEvent,
    Event,
    ExitType,
    JobEvent,
    JobRecord,
    RefusedEvent,
    StartEvent,
    TaskDoneEvent,
)
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.sessions.base import AbstractSession
from runner.simulator import Simulation
from runner.units import NS_PER_MS, NS_PER_US

MS = NS_PER_MS


@dataclass(frozen=True)
class Transcript:
    """Everything that a session said about one task set, sorted by kind."""

    events: tuple[Event, ...]

    @property
    def jobs(self) -> list[JobRecord]:
        return [event.job for event in self.events if isinstance(event, JobEvent)]

    @property
    def done(self) -> list[int]:
        return [event.task_idx for event in self.events if isinstance(event, TaskDoneEvent)]

    @property
    def refused(self) -> list[RefusedEvent]:
        return [event for event in self.events if isinstance(event, RefusedEvent)]

    @property
    def end(self) -> EndEvent:
        end = self.events[-1]
        assert isinstance(end, EndEvent)
        return end

    def of(self, task_idx: int) -> list[JobRecord]:
        """The jobs of one task, in the order in which they were reported."""
        return [job for job in self.jobs if job.task_idx == task_idx]

    def exits(self, task_idx: int) -> list[ExitType]:
        return [job.exit_type for job in self.of(task_idx)]


def run(session: AbstractSession, taskset: TaskSet, *, budget_s: float = 120.0) -> Transcript:
    """Run one set to its end."""
    session.start(taskset, Deadline.after(30.0))
    return Transcript(tuple(session.events(Deadline.after(budget_s))))


def periodic(cost_ms: float, period_ms: float, rank: int = 0, n_jobs: int = 1, **more: Any) -> Task:
    """A `spin` task in milliseconds."""
    return Task(
        period_ns=round(period_ms * MS),
        wcet_ns=round(cost_ms * MS),
        priority_rank=rank,
        n_jobs=n_jobs,
        **more,
    )


def one_shot(cost_ms: float, rank: int = 0, **more: Any) -> Task:
    """A `spin` task that is released once."""
    return Task(period_ns=None, wcet_ns=round(cost_ms * MS), priority_rank=rank, **more)


def execution(path: Path | str, *argv: str, **more: Any) -> Task:
    """A task that runs an executable, once."""
    args: dict[str, int | str | tuple[str, ...]] = {"path": str(path), "argv": argv}
    return Task(period_ns=None, workload="executable", workload_args=args, **more)


#: As many as a mailbox of the usual size has room for, rounded down.
ENDLESS_JOBS = 2_000_000


def endless() -> TaskSet:
    """Half an hour of simulated time: nobody waits for its end."""
    return TaskSet((periodic(0.1, 1, n_jobs=ENDLESS_JOBS),), name="endless")


def known(value: int | None) -> int:
    """A time that must have been reported."""
    assert value is not None
    return value


class SessionContract:
    """The rules of `AbstractSession`; not collected by itself.

    Attributes:
        hears_stop: Whether a set that runs is heard and can be asked to stop; else it goes on to its own `stop_ns`, and only
            then tells what happened.
    """

    hears_stop: ClassVar[bool] = True

    @property
    def long_set(self) -> TaskSet:
        """A set whose first events come soon, while most of its jobs are still to come wherever that can be."""
        return endless() if self.hears_stop else replace(endless(), stop_ns=200 * MS)

    @pytest.fixture
    def session(self) -> Iterator[AbstractSession]:
        """An open session, closed afterwards."""
        raise NotImplementedError

    @pytest.fixture
    def exec_tolerance_ns(self) -> int:
        """How much CPU time a job may use beyond (or below) its C."""
        return 0

    @pytest.fixture
    def response_tolerance(self) -> Callable[[int], int]:
        """How far an instant may be from the ideal one, given the length of what leads to it."""
        return lambda response_ns: 0

    @pytest.fixture
    def about(self, response_tolerance: Callable[[int], int]) -> Callable[[int | None, int], bool]:
        """Whether a measured instant is the ideal one, as far as this session can tell."""

        def compare(measured_ns: int | None, ideal_ns: int) -> bool:
            return measured_ns is not None and abs(measured_ns - ideal_ns) <= response_tolerance(ideal_ns)

        return compare

    # -- order and completeness ------------------------------------------------------------------------------------

    def test_start_comes_first_and_end_comes_last(self, session: AbstractSession) -> None:
        events = run(session, TaskSet((periodic(2, 20, 0, 3), periodic(4, 30, 1, 2)))).events
        assert isinstance(events[0], StartEvent)
        assert isinstance(events[-1], EndEvent)
        kinds = Counter(type(event) for event in events)
        assert kinds == {StartEvent: 1, JobEvent: 5, TaskDoneEvent: 2, EndEvent: 1}

    def test_every_release_has_one_row(self, session: AbstractSession) -> None:
        tasks = (periodic(2, 20, 0, 6), periodic(3, 30, 1, 4), periodic(4, 60, 2, 2))
        transcript = run(session, TaskSet(tasks))
        assert Counter(job.task_idx for job in transcript.jobs) == {0: 6, 1: 4, 2: 2}
        for idx in range(3):
            rows = [job.job_idx for job in transcript.of(idx)]
            assert rows == list(range(tasks[idx].n_jobs)), "a task's jobs come in the order of their releases"
        assert sorted(transcript.done) == [0, 1, 2]
        assert not transcript.end.stopped

    def test_a_task_is_done_after_its_last_job(self, session: AbstractSession) -> None:
        events = run(session, TaskSet((periodic(2, 20, 0, 2), periodic(3, 50, 1, 2)))).events
        for idx in (0, 1):
            last_job = max(
                i for i, e in enumerate(events) if isinstance(e, JobEvent) and e.job.task_idx == idx
            )
            done = next(i for i, e in enumerate(events) if isinstance(e, TaskDoneEvent) and e.task_idx == idx)
            assert done > last_job

    def test_times_of_a_job_are_in_order(self, session: AbstractSession, exec_tolerance_ns: int) -> None:
        tasks = (periodic(3, 20, 0, 5, offset_ns=7 * MS), periodic(8, 50, 1, 2))
        for job in run(session, TaskSet(tasks)).jobs:
            task = tasks[job.task_idx]
            assert job.exit_type is ExitType.EXIT
            assert job.exit_code == 0
            assert job.release_ns == task.release_ns(job.job_idx), "releases are nominal, so they are exact"
            assert job.release_ns <= known(job.start_ns) < known(job.finish_ns)
            assert abs(known(job.exec_ns) - known(task.spin_ns)) <= exec_tolerance_ns
            assert known(job.finish_ns) - known(job.start_ns) >= known(task.spin_ns) - exec_tolerance_ns

    # -- scheduling ------------------------------------------------------------------------------------------------

    def test_responses_are_those_of_the_ideal_processor(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        """Burns and Wellings' set D scaled by 0.95: every job's response shows preemption at work."""
        taskset = TaskSet((periodic(28.5, 70, 0, 6), periodic(28.5, 120, 1, 3), periodic(47.5, 200, 2, 2)))
        ideal = Transcript(tuple(Simulation(taskset).events()))
        measured = run(session, taskset)
        for idx in range(3):
            for job, expected in zip(measured.of(idx), ideal.of(idx), strict=True):
                assert about(job.response_ns, known(expected.response_ns)), (job, expected)

    def test_offsets_are_absolute(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        """The original added them up from task to task."""
        offsets_ms = (0, 30, 10)
        transcript = run(
            session, TaskSet(tuple(periodic(2, 50, 0, 2, offset_ns=ms * MS) for ms in offsets_ms))
        )
        for idx, offset_ms in enumerate(offsets_ms):
            assert [job.release_ns for job in transcript.of(idx)] == [offset_ms * MS, (offset_ms + 50) * MS]
            assert all(about(known(job.start_ns) - known(job.release_ns), 0) for job in transcript.of(idx))

    def test_a_one_shot_task_runs_once(self, session: AbstractSession) -> None:
        transcript = run(session, TaskSet((one_shot(3, offset_ns=20 * MS), periodic(2, 30, 1, 3))))
        (job,) = transcript.of(0)
        assert (job.job_idx, job.release_ns, job.exit_type) == (0, 20 * MS, ExitType.EXIT)
        assert len(transcript.of(1)) == 3
        assert not transcript.end.stopped

    def test_a_more_urgent_task_preempts(self, session: AbstractSession) -> None:
        transcript = run(session, TaskSet((one_shot(5, 0, offset_ns=10 * MS), one_shot(30, 1))))
        (urgent,), (long,) = transcript.of(0), transcript.of(1)
        assert known(long.start_ns) < known(urgent.start_ns)
        assert known(urgent.finish_ns) < known(long.finish_ns)
        assert known(long.preemptions) >= 1

    def test_equal_ranks_wait_for_each_other(self, session: AbstractSession) -> None:
        transcript = run(session, TaskSet((one_shot(10, 0, offset_ns=5 * MS), one_shot(20, 0))))
        (second,), (first,) = transcript.of(0), transcript.of(1)
        assert known(second.start_ns) >= known(first.finish_ns)

    def test_round_robin_shares_a_rank(self, session: AbstractSession) -> None:
        tasks = tuple(one_shot(120, 0, policy=Policy.RR) for _ in range(2))
        jobs = sorted(run(session, TaskSet(tasks)).jobs, key=lambda job: known(job.start_ns))
        assert known(jobs[1].start_ns) < known(jobs[0].finish_ns)

    def test_other_runs_when_nobody_else_does(self, session: AbstractSession) -> None:
        tasks = (one_shot(10, policy=Policy.OTHER), one_shot(30, 5, offset_ns=5 * MS))
        transcript = run(session, TaskSet(tasks))
        (background,), (urgent,) = transcript.of(0), transcript.of(1)
        assert known(background.finish_ns) > known(urgent.finish_ns)

    def test_edf_meets_deadlines_that_fixed_priorities_miss(self, session: AbstractSession) -> None:
        """Buttazzo's example scaled by 0.95 (U = .923): rate-monotonic misses once per 350 ms, EDF never."""
        rows = ((19, 50, 7), (38, 70, 5))
        missed = {}
        for policy in (Policy.FIFO, Policy.DEADLINE):
            tasks = tuple(
                periodic(c, t, rank, n, policy=policy, dl_runtime_ns=round(c * MS * 1.02))
                for rank, (c, t, n) in enumerate(rows)
            )
            taskset = TaskSet(tasks)
            missed[policy] = sum(job.missed(taskset) is True for job in run(session, taskset).jobs)
        assert missed == {Policy.FIFO: 1, Policy.DEADLINE: 0}

    # -- admission -------------------------------------------------------------------------------------------------

    def test_a_refused_task_leaves_the_others_alone(self, session: AbstractSession) -> None:
        tasks = tuple(periodic(c, 50, n_jobs=2, policy=Policy.DEADLINE) for c in (20, 20, 20))
        transcript = run(session, TaskSet(tasks))
        assert transcript.refused == [RefusedEvent(2, 16, "EBUSY")]
        assert isinstance(transcript.events[0], RefusedEvent), "refusals are known before the start"
        assert isinstance(transcript.events[1], StartEvent)
        (refused,) = transcript.of(2)
        assert (refused.job_idx, refused.exit_type) == (0, ExitType.NOT_SCHEDULED)
        assert refused.start_ns is refused.finish_ns is refused.exec_ns is None
        assert len(transcript.of(0)) == len(transcript.of(1)) == 2

    def test_without_admission_control_all_run(self, session: AbstractSession) -> None:
        tasks = tuple(periodic(c, 50, n_jobs=2, policy=Policy.DEADLINE) for c in (18, 16, 14))
        transcript = run(session, TaskSet(tasks, admission_control=False, stop_ns=150 * MS))
        assert transcript.refused == []
        assert Counter(job.task_idx for job in transcript.jobs) == {0: 2, 1: 2, 2: 2}

    # -- overload: what happens at a job's limit -------------------------------------------------------------------

    def test_continue_lets_late_jobs_finish(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        transcript = run(session, TaskSet((periodic(30, 20, 0, 3),), stop_ns=200 * MS))
        assert transcript.exits(0) == [ExitType.EXIT] * 3
        assert [job.release_ns for job in transcript.of(0)] == [0, 20 * MS, 40 * MS], "releases stay nominal"
        for job, finish_ms in zip(transcript.of(0), (30, 60, 90), strict=True):
            assert about(job.finish_ns, finish_ms * MS)

    def test_kill_and_skip_kills_at_the_next_release_and_skips_it(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        tasks = (periodic(30, 20, 0, 4),)
        transcript = run(session, TaskSet(tasks, overrun_policy=OverrunPolicy.KILL_AND_SKIP))
        assert transcript.exits(0) == [ExitType.EXIT_PERIOD, ExitType.SKIPPED] * 2
        killed = transcript.of(0)[::2]
        assert about(killed[0].finish_ns, 20 * MS)
        assert about(killed[1].finish_ns, 60 * MS)
        for skipped in transcript.of(0)[1::2]:
            assert skipped.release_ns == tasks[0].release_ns(skipped.job_idx)
            assert skipped.start_ns is skipped.finish_ns is None

    def test_abort_at_deadline_kills_there(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        tasks = (periodic(30, 40, 0, 2, deadline_ns=20 * MS),)
        transcript = run(session, TaskSet(tasks, overrun_policy=OverrunPolicy.ABORT_AT_DEADLINE))
        assert transcript.exits(0) == [ExitType.EXIT_DEADLINE] * 2
        assert about(transcript.of(0)[0].finish_ns, 20 * MS)
        assert about(transcript.of(0)[1].finish_ns, 60 * MS)

    @pytest.mark.parametrize(
        ("overrun", "exits"),
        [
            (OverrunPolicy.KILL_AND_SKIP, [ExitType.EXIT_PERIOD, ExitType.SKIPPED, ExitType.EXIT]),
            (
                OverrunPolicy.ABORT_AT_DEADLINE,
                [ExitType.EXIT_DEADLINE, ExitType.EXIT_DEADLINE, ExitType.EXIT],
            ),
        ],
    )
    def test_a_job_that_never_ran_has_no_start(
        self,
        session: AbstractSession,
        about: Callable[[int | None, int], bool],
        overrun: OverrunPolicy,
        exits: list[ExitType],
    ) -> None:
        """A hog keeps the task from the processor until 50 ms: that job was killed waiting."""
        tasks = (one_shot(50, 0), periodic(5, 20, 1, 3))
        transcript = run(session, TaskSet(tasks, overrun_policy=overrun))
        assert transcript.exits(0) == [ExitType.EXIT]
        assert transcript.exits(1) == exits
        starved = transcript.of(1)[0]
        assert starved.start_ns is None
        assert about(starved.finish_ns, 20 * MS)
        assert known(transcript.of(1)[2].start_ns) >= 50 * MS

    def test_critical_time_counts_from_the_start(
        self, session: AbstractSession, exec_tolerance_ns: int, about: Callable[[int | None, int], bool]
    ) -> None:
        """Not from the release: the hog delays the first start by 10 ms, and the kill with it."""
        tasks = (one_shot(10, 0), periodic(20, 50, 1, 2, kill_after_start_ns=8 * MS))
        transcript = run(session, TaskSet(tasks))
        assert transcript.exits(1) == [ExitType.EXIT_CRITICAL] * 2
        for job in transcript.of(1):
            assert about(known(job.finish_ns) - known(job.start_ns), 8 * MS)
            assert known(job.exec_ns) <= 8 * MS + exec_tolerance_ns
        hog, late = transcript.of(0)[0], transcript.of(1)[0]
        assert about(known(late.start_ns) - known(hog.finish_ns), 0)
        assert known(late.finish_ns) >= 18 * MS

    def test_a_set_under_heavy_overload_ends_on_time(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        """Utilization 3: everything released by the end has a row, finished or not."""
        tasks = tuple(periodic(20, 20, rank, 100) for rank in range(3))
        transcript = run(session, TaskSet(tasks, stop_ns=110 * MS))
        assert transcript.end.stopped
        assert about(transcript.end.t_ns, 110 * MS)
        assert Counter(job.task_idx for job in transcript.jobs) == {0: 6, 1: 6, 2: 6}
        assert set(transcript.exits(2)) == {ExitType.EXIT_EXTERNAL}
        assert all(job.start_ns is None for job in transcript.of(2))

    # -- the end of a set ------------------------------------------------------------------------------------------

    def test_stop_ns_ends_the_set(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        transcript = run(session, TaskSet((periodic(25, 20, 0, 100),), stop_ns=90 * MS))
        assert transcript.exits(0) == [ExitType.EXIT] * 3 + [ExitType.EXIT_EXTERNAL] * 2
        running, waiting = transcript.of(0)[3:]
        assert known(running.start_ns) >= 75 * MS
        assert waiting.start_ns is None
        assert about(running.finish_ns, 90 * MS)
        assert about(waiting.finish_ns, 90 * MS)
        assert transcript.end.stopped
        assert about(transcript.end.t_ns, 90 * MS)

    def test_stop_ends_a_long_set_early(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        session.start(self.long_set, Deadline.after(30.0))
        events: list[Event] = []
        for event in session.events(Deadline.after(60.0)):
            events.append(event)
            if len(events) == 4:
                session.stop(Deadline.after(10.0))
        transcript = Transcript(tuple(events))
        assert transcript.end.stopped
        assert 3 <= len(transcript.jobs) < ENDLESS_JOBS
        assert self.hears_stop or about(transcript.end.t_ns, known(self.long_set.stop_ns))
        assert [job.job_idx for job in transcript.jobs] == list(range(len(transcript.jobs)))
        assert len(run(session, TaskSet((periodic(2, 20),))).jobs) == 1, "the session takes the next set"

    def test_stop_without_a_set_does_nothing(self, session: AbstractSession) -> None:
        session.stop(Deadline.after(10.0))
        assert len(run(session, TaskSet((periodic(2, 20),))).jobs) == 1

    def test_a_deadline_that_passes_is_an_error(self, session: AbstractSession) -> None:
        session.start(endless(), Deadline.after(30.0))
        with pytest.raises(InfrastructureError):
            list(session.events(Deadline.after(0.3)))

    # -- the life of a session -------------------------------------------------------------------------------------

    def test_many_sets_in_a_row(self, session: AbstractSession) -> None:
        for n_jobs in range(1, 13):
            assert len(run(session, TaskSet((periodic(1, 5, 0, n_jobs),))).jobs) == n_jobs

    def test_an_impossible_set_leaves_the_session_usable(self, session: AbstractSession) -> None:
        impossible = Task(
            name="ghost", period_ns=None, workload="executable", workload_args={"path": "/no/such/file"}
        )
        with pytest.raises(TaskSetError, match=r"ghost|/no/such/file"):
            session.start(TaskSet((impossible,)), Deadline.after(30.0))
        assert len(run(session, TaskSet((periodic(2, 20),))).jobs) == 1

    def test_abort_wakes_the_reader_with_its_error(self, session: AbstractSession) -> None:
        error = MachineKilled("the operator killed it")
        session.start(endless(), Deadline.after(30.0))
        aborted_s: list[float] = []

        def abort() -> None:
            time.sleep(0.3)
            aborted_s.append(time.monotonic())
            session.abort(error)

        thread = threading.Thread(target=abort)
        thread.start()
        try:
            with pytest.raises(MachineKilled) as caught:
                list(session.events(Deadline.after(120.0)))
            assert time.monotonic() - aborted_s[0] < 2.0
        finally:
            thread.join()
        assert caught.value is error

    def test_after_abort_every_call_raises_its_error(self, session: AbstractSession) -> None:
        error = MachineKilled("the operator killed it")
        session.abort(error)
        with pytest.raises(MachineKilled) as caught:
            session.start(endless(), Deadline.after(30.0))
        assert caught.value is error
        session.close()

    def test_close_twice_is_close_once(self, session: AbstractSession) -> None:
        session.close()
        session.close()

    def test_close_before_all_was_read(self, session: AbstractSession) -> None:
        session.start(self.long_set, Deadline.after(30.0))
        next(iter(session.events(Deadline.after(30.0))))
        session.close()

    def test_a_closed_session_takes_nothing(self, session: AbstractSession) -> None:
        session.close()
        with pytest.raises(RunnerError):
            session.start(endless(), Deadline.after(30.0))

    # -- size ------------------------------------------------------------------------------------------------------

    def test_as_many_tasks_as_there_may_be(self, session: AbstractSession) -> None:
        tasks: Sequence[Task] = [periodic(0.5, 200, idx % 48, 2) for idx in range(64)]
        transcript = run(session, TaskSet(tuple(tasks)))
        assert Counter(job.task_idx for job in transcript.jobs) == dict.fromkeys(range(64), 2)
        assert set(transcript.done) == set(range(64))

    def test_ten_thousand_jobs(self, session: AbstractSession) -> None:
        tasks = tuple(
            Task(period_ns=2 * MS, wcet_ns=20 * NS_PER_US, priority_rank=rank, n_jobs=1000)
            for rank in range(10)
        )
        transcript = run(session, TaskSet(tasks))
        assert len({(job.task_idx, job.job_idx) for job in transcript.jobs}) == len(transcript.jobs) == 10_000


class OnGuest(SessionContract):
    """The tolerances of an instruction-counted guest: 1 % for the kernel's own work, 50 µs for waking up (100 µs measured at most)."""

    @pytest.fixture
    def exec_tolerance_ns(self) -> int:
        return 100 * NS_PER_US

    @pytest.fixture
    def response_tolerance(self) -> Callable[[int], int]:
        return lambda response_ns: max(response_ns // 100 + 50 * NS_PER_US, 100 * NS_PER_US)
