"""The ideal processor: textbook results, a slow reference, and what must hold for every set."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings

from runner.errors import TaskSetError
from runner.events import EndEvent, Event, ExitType, JobEvent, JobRecord, RefusedEvent, TaskDoneEvent
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.simulator import Simulation, admitted
from runner.units import NS_PER_MS
from tests.strategies import SMALL_UNIT_NS, small_tasksets
from tests.tick_simulator import TickSimulator

# Textbook sets have unitless integer times; SCHED_DEADLINE needs periods of 100 µs at least.
UNIT = NS_PER_MS
Rows = Sequence[tuple[float, ...]]  # C, T and, if it is not T, D

BW_A = [(10, 30), (10, 40), (12, 50)]
BW_B = [(4, 16), (5, 40), (32, 80)]
BW_C = [(5, 20), (10, 40), (40, 80)]
BW_D = [(3, 7), (3, 12), (5, 20)]
SG = [(40, 100), (40, 150), (100, 350)]
SG_20 = [(20, 100), (40, 150), (100, 350)]
RM_FAIL = [(2, 5), (4, 7)]
LIP = [(1, 4), (2, 6), (3, 8)]
LEH = [(26, 70), (62, 100)]
PDC_1 = [(2, 6, 4), (2, 8, 5), (3, 9, 7)]


def taskset(
    rows: Rows,
    horizon: int,
    *,
    scale: float = 1.0,
    policy: Policy = Policy.FIFO,
    overrun: OverrunPolicy = OverrunPolicy.CONTINUE,
    admission_control: bool = False,
    ranks: list[int] | None = None,
) -> TaskSet:
    """Rows in priority order, every job that is released before the horizon, and time for late ones to finish."""
    tasks = []
    for idx, (cost, period, *deadline) in enumerate(rows):
        tasks.append(
            Task(
                period_ns=round(period * UNIT),
                wcet_ns=round(cost * scale * UNIT),
                deadline_ns=round(deadline[0] * UNIT) if deadline else None,
                priority_rank=ranks[idx] if ranks else idx,
                policy=policy,
                n_jobs=-(-horizon // round(period)),
            )
        )
    return TaskSet(
        tuple(tasks),
        overrun_policy=overrun,
        admission_control=admission_control,
        stop_ns=10 * horizon * UNIT,
    )


def simulate(taskset: TaskSet) -> list[Event]:
    return list(Simulation(taskset).events())


def jobs_of(taskset: TaskSet, task_idx: int | None = None) -> list[JobRecord]:
    jobs = [event.job for event in simulate(taskset) if isinstance(event, JobEvent)]
    return [job for job in jobs if task_idx in (None, job.task_idx)]


def responses(taskset: TaskSet, task_idx: int) -> list[float]:
    return [(job.response_ns or 0) / UNIT for job in jobs_of(taskset, task_idx)]


def worst(taskset: TaskSet) -> list[float]:
    return [max(responses(taskset, idx)) for idx in range(len(taskset.tasks))]


def missed(taskset: TaskSet, task_idx: int | None = None) -> int:
    return sum(job.missed(taskset) is True for job in jobs_of(taskset, task_idx))


class TestFixedPriorityOracles:
    """Worst-case responses that literature states; the synchronous release is the critical instant."""

    @pytest.mark.parametrize(
        ("rows", "horizon", "expected"),
        [
            (BW_A, 600, [10, 20, 52]),
            (BW_B, 80, [4, 9, 58]),
            (BW_C, 80, [5, 15, 80]),
            (BW_D, 420, [3, 6, 20]),
            (SG, 2100, [40, 80, 300]),
            (SG_20, 2100, [20, 60, 240]),
        ],
        ids=["BW-A", "BW-B", "BW-C", "BW-D", "SG", "SG-20"],
    )
    def test_worst_responses(self, rows: Rows, horizon: int, expected: list[float]) -> None:
        assert worst(taskset(rows, horizon)) == expected

    def test_rate_monotonic_failure(self) -> None:
        """Buttazzo: 2, and 8 > 7 at the critical instant; one miss per hyperperiod."""
        failing = taskset(RM_FAIL, 35)
        assert worst(failing) == [2, 8]
        assert missed(failing) == 1
        assert missed(taskset(RM_FAIL, 70)) == 2

    def test_liparis_set_job_by_job(self) -> None:
        failing = taskset(LIP, 24)
        assert worst(failing) == [1, 3, 10]
        assert responses(failing, 2) == [10, 8, 7]

    def test_lehoczkys_worst_job_is_not_the_first(self) -> None:
        late = taskset(LEH, 700)
        assert responses(late, 1) == [114, 102, 116, 104, 118, 106, 94]

    def test_lehoczkys_set_with_abort(self) -> None:
        """Killed at 100, a job leaves no work behind for its successor.

        Checked by hand, job 3: 306…350 and 376…394 are free of the first task, 62 in all.
        """
        aborted = taskset(LEH, 700, overrun=OverrunPolicy.ABORT_AT_DEADLINE)
        lengths = [((job.finish_ns or 0) - (job.release_ns or 0)) / UNIT for job in jobs_of(aborted, 1)]
        assert lengths == [100, 88, 100, 94, 88, 100, 88]

    def test_golden_critical_instant(self) -> None:
        """G1: every worst response is attained by job 0, no miss in 4.2 s."""
        golden = taskset([(30, 70), (30, 120), (50, 200)], 4200, scale=0.95)
        assert [len(jobs_of(golden, idx)) for idx in range(3)] == [60, 35, 21]
        assert worst(golden) == [28.5, 57, 190]
        assert [responses(golden, idx)[0] for idx in range(3)] == [28.5, 57, 190]
        assert missed(golden) == 0

    def test_golden_negative_control(self) -> None:
        """G1 with reversed priorities: 26 of the 60 jobs of the shortest period miss."""
        reversed_ranks = taskset([(30, 70), (30, 120), (50, 200)], 4200, scale=0.95, ranks=[2, 1, 0])
        assert worst(reversed_ranks) == [104.5, 76, 47.5]
        assert missed(reversed_ranks, 0) == 26
        assert missed(reversed_ranks) == 26

    def test_golden_rate_monotonic_crossover(self) -> None:
        """G2: one miss per hyperperiod at U = .910, none at U = .843."""
        rows = [(10, 40), (20, 60), (30, 80)]
        assert responses(taskset(rows, 240, scale=0.95), 2) == [95, 72, 66.5]
        assert missed(taskset(rows, 2400, scale=0.95)) == 10
        assert missed(taskset(rows, 2400, scale=0.88)) == 0


class TestEdfOracles:
    """Worst cases and verdicts only: which of two equal deadlines comes first is nobody's promise."""

    @pytest.mark.parametrize(
        ("rows", "horizon"),
        [(BW_D, 420), (RM_FAIL, 35), (LIP, 24), (LEH, 700), (PDC_1, 72), ([(1, 2), (1, 3), (1, 6)], 6)],
        ids=["BW-D", "RM-fail", "LIP", "LEH", "PDC-1", "U=1"],
    )
    def test_feasible_sets_miss_nothing(self, rows: Rows, horizon: int) -> None:
        assert missed(taskset(rows, horizon, policy=Policy.DEADLINE)) == 0

    @pytest.mark.parametrize(
        ("rows", "horizon", "bounds"),
        [
            (BW_D, 420, [3, 8, 16]),
            (RM_FAIL, 35, [4, 6]),
            (LIP, 24, [3, 5, 7]),
            (PDC_1, 72, [4, 5, 7]),
            ([(3, 12), (2, 4)], 12, [7, 2]),
            ([(2, 9), (3, 12), (2, 4)], 36, [8, 11, 3]),
            ([(1, 4), (1, 12), (3, 16)], 48, [1, 2, 6]),
            ([(2, 5, 4), (3, 6, 5)], 30, [4, 5]),
            ([(2, 4, 3), (3, 12, 10), (2, 9, 7)], 36, [3, 10, 7]),
        ],
    )
    def test_worst_case_over_all_offsets(self, rows: Rows, horizon: int, bounds: list[float]) -> None:
        """Each task against the others released together, with equal deadlines decided against it (it is the last one)."""
        for idx, bound in enumerate(bounds):
            others = [row for other, row in enumerate(rows) if other != idx]
            base = taskset([*others, rows[idx]], 2 * horizon, policy=Policy.DEADLINE)
            seen = [
                max(responses(replace(base, tasks=(*base.tasks[:-1], moved)), len(others)))
                for offset in range(int(rows[idx][1]))
                for moved in [replace(base.tasks[-1], offset_ns=offset * UNIT)]
            ]
            assert max(seen) == bound

    def test_deadline_monotonic_fails_where_edf_does_not(self) -> None:
        assert worst(taskset(PDC_1, 72))[2] == 11

    def test_golden_edf_under_its_bounds(self) -> None:
        """G1 under SCHED_DEADLINE, in units of 10 ms: no miss, responses within 28.5, 70 and 150 ms."""
        golden = taskset([(30, 70), (30, 120), (50, 200)], 4200, scale=0.95, policy=Policy.DEADLINE)
        assert missed(golden) == 0
        assert all(seen <= bound for seen, bound in zip(worst(golden), [28.5, 70, 150], strict=True))

    def test_golden_edf_where_rate_monotonic_misses(self) -> None:
        """G2: at most 66.5 ms, with equal deadlines by task index."""
        golden = taskset([(10, 40), (20, 60), (30, 80)], 2400, scale=0.95, policy=Policy.DEADLINE)
        assert missed(golden) == 0
        assert worst(golden)[2] in (57, 66.5)


