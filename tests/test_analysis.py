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
from runner.analysis.demand import busy_period, demand_bound, demand_limit, processor_demand, quick_demand
from runner.analysis.edf_response import edf_responses
from runner.analysis.fixed_priority import responses
from runner.analysis.global_edf import bcl, gfb, tardiness_bound
from runner.analysis.utilization import exceeds, hyperbolic, liu_layland
from runner.events import JobEvent
from runner.model import Policy, Task, TaskSet
from runner.simulator import Simulation
from runner.units import NS_PER_MS


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


def random_rows(seed: int, n_sets: int, *, constrained: bool) -> list[list[SporadicTask]]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(n_sets):
        n = int(rng.integers(1, 5))
        periods = rng.choice([4, 5, 6, 8, 10, 12, 15, 20], n)
        shares = rng.dirichlet(np.ones(n)) * rng.uniform(0.5, 1.1)
        one = []
        for share, period in zip(shares, periods, strict=True):
            cost = max(1, round(float(share * period)))
            deadline = int(rng.integers(min(cost, period), period + 1)) if constrained else int(period)
            one.append(SporadicTask(cost, int(period), max(deadline, 1)))
        found.append(sorted(one, key=lambda task: task.deadline))
    return found


def misses(which: list[SporadicTask], policy: Policy) -> bool:
    """Whether a job misses when all are released together: over one hyperperiod of 120, and whatever was late in it."""
    unit = NS_PER_MS
    taskset = TaskSet(
        tuple(
            Task(
                period_ns=one.period * unit,
                wcet_ns=one.wcet * unit,
                deadline_ns=one.deadline * unit,
                priority_rank=rank,
                policy=policy,
                n_jobs=240 // one.period,
            )
            for rank, one in enumerate(which)
        ),
        admission_control=False,
    )
    found = analyse(taskset, tests=("rta", "qpa", "pdc", "edf_rta"))
    missed = any(
        event.job.missed(taskset) for event in Simulation(taskset).events() if isinstance(event, JobEvent)
    )
    for one in found:
        if one.verdict is not Verdict.UNKNOWN and (policy is Policy.DEADLINE or one.test == "rta"):
            assert missed == (one.verdict is Verdict.UNSCHEDULABLE), (which, one)
    return missed


@pytest.mark.parametrize("constrained", [False, True])
def test_exact_tests_agree_with_the_simulation_and_dominance_holds(constrained):
    for which in random_rows(1, 300, constrained=constrained):
        late = any(one.late for one in responses(which, range(len(which))))
        assert late == misses(which, Policy.FIFO), which
        demand = quick_demand(which)
        assert demand.feasible == processor_demand(which).feasible
        if all(one.wcet <= one.deadline for one in which):
            assert demand.feasible == (not misses(which, Policy.DEADLINE)), which
        if not constrained:
            chain = (
                liu_layland(which),
                hyperbolic(which),
                not late,
                bool(demand.feasible),
                not exceeds(which),
            )
            assert list(chain) == sorted(chain), which


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
