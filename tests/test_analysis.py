"""Analysis: textbook numbers, the simulation as the other witness, and arrays against single sets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from runner.analysis import SporadicTask, Verdict, analyse
from runner.analysis.arrays import (
    NONE,
    TaskArrays,
    hyperbolic_of,
    liu_layland_of,
    response_times,
    schedulable_by_rank,
)
from runner.analysis.breakdown import scaling_by_rank, scaling_under_edf
from runner.analysis.demand import busy_period, demand_bound, demand_limit, processor_demand, quick_demand
from runner.analysis.demand_arrays import feasible_under_edf
from runner.analysis.edf_response import edf_responses
from runner.analysis.fixed_priority import responses
from runner.analysis.global_edf import bcl, gfb, tardiness_bound
from runner.analysis.sporadic import utilization
from runner.analysis.utilization import hyperbolic, liu_layland
from runner.errors import UsageError
from runner.model import Policy, Task, TaskSet
from runner.units import NS_PER_MS
from tests.agreement import contradictions, random_sets


def tasks(*rows: tuple[int, ...]) -> list[SporadicTask]:
    return [SporadicTask(row[0], row[1], row[-1]) for row in rows]


@pytest.mark.parametrize(
    ("rows", "ll", "hb", "wcrt"),
    [
        ([(10, 30), (10, 40), (12, 50)], False, False, [10, 20, 52]),
        ([(4, 16), (5, 40), (32, 80)], True, True, [4, 9, 58]),
        ([(5, 20), (10, 40), (40, 80)], False, False, [5, 15, 80]),
        ([(3, 7), (3, 12), (5, 20)], False, False, [3, 6, 20]),
        ([(40, 100), (40, 150), (100, 350)], False, False, [40, 80, 300]),
        ([(20, 100), (40, 150), (100, 350)], True, True, [20, 60, 240]),
        ([(2, 5), (4, 7)], False, False, [2, 8]),
        ([(1, 4), (2, 6), (3, 8)], False, False, [1, 3, 10]),
        ([(26, 70), (62, 100)], False, False, [26, 118]),
    ],
)
def test_fixed_priorities(rows, ll, hb, wcrt):
    which = tasks(*rows)
    assert (liu_layland(which), hyperbolic(which)) == (ll, hb)
    assert [one.wcrt for one in responses(which, range(len(which)))] == wcrt


@pytest.mark.parametrize(
    ("rows", "wcrt"),
    [
        ([(3, 7), (3, 12), (5, 20)], [3, 8, 16]),
        ([(2, 5), (4, 7)], [4, 6]),
        ([(1, 4), (2, 6), (3, 8)], [3, 5, 7]),
        ([(3, 12), (2, 4)], [7, 2]),
        ([(2, 9), (3, 12), (2, 4)], [8, 11, 3]),
        ([(1, 4), (1, 12), (3, 16)], [1, 2, 6]),
        ([(2, 5, 4), (3, 6, 5)], [4, 5]),
        ([(2, 4, 3), (3, 12, 10), (2, 9, 7)], [3, 10, 7]),
        ([(2, 6, 4), (2, 8, 5), (3, 9, 7)], [4, 5, 7]),
    ],
)
def test_responses_under_edf(rows, wcrt):
    assert edf_responses(tasks(*rows)) == wcrt


def test_processor_demand():
    which = tasks((2, 6, 4), (2, 8, 5), (3, 9, 7))
    assert demand_limit(which) == Fraction(25)
    assert busy_period(which) == 16
    assert [demand_bound(which, t) for t in (4, 5, 7, 10, 13, 16, 21, 22)] == [2, 4, 7, 9, 11, 16, 18, 20]
    assert processor_demand(which).feasible
    assert quick_demand(which).feasible
    assert responses(which, range(3))[2].late


def test_several_processors():
    three = tasks((2, 3), (2, 3), (2, 3))
    assert (gfb(three, 2), bcl(three, 2), tardiness_bound(three, 2)) == (False, False, 2)
    assert (gfb(three, 3), bcl(three, 3)) == (False, True)
    four = tasks((1, 4), (1, 5), (3, 9), (9, 18))
    assert (gfb(four, 2), bcl(four, 2)) == (True, False)


@pytest.mark.parametrize(
    ("rows", "factor"),
    [
        (((1, 4),), 4),
        (((2, 5), (4, 7)), Fraction(7, 8)),  # by hand: task 1 has 5/6 at t = 5, 7/8 at t = 7
        (((1, 2), (1, 4), (2, 8)), 1),  # harmonic: breaks at U = 1
        (
            ((40, 100), (40, 150), (100, 350)),
            1,
        ),  # by hand: task 2 is done at 300, just before the next release
    ],
)
def test_critical_scaling_factors(rows, factor):
    which = tasks(*rows)
    found, edf = scaling_by_rank(which, range(len(which))), scaling_under_edf(which)
    assert found is not None
    assert edf is not None
    assert found.holds is (factor >= 1)
    assert found.factor == pytest.approx(float(factor))
    assert edf.holds is (utilization(which) <= 1)
    assert edf.factor == pytest.approx(float(1 / utilization(which)))


def test_no_scaling_factor_where_it_would_not_be_the_answer():
    (row,) = tasks((1, 4))
    assert scaling_by_rank([row, row], [0, 0]) is None, "equal ranks"
    assert scaling_by_rank([row._replace(deadline=5)], [0]) is None, "D > T"
    assert scaling_by_rank([row._replace(jitter=1)], [0]) is None
    assert scaling_by_rank([row, SporadicTask(1, 10**9, 10**9)], [0, 1]) is None, "too many instants"
    assert scaling_under_edf([row._replace(deadline=3)]) is None
    assert scaling_under_edf([row._replace(blocking=1)]) is None


@pytest.mark.parametrize("constrained", [False, True])
def test_exact_tests_agree_with_the_simulation_and_dominance_holds(constrained):
    """A share of what `python -m tests.agreement` does."""
    for which in random_sets(1, 300, constrained=constrained):
        assert contradictions(which) == [], which


def first_response(
    costs: tuple[int, ...], periods: tuple[int, ...], n_cpus: int, *, by_deadline: bool
) -> int:
    """When the last task's first job ends, all tasks released together: global scheduling, unit by unit of time."""
    left = [(period, period, idx) for idx, period in enumerate(periods)]
    need, now = list(costs), 0
    while need[-1]:
        ready = sorted((at if by_deadline else period, idx) for at, period, idx in left if need[idx])
        for _, idx in ready[:n_cpus]:
            need[idx] -= 1
        now += 1
        for place, (due, period, idx) in enumerate(left[:-1]):
            if now == due:
                left[place], need[idx] = (due + period, period, idx), costs[idx]
    return now