class TestAdmission:
    """The kernel's bandwidth test."""

    def test_golden_the_third_task_is_refused(self) -> None:
        """G2 at full scale: U = .9583 > .95."""
        full = taskset([(10, 40), (20, 60), (30, 80)], 240, policy=Policy.DEADLINE, admission_control=True)
        events = simulate(full)
        assert [event for event in events if isinstance(event, RefusedEvent)] == [
            RefusedEvent(2, 16, "EBUSY")
        ]
        (refused,) = jobs_of(full, 2)
        assert refused == JobRecord(2, 0, None, None, None, None, ExitType.NOT_SCHEDULED)
        assert [len(jobs_of(full, idx)) for idx in range(2)] == [6, 4]
        assert isinstance(events[-1], EndEvent)
        assert not events[-1].stopped

    def test_without_the_cap_all_are_taken(self) -> None:
        full = taskset([(10, 40), (20, 60), (30, 80)], 240, policy=Policy.DEADLINE)
        assert admitted(full) == (True, True, True)
        assert missed(full) == 0

    def test_a_refused_task_leaves_room_for_a_later_smaller_one(self) -> None:
        asked = taskset(
            [(60, 100), (50, 100), (30, 100)], 100, policy=Policy.DEADLINE, admission_control=True
        )
        assert admitted(asked) == (True, False, True)

    def test_only_sched_deadline_is_asked(self) -> None:
        assert admitted(taskset([(9, 10), (9, 10)], 10, admission_control=True)) == (True, True)

    @given(small_tasksets(policies=(Policy.DEADLINE,)))
    def test_the_sum_of_bandwidths_stays_under_the_cap(self, drawn: TaskSet) -> None:
        """Up to the kernel's rounding: fractions of 2^20, downwards, one per task."""
        asked = TaskSet(drawn.tasks, admission_control=True)
        slack = Fraction(len(asked.tasks) + 1, 1 << 20)
        taken = Fraction(0)
        for task, fits in zip(asked.tasks, admitted(asked), strict=True):
            wanted = taken + Fraction(task.dl_budget_ns or 0, task.period_ns or 1)
            if fits:
                taken = wanted
                assert taken <= Fraction(95, 100) + slack
            else:
                assert wanted > Fraction(95, 100) - slack


