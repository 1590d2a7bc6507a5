"""The processor demand criterion for EDF over many sets at once: the verdicts of `demand.quick_demand`, set by set.

QPA (Zhang and Burns 2009), in 64-bit integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runner.analysis.arrays import FREE, GUARD, MAX_TIME, NONE, Ints, TaskArrays, exceeding
from runner.analysis.demand import MAX_STEPS, quick_demand
from runner.compiled import compiled


def feasible_under_edf(sets: TaskArrays) -> NDArray[np.int8]:
    """Whether EDF meets all deadlines, per set: 1, 0, or `NONE` where `quick_demand` reaches its bound of work."""
    found = np.full(len(sets.wcet), NONE, np.int8)
    _quick(sets.wcet, sets.period, sets.deadline, found)
    found[exceeding(sets)] = 0
    for idx in np.flatnonzero(found == NONE):
        alone = quick_demand(sets.row(int(idx))).feasible
        found[idx] = NONE if alone is None else alone
    return found


@compiled
def _quick(wcet: Ints, period: Ints, deadline: Ints, found: NDArray[np.int8]) -> None:
    """The verdicts of sets with U ≤ 1; those that would take too long, and whatever exceeds 1, stay as they are."""
    for row in range(len(wcet)):
        costs, periods, dues = wcet[row], period[row], deadline[row]
        load, density, first, implicit = 0.0, 0.0, dues[0], True
        for idx in range(len(costs)):
            load += costs[idx] / periods[idx]
            density += costs[idx] / min(periods[idx], dues[idx])
            first = min(first, dues[idx])
            implicit = implicit and dues[idx] >= periods[idx]
        if load > 1.0 + GUARD:
            continue
        # U ≤ 1 is all it takes where no deadline is shorter than its period, density ≤ 1 is enough anywhere.
        if implicit or density <= 1.0 - GUARD:
            found[row] = 1
            continue
        instant = _due_before(_end(costs, periods, dues, 1.0 - load), periods, dues)
        for _ in range(MAX_STEPS if instant < MAX_TIME else 0):
            # Where no deadline is left `instant` is 0, and so is demand.
            demand = _demand(instant, costs, periods, dues)
            if demand > instant:
                found[row] = 0
                break
            if demand <= first:
                found[row] = 1
                break
            instant = demand if demand < instant else _due_before(instant, periods, dues)


@compiled
def _end(wcet: Ints, period: Ints, deadline: Ints, free: float) -> int:
    """No instant from here on needs to be looked at: beyond the busy period, or L* = Σ max(0, T_i − D_i) U_i / (1 − U)."""
    end, window, gaps = MAX_TIME, 0, 0.0
    for idx in range(len(wcet)):
        window += wcet[idx]
        gaps += max(period[idx] - deadline[idx], 0) / period[idx] * wcet[idx]
    if free > FREE:
        end = min(end, int(gaps / free * (1.0 + GUARD)) + 2)
    for _ in range(MAX_STEPS):
        demand = 0
        for idx in range(len(wcet)):
            demand += ((window - 1) // period[idx] + 1) * wcet[idx]
        if demand == window or window >= end:
            break
        window = demand
    else:
        return end
    return min(end, window + 1)


@compiled
def _demand(instant: int, wcet: Ints, period: Ints, deadline: Ints) -> int:
    """h(t) = Σ max(0, floor((t − D_i)/T_i) + 1) C_i."""
    total = 0
    for idx in range(len(wcet)):
        if deadline[idx] <= instant:
            total += ((instant - deadline[idx]) // period[idx] + 1) * wcet[idx]
    return total


@compiled
def _due_before(instant: int, period: Ints, deadline: Ints) -> int:
    """The last instant before `instant` at which a job of a synchronous release is due; 0 where there is none."""
    last = 0
    for idx in range(len(period)):
        if deadline[idx] < instant:
            last = max(last, deadline[idx] + (instant - 1 - deadline[idx]) // period[idx] * period[idx])
    return last
