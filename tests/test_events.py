"""What is concluded from a job, and from an attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.events import KILLED, VALID_OUTCOMES, ExitType, JobRecord, Outcome, Run, RunResult
from runner.model import Task, TaskSet

D = 1000
SET = TaskSet((Task(period_ns=2000, wcet_ns=100, deadline_ns=D, n_jobs=3), Task(period_ns=None, wcet_ns=100)))


def job(exit_type: ExitType, finish_ns: int | None, *, task_idx: int = 0) -> JobRecord:
    """Job 1, released at 2000."""
    return JobRecord(task_idx, 1, 2000, 2000, finish_ns, 100, exit_type)


class TestMissed:
    """Known, or not known: nothing between."""

    @pytest.mark.parametrize(
        ("exit_type", "finish_ns", "missed"),
        [
            (ExitType.EXIT, 2999, False),
            (ExitType.EXIT, 3000, False),
            (ExitType.EXIT, 3001, True),
            *((killed, 3000, True) for killed in sorted(KILLED)),
            *((killed, 2999, None) for killed in sorted(KILLED)),
            (ExitType.SKIPPED, None, True),
            (ExitType.NOT_SCHEDULED, None, None),
            (ExitType.EXIT_ERROR, 5000, None),
            (ExitType.OUT_OF_QUOTA, 5000, None),
            (ExitType.EXIT, None, None),
        ],
    )
    def test_rule(self, exit_type: ExitType, finish_ns: int | None, missed: bool | None) -> None:
        assert job(exit_type, finish_ns).missed(SET) is missed

    def test_without_a_deadline_nothing_is_missed(self) -> None:
        late = job(ExitType.EXIT, 10**9, task_idx=1)
        assert late.deadline_abs_ns(SET) is None
        assert late.missed(SET) is None

    def test_without_a_release_nothing_is_known(self) -> None:
        assert replace(job(ExitType.EXIT, 9000), release_ns=None).missed(SET) is None

    def test_response_is_of_finished_jobs_only(self) -> None:
        assert job(ExitType.EXIT, 2600).response_ns == 600
        assert all(job(killed, 2600).response_ns is None for killed in KILLED)
        assert job(ExitType.EXIT, None).response_ns is None

    @given(st.sampled_from(ExitType), st.integers(2000, 10_000))
    def test_finishing_later_never_turns_a_miss_into_none(self, exit_type: ExitType, finish_ns: int) -> None:
        if job(exit_type, finish_ns).missed(SET) is True:
            assert job(exit_type, finish_ns + 1).missed(SET) is True


class TestSchedulable:
    """A label only where the measurement supports one."""

    GOOD = job(ExitType.EXIT, 2500)
    LATE = job(ExitType.EXIT, 3500)

    @pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.GUEST_CRASH, Outcome.INFRA_ERROR])
    def test_a_failed_attempt_says_nothing(self, outcome: Outcome) -> None:
        """Not even when a miss was seen before it failed."""
        assert RunResult(outcome=outcome, jobs=(self.LATE,)).schedulable(SET) is None
        assert outcome not in VALID_OUTCOMES

    def test_all_met(self) -> None:
        assert RunResult(outcome=Outcome.COMPLETED, jobs=(self.GOOD, self.GOOD)).schedulable(SET) is True

    def test_one_miss_is_enough(self) -> None:
        result = RunResult(outcome=Outcome.COMPLETED, jobs=(self.GOOD, self.LATE))
        assert result.schedulable(SET) is False
        assert result.n_missed(SET) == 1

    def test_refused_is_not_schedulable(self) -> None:
        assert RunResult(outcome=Outcome.REJECTED, jobs=(self.GOOD,)).schedulable(SET) is False

    def test_a_censored_job_leaves_it_open(self) -> None:
        """Killed before its deadline: it might have met it."""
        censored = job(ExitType.EXIT_EXTERNAL, 2500)
        assert RunResult(outcome=Outcome.TIMEOUT, jobs=(self.GOOD, censored)).schedulable(SET) is None
        assert RunResult(outcome=Outcome.TIMEOUT, jobs=(self.LATE, censored)).schedulable(SET) is False

    def test_a_failed_workload_leaves_it_open(self) -> None:
        failed = job(ExitType.EXIT_ERROR, 2100)
        assert RunResult(outcome=Outcome.COMPLETED, jobs=(self.GOOD, failed)).schedulable(SET) is None


def test_every_attempt_has_an_id_of_its_own() -> None:
    runs = [Run(taskset=SET, machine="qemu1") for _ in range(3)]
    assert len({run.run_id for run in runs}) == 3
    assert all(run.started_utc.utcoffset() is not None for run in runs), "the calendar is UTC, and says so"