class TestThrottling:
    """A SCHED_DEADLINE task that needs more than its budget does not get it from the others."""

    def test_the_budget_is_refilled_each_server_period(self) -> None:
        """C = 5 with Q = 2 every 10: 2 in the first two periods, the last 1 in the third."""
        greedy = Task(
            period_ns=10 * UNIT, dl_runtime_ns=2 * UNIT, wcet_ns=2 * UNIT, workload_args={"cpu_ns": 5 * UNIT},
            policy=Policy.DEADLINE,
        )  # fmt: skip
        (job,) = jobs_of(TaskSet((greedy,), stop_ns=100 * UNIT))
        assert job.finish_ns == 21 * UNIT
        assert job.preemptions == 2

    def test_others_run_meanwhile(self) -> None:
        greedy = Task(
            period_ns=10 * UNIT, dl_runtime_ns=2 * UNIT, wcet_ns=2 * UNIT, workload_args={"cpu_ns": 5 * UNIT},
            policy=Policy.DEADLINE,
        )  # fmt: skip
        modest = Task(period_ns=10 * UNIT, wcet_ns=8 * UNIT, n_jobs=2)
        both = TaskSet((greedy, modest), stop_ns=100 * UNIT)
        assert responses(both, 1) == [10, 10]


class TestRoundRobin:
    """100 ms each."""

    def test_equal_tasks_take_turns(self) -> None:
        tasks = tuple(Task(period_ns=None, wcet_ns=150 * NS_PER_MS, policy=Policy.RR) for _ in range(2))
        assert [job.finish_ns for job in jobs_of(TaskSet(tasks))] == [250 * NS_PER_MS, 300 * NS_PER_MS]

    def test_a_more_urgent_rank_does_not_share(self) -> None:
        tasks = tuple(
            Task(period_ns=None, wcet_ns=150 * NS_PER_MS, policy=Policy.RR, priority_rank=rank)
            for rank in range(2)
        )
        assert [job.finish_ns for job in jobs_of(TaskSet(tasks))] == [150 * NS_PER_MS, 300 * NS_PER_MS]


