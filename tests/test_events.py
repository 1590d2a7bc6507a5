"""What is concluded from a job, and from an attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.events import KILLED, VALID_OUTCOMES, ExitType, JobRecord, Outcome, Run, RunResult
from runner.model import Task, TaskSet
from tests.monitor_samples import good

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
        assert job(ExitType.EXIT, 9000)._replace(release_ns=None).missed(SET) is None

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

    @pytest.mark.parametrize("outcome", sorted(set(Outcome) - VALID_OUTCOMES))
    def test_a_failed_attempt_says_nothing(self, outcome: Outcome) -> None:
        """Not even when a miss was seen before it failed."""
        assert RunResult(outcome=outcome, jobs=(self.LATE,)).schedulable(SET) is None
        assert RunResult(outcome=outcome, jobs=(self.LATE,)).table_sha256 is None

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


class TestRunId:
    """Unique where nothing repeats, the same everywhere where everything does."""

    def test_without_an_identity_every_attempt_has_an_id_of_its_own(self) -> None:
        runs = [Run(taskset=SET, machine="qemu1") for _ in range(3)]
        assert len({run.run_id for run in runs}) == 3
        assert all(run.started_utc.utcoffset() is not None for run in runs), (
            "the calendar is UTC, and says so"
        )

    def test_with_an_identity_it_follows_from_what_is_measured(self) -> None:
        ids = [
            Run(
                taskset=SET, machine=machine, identity=identity, repetition=repetition, attempt=attempt
            ).run_id
            for machine in ("qemu1", "qemu2")
            for identity in ("aa", "bb")
            for repetition, attempt in ((1, 1), (1, 2), (2, 1), (1, 11), (11, 1))
        ]
        assert ids[:10] == ids[10:]
        assert ids[0] == ids[1] == ids[3], "whatever went wrong before, it is the same measurement"
        assert len(set(ids)) == 6
        assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)

    def test_a_given_one_is_kept(self) -> None:
        assert Run(taskset=SET, machine="qemu1", run_id="mine", identity="aa").run_id == "mine"


numbers = st.none() | st.integers(-(1 << 63), (1 << 63) - 1)
records = st.builds(
    JobRecord,
    st.integers(0, 3),
    st.integers(0, 3),
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
)
tables = st.lists(records, max_size=6, unique_by=lambda record: record[:2])


def digest(jobs: Iterable[JobRecord]) -> str:
    """Of an attempt that yielded these."""
    found = RunResult(outcome=Outcome.COMPLETED, jobs=tuple(jobs)).table_sha256
    assert found is not None
    return found


class TestTableDigest:
    """Equal tables, equal digests; different ones, different digests."""

    @given(tables, st.randoms())
    def test_the_order_of_reports_does_not_count(self, jobs: list[JobRecord], random: Random) -> None:
        shuffled = list(jobs)
        random.shuffle(shuffled)
        assert digest(shuffled) == digest(jobs)

    @given(tables.filter(bool), st.data())
    def test_every_field_counts(self, jobs: list[JobRecord], data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(jobs) - 1))
        name = data.draw(st.sampled_from(JobRecord._fields))
        values: st.SearchStrategy[object] = {
            "exit_type": st.sampled_from(ExitType),
            "task_idx": st.integers(0, 99),
            "job_idx": st.integers(0, 99),
        }.get(name, numbers)
        value: Any = data.draw(values.filter(lambda value: value != getattr(jobs[which], name)))
        changed = [job._replace(**{name: value}) if job is jobs[which] else job for job in jobs]
        assert digest(changed) != digest(jobs)

    @given(tables.filter(bool))
    def test_every_job_counts(self, jobs: list[JobRecord]) -> None:
        assert digest(jobs[1:]) != digest(jobs)
        assert digest([*jobs, jobs[0]]) != digest(jobs)

    def test_nothing_but_the_jobs_counts(self) -> None:
        plain = RunResult(outcome=Outcome.COMPLETED, jobs=good().jobs)
        assert good().table_sha256 == plain.table_sha256

    def test_it_stays_what_it_is(self) -> None:
        """Data of years ago are compared with those of today."""
        assert digest([]) == hashlib.sha256(b"").hexdigest()
        text = b"0,1,2000,2000,2500,100,EXIT,None,None,None,None,None"
        assert digest([job(ExitType.EXIT, 2500)]) == hashlib.sha256(text).hexdigest()
