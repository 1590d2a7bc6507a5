"""The processor demand criterion for EDF over many sets at once: the verdicts of `demand.quick_demand`, set by set.

QPA (Zhang and Burns 2009) in whole numbers in float64, exact for the reason that `arrays` gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runner.analysis.arrays import BLOCK_SETS, MAX_TIME, NONE, Bools, Floats, TaskArrays, exceeding
from runner.analysis.demand import quick_demand

# Steps that are taken together; what takes more is few, and goes on alone.
_STEPS = 1000
# What rounding could change: bounds are widened by it, sets whose U is that near to 1 have no L*.
_GUARD = 1e-9


def feasible_under_edf(sets: TaskArrays) -> NDArray[np.int8]:
    """Whether EDF meets all deadlines, per set: 1, 0, or `NONE` where `quick_demand` reaches its bound of work."""
    found = np.ones(len(sets.wcet), np.int8)
    found[exceeding(sets)] = 0
    for first in range(0, len(found), BLOCK_SETS):
        block = slice(first, first + BLOCK_SETS)
        columns = (sets.wcet[block], sets.period[block], sets.deadline[block])
        wcet, period, deadline = (np.ascontiguousarray(one.T, np.float64) for one in columns)
        density = (wcet / np.minimum(period, deadline)).sum(axis=0)
        # U ≤ 1 is all it takes where no deadline is shorter than its period, density ≤ 1 is enough anywhere.
        easy = (deadline >= period).all(axis=0) | (density <= 1.0 - _GUARD)
        at = np.flatnonzero((found[block] == 1) & ~easy)
        verdicts = _quick(*(one[:, at] for one in (wcet, period, deadline)))
        for idx in np.flatnonzero(verdicts == NONE):
            alone = quick_demand(sets.row(first + int(at[idx]))).feasible
            verdicts[idx] = NONE if alone is None else alone
        found[first + at] = verdicts
    return found


def _quick(wcet: Floats, period: Floats, deadline: Floats) -> NDArray[np.int8]:
    """The verdicts of a block of sets with U ≤ 1, tasks × sets; `NONE` where it takes too many steps."""
    found = np.full(wcet.shape[1], NONE, np.int8)
    end = np.minimum(_busy(wcet, period), _demand_limit(wcet, period, deadline))
    active = np.flatnonzero(end < MAX_TIME)
    wcet, period, deadline = (one[:, active] for one in (wcet, period, deadline))
    first = deadline.min(axis=0)
    instant = _due_before(end[active], period, deadline)
    waits = np.ones(active.size, np.bool_)
    for _ in range(_STEPS):
        demand = _demand_bound(instant, wcet, period, deadline)
        # Where no deadline is left `instant` is 0, and so is demand.
        late, over = demand > instant, demand <= first
        found[active[waits & late]] = 0
        found[active[waits & over & ~late]] = 1
        waits &= ~(late | over)
        left = np.flatnonzero(waits)
        if not left.size:
            break
        # What is decided goes on in further steps, unheard: to take it out costs as much as one or two.
        if left.size * 2 <= active.size:
            active, first, waits = active[left], first[left], waits[left]
            instant, demand = instant[left], demand[left]
            wcet, period, deadline = (one[:, left] for one in (wcet, period, deadline))
        full = np.flatnonzero((demand == instant) & waits)
        demand[full] = _due_before(instant[full], period[:, full], deadline[:, full])
        instant = demand
    return found


def _busy(wcet: Floats, period: Floats) -> Floats:
    """One instant beyond the first busy period of a synchronous release; infinite where it takes too many steps."""
    window = wcet.sum(axis=0)
    found = np.full(window.shape, np.inf)
    active = np.arange(window.size)
    for _ in range(_STEPS):
        need = window / period
        np.ceil(need, out=need)
        need *= wcet
        demand = need.sum(axis=0)
        same: Bools = demand == window
        left = np.flatnonzero(~same & (demand < MAX_TIME))
        if left.size * 2 > active.size:
            window = demand
            continue
        found[active[same]] = window[same] + 1.0
        if not left.size:
            break
        active, window = active[left], demand[left]
        wcet, period = wcet[:, left], period[:, left]
    else:
        found[active[same]] = window[same] + 1.0
    return found


def _demand_limit(wcet: Floats, period: Floats, deadline: Floats) -> Floats:
    """An instant beyond L* = Σ max(0, T_i − D_i) U_i / (1 − U); infinite for U near 1."""
    free = 1.0 - (wcet / period).sum(axis=0)
    gaps = (np.maximum(period - deadline, 0.0) * wcet / period).sum(axis=0)
    clear = free > 1e-4  # for the quotient to be right to 10^-9
    limit = np.floor(gaps / np.where(clear, free, 1.0) * (1.0 + _GUARD)) + 2.0
    return np.where(clear, limit, np.inf)


def _demand_bound(instant: Floats, wcet: Floats, period: Floats, deadline: Floats) -> Floats:
    """h(t) = Σ max(0, floor((t − D_i)/T_i) + 1) C_i."""
    jobs = instant - deadline
    jobs /= period
    np.floor(jobs, out=jobs)
    jobs += 1.0
    np.maximum(jobs, 0.0, out=jobs)
    jobs *= wcet
    total: Floats = jobs.sum(axis=0)
    return total


def _due_before(instant: Floats, period: Floats, deadline: Floats) -> Floats:
    """The last instant before `instant` at which a job of a synchronous release is due; 0 where there is none."""
    due = deadline + np.floor((instant - 1.0 - deadline) / period) * period
    last: Floats = np.where(deadline < instant, due, 0.0).max(axis=0)
    return last