def test_dhalls_effect():
    """Two light tasks and one that needs a whole processor: global EDF and RM miss at U = 1.1 of 2, and nothing may promise otherwise."""
    rows = ((5, 99), (5, 99), (100, 100))
    which = tasks(*rows)
    costs, periods = zip(*rows, strict=True)
    assert utilization(which) == Fraction(5, 99) * 2 + 1
    assert first_response(costs, periods, 2, by_deadline=True) == 105
    assert first_response(costs, periods, 2, by_deadline=False) == 110
    assert (gfb(which, 2), bcl(which, 2), tardiness_bound(which, 2)) == (False, False, 148)
    members = [Task(wcet_ns=c * NS_PER_MS, period_ns=t * NS_PER_MS, policy=Policy.DEADLINE) for c, t in rows]
    whole = analyse(TaskSet(tuple(members), admission_control=False), n_cpus=2)
    assert {one.test: one.verdict for one in whole} == {"gfb": Verdict.UNKNOWN, "bcl": Verdict.UNKNOWN}


def test_without_dhalls_effect():
    """The heavy task alone on a processor."""
    rows = ((5, 99, 0), (5, 99, 0), (100, 100, 1))
    members = tuple(
        Task(wcet_ns=c * NS_PER_MS, period_ns=t * NS_PER_MS, cpu_affinity=(cpu,), priority_rank=rank)
        for rank, (c, t, cpu) in enumerate(rows)
    )
    (rta,) = analyse(TaskSet(members), n_cpus=2, tests=("rta",))
    assert rta.verdict is Verdict.SCHEDULABLE
    assert rta.wcrt_ns == (5 * NS_PER_MS, 10 * NS_PER_MS, 100 * NS_PER_MS)


def test_arrays_say_what_single_sets_do():
    rng = np.random.default_rng(2)
    periods = np.sort(rng.integers(10, 1000, (500, 6)), axis=1)
    costs = np.maximum(
        (rng.dirichlet(np.ones(6), 500) * rng.uniform(0.6, 1.05, (500, 1)) * periods).astype(np.int64), 1
    )
    sets = TaskArrays(costs, periods, periods)
    wcrt, verdicts, ll, hb = (
        response_times(sets),
        schedulable_by_rank(sets),
        liu_layland_of(sets),
        hyperbolic_of(sets),
    )
    for idx in range(500):
        which = sets.row(idx)
        found = responses(which, range(6))
        assert [NONE if one.wcrt is None else one.wcrt for one in found] == wcrt[idx].tolist()
        assert verdicts[idx] == (not any(one.late for one in found))
        assert (ll[idx], hb[idx]) == (liu_layland(which), hyperbolic(which))


def test_arrays_whose_demand_would_overflow():
    """Of a task that more urgent ones leave nothing: 2^44 jobs of 2^44 each are not even counted."""
    rows = [(1 << 44, 1, 1 << 44), (1, 1 << 44, 1 << 44)]
    sets = TaskArrays(*(np.array([[row[at] for row in rows]], np.int64) for at in range(3)))
    assert response_times(sets, only_in_time=True).tolist() == [[NONE, NONE]]
    assert feasible_under_edf(sets).tolist() == [0]
    short = TaskArrays(sets.wcet, sets.period, np.minimum(sets.deadline, sets.period))
    assert schedulable_by_rank(short).tolist() == [False]


def test_arrays_of_any_whole_numbers():
    """Narrow ones, and columns that do not lie side by side, are what they say; halves are no times."""
    columns = [np.array(column, np.int32).T for column in ([[1], [2]], [[4], [6]], [[4], [6]])]
    sets = TaskArrays(*columns)  # type: ignore[arg-type] # narrow, on purpose
    assert response_times(sets).tolist() == [[1, 3]]
    assert sets.wcet.dtype == np.int64
    with pytest.raises(UsageError, match="whole numbers"):
        TaskArrays(np.array([[0.5]]), np.array([[4]]), np.array([[4]]))