def by_task(events: list[Event]) -> list[JobRecord]:
    jobs = [event.job for event in events if isinstance(event, JobEvent)]
    return sorted(jobs, key=lambda job: (job.task_idx, job.job_idx))


class TestEverySet:
    """Properties, on thousands of small sets full of overload, kills and ties."""

    @settings(max_examples=400, deadline=None)
    @given(small_tasksets())
    def test_equals_the_tick_by_tick_reference(self, drawn: TaskSet) -> None:
        events = simulate(drawn)
        records, end = TickSimulator(drawn, SMALL_UNIT_NS).run()
        assert by_task(events) == records
        assert events[-1] == end

    @settings(max_examples=200, deadline=None)
    @given(small_tasksets())
    def test_events_come_in_the_order_of_time(self, drawn: TaskSet) -> None:
        instants = []
        for event in simulate(drawn)[1:]:
            match event:
                case JobEvent(job):
                    instants.append(job.release_ns if job.exit_type is ExitType.SKIPPED else job.finish_ns)
                case TaskDoneEvent(t_ns=t_ns) | EndEvent(t_ns=t_ns):
                    instants.append(t_ns)
        assert all(a is not None and b is not None and a <= b for a, b in pairwise(instants))

    @settings(max_examples=200, deadline=None)
    @given(small_tasksets())
    def test_no_job_gets_more_than_its_cost_and_only_finished_ones_get_all(self, drawn: TaskSet) -> None:
        for job in jobs_of(drawn):
            cost = drawn.tasks[job.task_idx].spin_ns or 0
            if job.exit_type is ExitType.EXIT:
                assert job.exec_ns == cost
            elif job.exit_type is not ExitType.SKIPPED:
                assert 0 <= (job.exec_ns or 0) < cost
                assert (job.start_ns is None) == (job.exec_ns == 0)

    @settings(max_examples=200, deadline=None)
    @given(small_tasksets(policies=(Policy.FIFO, Policy.OTHER)))
    def test_the_processor_never_idles_while_a_job_waits(self, drawn: TaskSet) -> None:
        """What was executed by the end equals the length of the busy periods."""
        jobs = [job for job in jobs_of(drawn) if job.exit_type is not ExitType.SKIPPED]
        busy = covered = 0
        for begin, end in sorted((job.release_ns or 0, job.finish_ns or 0) for job in jobs):
            busy += max(0, end - max(begin, covered))
            covered = max(covered, end)
        assert sum(job.exec_ns or 0 for job in jobs) == busy

    @settings(max_examples=100, deadline=None)
    @given(small_tasksets())
    def test_stop_ends_at_the_last_event_and_keeps_what_came_before(self, drawn: TaskSet) -> None:
        whole = simulate(drawn)
        simulation = Simulation(drawn)
        seen: list[Event] = []
        for event in simulation.events():
            seen.append(event)
            if len(seen) == len(whole) // 2:
                simulation.stop()
        half = len(whole) // 2
        assert seen[:half] == whole[:half]
        assert isinstance(seen[-1], EndEvent)
        rest = [event.job for event in seen[half:] if isinstance(event, JobEvent)]
        assert all(job.finish_ns in (None, seen[-1].t_ns) for job in rest)


