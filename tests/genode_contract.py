"""The session contract as far as Genode's protocol can keep it, whoever is on the other side: subclass and override `session`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from runner.deadline import Deadline
from runner.events import ExitType
from runner.model import OverrunPolicy, TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.genode import GenodeSession
from tests.session_contract import MS, SessionContract, known, one_shot, periodic, run


class AnyOverrun(GenodeSession):
    """Asks for what a Genode host does at a job's limit, for sets of which no job reaches it."""

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        super().start(replace(taskset, overrun_policy=OverrunPolicy.KILL_AND_SKIP), deadline)


class GenodeContract(SessionContract):
    """What speaks of releases, CPU time, skipped releases, or another overrun policy than the host's, cannot be said here."""

    @pytest.fixture
    def response_tolerance(self) -> Callable[[int], int]:
        return lambda response_ns: MS

    def test_times_of_a_job_are_in_order(self, session: AbstractSession, exec_tolerance_ns: int) -> None:
        for job in run(
            session, TaskSet((periodic(3, 20, 0, 5, offset_ns=7 * MS), periodic(8, 50, 1, 2)))
        ).jobs:
            assert job.exit_type is ExitType.EXIT
            assert job.release_ns is job.exec_ns is None
            assert known(job.start_ns) < known(job.finish_ns)

    def test_offsets_are_absolute(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        """In any order of the tasks. The zero is the host's own, so they are seen beside the first one to be released."""
        for offsets_ms in ((0, 30, 10), (40, 10, 25, 10), (33, 11, 0)):
            transcript = run(
                session, TaskSet(tuple(periodic(2, 60, 0, 2, offset_ns=ms * MS) for ms in offsets_ms))
            )
            earliest = offsets_ms.index(min(offsets_ms))
            zero_ns = known(transcript.of(earliest)[0].start_ns) - min(offsets_ms) * MS
            for idx, offset_ms in enumerate(offsets_ms):
                # Of those that are released together, the second one waits for the first.
                start_ms = offset_ms + 2 * offsets_ms[:idx].count(offset_ms)
                for job, ideal_ms in zip(transcript.of(idx), (start_ms, start_ms + 60), strict=True):
                    assert about(known(job.start_ns) - zero_ns, ideal_ms * MS), offsets_ms

    def test_a_one_shot_task_runs_once(self, session: AbstractSession) -> None:
        transcript = run(session, TaskSet((one_shot(3, offset_ns=20 * MS), periodic(2, 30, 1, 3))))
        assert transcript.exits(0) == [ExitType.EXIT]
        assert len(transcript.of(1)) == 3

    def test_a_more_urgent_task_preempts(self, session: AbstractSession) -> None:
        transcript = run(session, TaskSet((one_shot(5, 0, offset_ns=10 * MS), one_shot(30, 1))))
        (urgent,), (long,) = transcript.of(0), transcript.of(1)
        assert known(long.start_ns) < known(urgent.start_ns) < known(urgent.finish_ns) < known(long.finish_ns)

    def test_kill_and_skip_kills_at_the_next_release_and_skips_it(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        transcript = run(session, TaskSet((periodic(30, 20, 0, 4),)))
        assert transcript.exits(0) == [ExitType.EXIT_PERIOD] * 2
        assert all(about(known(j.finish_ns) - known(j.start_ns), 20 * MS) for j in transcript.of(0))

    def test_critical_time_counts_from_the_start(
        self, session: AbstractSession, exec_tolerance_ns: int, about: Callable[[int | None, int], bool]
    ) -> None:
        tasks = (one_shot(10, 0), periodic(20, 50, 1, 2, kill_after_start_ns=8 * MS))
        transcript = run(session, TaskSet(tasks))
        assert transcript.exits(1) == [ExitType.EXIT_CRITICAL] * 2
        assert all(about(known(j.finish_ns) - known(j.start_ns), 8 * MS) for j in transcript.of(1))

    def test_stop_ns_ends_the_set(
        self, session: AbstractSession, about: Callable[[int | None, int], bool]
    ) -> None:
        """By this computer's clock; the peer simulates as fast as it can."""
        transcript = run(session, replace(self.long_set, stop_ns=100 * MS))
        assert transcript.end.stopped

    def test_without_admission_control_all_run(self, session: AbstractSession) -> None:
        """The goal decides, not the set."""

    test_responses_are_those_of_the_ideal_processor = None  # type: ignore[assignment]
    test_round_robin_shares_a_rank = None  # type: ignore[assignment]
    test_other_runs_when_nobody_else_does = None  # type: ignore[assignment]
    test_edf_meets_deadlines_that_fixed_priorities_miss = None  # type: ignore[assignment]
    test_continue_lets_late_jobs_finish = None  # type: ignore[assignment]
    test_abort_at_deadline_kills_there = None  # type: ignore[assignment]
    test_a_job_that_never_ran_has_no_start = None  # type: ignore[assignment]
    test_a_set_under_heavy_overload_ends_on_time = None  # type: ignore[assignment]
