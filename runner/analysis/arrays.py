"""The tests of one processor over many sets at once: arrays of sets × tasks, the same verdicts as one by one.

No verdict hangs on a rounded number: what decides are 64-bit integers, which no sum here comes near the end of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.analysis.fixed_priority import MAX_STEPS, response
from runner.analysis.sporadic import SporadicTask
from runner.analysis.utilization import exceeds, hyperbolic, liu_layland
from runner.compiled import compiled
from runner.errors import UsageError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

#: No time may come near 2^63, not even twice or several.
MAX_TIME = 1 << 50
#: What rounding could change: sums and products of 64 shares are right to 10^-14.
GUARD = 1e-9
#: What is left of the processor must be more, for a quotient by it to be right to `GUARD`.
FREE = 1e-4
#: A response without a bound, or one that lies beyond the deadline where only the verdict was asked for.
NONE = -1


@dataclass(frozen=True)
class TaskArrays:
    """Many sets of equally many tasks, most urgent first.

    Attributes:
        wcet, period, deadline: int64, sets × tasks, all more than 0.

    Raises:
        UsageError: when the shapes differ, a number is not whole or not positive, or the times of a set sum up to 2^50 or more.
    """

    wcet: Ints
    period: Ints
    deadline: Ints

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.wcet, self.period, self.deadline)}
        if len(shapes) != 1 or self.wcet.ndim != 2 or not self.wcet.shape[1]:
            raise UsageError(
                f"arrays of task sets have shapes {sorted(shapes)}; they must be one, sets × tasks"
            )
        for name in ("wcet", "period", "deadline"):
            array = getattr(self, name)
            if not np.issubdtype(array.dtype, np.integer):
                raise UsageError(
                    f"times of task sets are whole numbers of some unit, and {name} has {array.dtype}"
                )
            # As the compiled loops want them.
            object.__setattr__(self, name, np.ascontiguousarray(array, np.int64))
            if array.size and (array.min() <= 0 or int(array.max()) * 2 * array.shape[1] >= MAX_TIME):
                raise UsageError(
                    "times of task sets must be more than 0, and their sum far below 2^50",
                    next_step="use a coarser unit, or analyse these sets one by one",
                )

    def row(self, idx: int) -> list[SporadicTask]:
        """One set."""
        columns = (self.wcet[idx], self.period[idx], self.deadline[idx])
        return [SporadicTask(int(c), int(t), int(d)) for c, t, d in zip(*columns, strict=True)]


def exceeding(sets: TaskArrays) -> Bools:
    """U > 1, per set."""
    total = (sets.wcet / sets.period).sum(axis=1)
    return _decided(sets, total > 1.0, np.abs(total - 1.0) <= GUARD, exceeds)


def liu_layland_of(sets: TaskArrays) -> Bools:
    """Whether the test of Liu and Layland passes, per set; for rate-monotonic order and D ≥ T."""
    n = sets.wcet.shape[1]
    power = (1.0 + (sets.wcet / sets.period).sum(axis=1) / n) ** n
    return _decided(sets, power <= 2.0, np.abs(power - 2.0) <= GUARD * power, liu_layland)


def hyperbolic_of(sets: TaskArrays) -> Bools:
    """Whether the hyperbolic bound holds, per set; for rate-monotonic order and D ≥ T."""
    product = (sets.wcet / sets.period + 1.0).prod(axis=1)
    return _decided(sets, product <= 2.0, np.abs(product - 2.0) <= GUARD * product, hyperbolic)


def _decided(
    sets: TaskArrays, rounded: Bools, near: Bools, exactly: Callable[[list[SporadicTask]], bool]
) -> Bools:
    """The rounded verdicts, those near the bound replaced by exact ones."""
    for idx in np.flatnonzero(near):
        rounded[idx] = exactly(sets.row(int(idx)))
    return rounded


def response_times(sets: TaskArrays, *, only_in_time: bool = False) -> Ints:
    """The worst response of every task under the arrays' order, as `fixed_priority.responses` has it; `NONE` for what has no bound.

    Args:
        only_in_time: Responses beyond the deadline or the period need not be known: they are `NONE`.

    Returns:
        int64, sets × tasks.
    """
    found = np.empty(sets.wcet.shape, np.int64)
    _first_responses(sets.wcet, sets.period, sets.deadline, found)
    if not only_in_time:
        # Few: what does not end within deadline and period is looked at one by one, over the whole busy window.
        for set_idx, task_idx in np.argwhere(found == NONE):
            tasks = sets.row(int(set_idx))
            wcrt = response(tasks[task_idx], tasks[:task_idx], max_steps=MAX_STEPS).wcrt
            found[set_idx, task_idx] = NONE if wcrt is None else wcrt
    return found


def schedulable_by_rank(sets: TaskArrays) -> Bools:
    """The verdict of exact response-time analysis, per set, for D ≤ T.

    Most tasks need no iteration: R ≤ (C + Σ C_j(1 − U_j))/(1 − Σ U_j) (Bini and Baruah 2007) proves them in time.

    Raises:
        UsageError: when a deadline is longer than its period.
    """
    if (sets.deadline > sets.period).any():
        raise UsageError(
            "deadlines beyond the period need the analysis of whole busy windows: see response_times"
        )
    verdicts = np.empty(len(sets.wcet), np.bool_)
    _all_in_time(sets.wcet, sets.period, sets.deadline, verdicts)
    return verdicts


@compiled
def _first_responses(wcet: Ints, period: Ints, deadline: Ints, found: Ints) -> None:
    """Responses of first jobs where they end within deadline and period, else `NONE`."""
    for row in range(len(wcet)):
        costs, periods = wcet[row], period[row]
        least, free = 0, 1.0
        for idx in range(len(costs)):
            limit = min(deadline[row, idx], periods[idx])
            least += costs[idx]  # a task waits at least as long as the one before it and itself together
            window, found[row, idx] = _start(least, costs[idx], free, limit), NONE
            while window <= limit:
                demand = _demand(window, idx, costs, periods)
                if demand == window:
                    found[row, idx] = window
                    break
                window = demand
            least = max(least, min(window, limit))
            free -= costs[idx] / periods[idx]


@compiled
def _all_in_time(wcet: Ints, period: Ints, deadline: Ints, verdicts: Bools) -> None:
    """Whether every task's first job is."""
    for row in range(len(wcet)):
        costs, periods = wcet[row], period[row]
        least, free, carried = 0, 1.0, 0.0
        verdicts[row] = True
        for idx in range(len(costs)):
            limit = deadline[row, idx]
            least += costs[idx]
            if free <= FREE or (costs[idx] + carried) * (1.0 + GUARD) > limit * free:
                window = _start(least, costs[idx], free, limit)
                while window <= limit:
                    demand = _demand(window, idx, costs, periods)
                    if demand == window:
                        break
                    window = demand
                if window > limit:
                    verdicts[row] = False
                    break
                least = window
            share = costs[idx] / periods[idx]
            free -= share
            carried += costs[idx] * (1.0 - share)


@compiled
def _start(least: int, cost: int, free: float, limit: int) -> int:
    """Not beyond the window of a task to which its more urgent ones leave that part of the processor: w ≥ C + w·ΣU_j.

    Where they ask for more than there is, no window ends: it is beyond the limit, and so no sum below overflows.
    """
    if free < -GUARD:
        return limit + 1
    return max(least, int(cost / free * (1.0 - GUARD))) if free > FREE else least


@compiled
def _demand(window: int, idx: int, wcet: Ints, period: Ints) -> int:
    """C + Σ ceil(w/T_j) C_j over all tasks before it."""
    demand: int = wcet[idx]
    for other in range(idx):
        demand += ((window - 1) // period[other] + 1) * wcet[other]
    return demand