class TestRefusals:
    """What cannot be simulated is said before anything runs."""

    def test_an_unknown_cost_names_the_task(self) -> None:
        with pytest.raises(TaskSetError, match=r"'greeter'.*'hey'"):
            Simulation(TaskSet((Task(name="greeter", period_ns=1000, workload="hey"),)))

    def test_a_declared_cost_is_taken(self) -> None:
        (job,) = jobs_of(TaskSet((Task(period_ns=1000, wcet_ns=7, workload="hey"),)))
        assert job.exec_ns == 7

    def test_spin_takes_its_argument_before_the_declared_cost(self) -> None:
        (job,) = jobs_of(TaskSet((Task(period_ns=1000, wcet_ns=7, workload_args={"cpu_ns": 9}),)))
        assert job.exec_ns == 9

    def test_a_second_processor_names_the_task(self) -> None:
        with pytest.raises(TaskSetError, match=r"'pinned'.*CPU 0"):
            Simulation(TaskSet((Task(name="pinned", period_ns=1000, wcet_ns=1, cpu_affinity=(0, 1)),)))
        assert jobs_of(TaskSet((Task(period_ns=1000, wcet_ns=1, cpu_affinity=(0,)),)))


def test_memory_depends_on_tasks_not_on_jobs() -> None:
    """A stream: 60,000 jobs, of which none is kept. Deadlines far beyond the period must not pile up timers."""
    tasks = tuple(
        Task(
            period_ns=10_000, wcet_ns=2_000, deadline_ns=10_000_000, kill_after_start_ns=9_000, n_jobs=20_000
        )
        for _ in range(3)
    )
    events = Simulation(TaskSet(tasks, overrun_policy=OverrunPolicy.ABORT_AT_DEADLINE)).events()
    for _ in range(3000):
        next(events)
    tracemalloc.start()
    try:
        n_jobs = sum(isinstance(event, JobEvent) for event in events)
        assert n_jobs > 55_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_hundred_thousand_jobs_take_seconds_at_most() -> None:
    """A loose bound (some ten times what was measured) that a quadratic slip would break."""
    began_s = time.monotonic()
    count = sum(isinstance(event, JobEvent) for event in Simulation(taskset(BW_D, 270_000)).events())
    assert count > 70_000
    assert time.monotonic() - began_s < 10.0
