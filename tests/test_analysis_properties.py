"""What must hold of the analyses for any set: against the simulation, and arrays against single sets."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.analysis import SporadicTask, Verdict, analyse
from runner.analysis.arrays import (
    NONE,
    TaskArrays,
    exceeding,
    hyperbolic_of,
    liu_layland_of,
    response_times,
    schedulable_by_rank,
)
from runner.analysis.breakdown import scaling_by_rank
from runner.analysis.demand import processor_demand, quick_demand
from runner.analysis.demand_arrays import feasible_under_edf
from runner.analysis.fixed_priority import response, responses
from runner.analysis.utilization import exceeds, hyperbolic, liu_layland
from runner.model import Task, TaskSet
from runner.units import NS_PER_MS as MS
from tests.agreement import simulated

PERIODS = (4, 5, 6, 8, 10, 12, 15, 20)
Rows = list[tuple[int, int, int]]


def rows_of(n_tasks: int, *, longest: float = 1.0) -> st.SearchStrategy[Rows]:
    """(C, T, D), the most urgent first; D up to `longest` periods, C at most a period."""
    one = st.sampled_from(PERIODS).flatmap(
        lambda period: st.tuples(
            st.integers(1, period), st.just(period), st.integers(1, int(longest * period))
        )
    )
    return st.lists(one, min_size=n_tasks, max_size=n_tasks)


def taskset(rows: Rows, jitters_ms: list[int], *, n_hyperperiods: int = 2) -> TaskSet:
    horizon = n_hyperperiods * lcm(*(period for _, period, _ in rows))
    return TaskSet(
        tuple(
            Task(
                wcet_ns=cost * MS,
                period_ns=period * MS,
                deadline_ns=deadline * MS,
                jitter_ns=jitter * MS,
                priority_rank=rank,
                n_jobs=horizon // period,
            )
            for rank, ((cost, period, deadline), jitter) in enumerate(zip(rows, jitters_ms, strict=True))
        )
    )


@st.composite
def light(draw: st.DrawFn, *, longest: float = 1.0) -> Rows:
    """Sets with U ≤ 1."""
    found: Rows = []
    for cost, period, deadline in draw(st.integers(1, 4).flatmap(lambda n: rows_of(n, longest=longest))):
        added = [*found, (cost, period, deadline)]
        if not exceeds([SporadicTask(*row) for row in added]):
            found = added
    return found or [(1, 4, 4)]


@given(st.integers(1, 4).flatmap(rows_of))
def test_a_set_breaks_where_its_scaling_factor_says(rows: Rows) -> None:
    """A millionth less and response-time analysis accepts it, a millionth more and it does not; at 1 they agree exactly."""
    which = [SporadicTask(*(value * 10**9 for value in row)) for row in rows]
    ranks = range(len(rows))
    found = scaling_by_rank(which, ranks)
    assert found is not None
    assert found.holds is not any(one.late for one in responses(which, ranks))
    for nearly, is_late in ((1 - 1e-6, False), (1 + 1e-6, True)):
        scaled = [one._replace(wcet=round(one.wcet * found.factor * nearly)) for one in which]
        assert any(one.late for one in responses(scaled, ranks)) is is_late


@given(light(longest=3), st.data())
@settings(max_examples=60, deadline=None)
def test_with_jitter_no_response_exceeds_its_bound(rows: Rows, data: st.DataObject) -> None:
    jitters_ms = [data.draw(st.integers(0, 2 * period)) for _, period, _ in rows]
    which = taskset(rows, jitters_ms)
    (rta,) = analyse(which, tests=("rta",))
    missed, worst_ns = simulated(which)
    for bound_ns, seen_ns in zip(rta.wcrt_ns, worst_ns, strict=True):
        assert bound_ns is None or seen_ns <= bound_ns
    assert rta.verdict is not Verdict.SCHEDULABLE or not missed
    assert rta.verdict is not Verdict.UNSCHEDULABLE or missed


@given(light(longest=3))
@example([(26, 70, 70), (62, 100, 120)])
@settings(max_examples=60, deadline=None)
def test_deadlines_beyond_periods_are_analysed_exactly(rows: Rows) -> None:
    """The worst response lies in the first busy window, whichever of its jobs has it."""
    which = taskset(rows, [0] * len(rows))
    (rta,) = analyse(which, tests=("rta",))
    missed, worst_ns = simulated(which)
    assert list(rta.wcrt_ns) == worst_ns
    assert (rta.verdict is Verdict.UNSCHEDULABLE) == missed


@given(light(longest=2), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_what_runs_once_before_all_others_is_blocking(rows: Rows, blocking: int) -> None:
    """A job of length B that goes first, at the critical instant or anywhere else, costs no task more than its bound with B."""
    which = taskset(rows, [0] * len(rows))
    (rta,) = analyse(which, tests=("rta",), blockings_ns=[blocking * MS] * len(rows))
    (free,) = analyse(which, tests=("rta",))
    for offset_ns in (0, 3 * MS):
        first = Task(wcet_ns=blocking * MS, period_ns=1000 * MS, offset_ns=offset_ns, n_jobs=1)
        later = [replace(task, priority_rank=task.priority_rank + 1) for task in which.tasks]
        missed, worst_ns = simulated(TaskSet((first, *later)))
        for bound_ns, seen_ns in zip(rta.wcrt_ns, worst_ns[1:], strict=True):
            assert bound_ns is None or seen_ns <= bound_ns
        assert rta.verdict is not Verdict.SCHEDULABLE or not missed
    for with_ns, without_ns in zip(rta.wcrt_ns, free.wcrt_ns, strict=True):
        assert with_ns is None or without_ns is None or with_ns >= without_ns + blocking * MS


@given(rows_of(3), st.integers(0, 9))
def test_blocking_is_as_a_longer_job_where_one_job_is_all(rows: Rows, blocking: int) -> None:
    tasks = [SporadicTask(*row) for row in rows]
    longer = response(tasks[2]._replace(wcet=tasks[2].wcet + blocking), tasks[:2])
    blocked = response(tasks[2]._replace(blocking=blocking), tasks[:2])
    if longer.wcrt is not None and longer.wcrt <= tasks[2].period:
        assert blocked == longer


@given(st.integers(1, 5).flatmap(lambda n: st.lists(rows_of(n), min_size=1, max_size=12)))
@example([[(26, 70, 70), (62, 100, 100)]])
@example([[(4, 8, 8), (5, 10, 10)], [(5, 5, 5), (1, 20, 20)], [(1, 4, 1), (1, 20, 1)]])
@settings(max_examples=150, deadline=None)
def test_arrays_have_the_verdicts_of_single_sets(many: list[Rows]) -> None:
    sets = TaskArrays(*(np.array([[row[at] for row in rows] for rows in many], np.int64) for at in range(3)))
    found = [response_times(sets), response_times(sets, only_in_time=True)]
    verdicts = zip(
        schedulable_by_rank(sets), liu_layland_of(sets), hyperbolic_of(sets), exceeding(sets), strict=True
    )
    for idx, said in enumerate(verdicts):
        tasks = sets.row(idx)
        single = responses(tasks, range(len(tasks)))
        assert list(said) == [
            not any(one.late for one in single),
            liu_layland(tasks),
            hyperbolic(tasks),
            exceeds(tasks),
        ]
        assert [NONE if one.wcrt is None else one.wcrt for one in single] == found[0][idx].tolist()
        in_time = [one.wcrt if one.late is False else NONE for one in single]
        assert in_time == found[1][idx].tolist()


@given(st.lists(rows_of(3, longest=3), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_arrays_know_responses_beyond_periods(many: list[Rows]) -> None:
    sets = TaskArrays(*(np.array([[row[at] for row in rows] for rows in many], np.int64) for at in range(3)))
    for idx, found in enumerate(response_times(sets)):
        single = responses(sets.row(idx), range(3))
        assert [NONE if one.wcrt is None else one.wcrt for one in single] == found.tolist()


@given(st.integers(1, 5).flatmap(lambda n: st.lists(rows_of(n, longest=1.5), min_size=1, max_size=12)))
@example([[(2, 6, 4), (2, 8, 5), (3, 9, 7)], [(3, 6, 5), (3, 6, 6), (1, 9, 9)]])
@example(
    [
        [(2, 4, 4), (1, 4, 4), (5, 20, 20)],
        [(1, 4, 1), (1, 4, 1), (1, 20, 1)],
        [(2, 4, 3), (3, 6, 5), (1, 20, 9)],
    ]
)
@settings(max_examples=150, deadline=None)
def test_arrays_have_the_verdicts_of_single_sets_under_edf(many: list[Rows]) -> None:
    sets = TaskArrays(*(np.array([[row[at] for row in rows] for rows in many], np.int64) for at in range(3)))
    for idx, found in enumerate(feasible_under_edf(sets)):
        assert bool(found) == quick_demand(sets.row(idx)).feasible == processor_demand(sets.row(idx)).feasible


def test_arrays_under_edf_hand_on_what_takes_long() -> None:
    """U = 1 with a deadline shorter than its period: the busy period is the hyperperiod, a thousand jobs long, or beyond the bound."""
    rows = [
        [(half, 2 * half, 2 * half - 1), (half + 1, 2 * half + 2, 2 * half + 2)] for half in (10, 1000, 10007)
    ]
    sets = TaskArrays(*(np.array([[row[at] for row in one] for one in rows], np.int64) for at in range(3)))
    assert [quick_demand(sets.row(idx)).feasible for idx in range(3)] == [True, True, None]
    assert feasible_under_edf(sets).tolist() == [1, 1, NONE]
