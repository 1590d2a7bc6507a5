"""The tests of one processor over many sets at once: arrays of sets × tasks, the same verdicts as one by one.

Whole numbers in float64, which has them exactly up to 2^53: ceil(w/T) of two such numbers is exact there, because a quotient that is not
whole lies at least 1/T from the next whole number, more than rounding can move it. Sets whose numbers could get larger are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.analysis.fixed_priority import MAX_STEPS, response
from runner.analysis.sporadic import SporadicTask
from runner.analysis.utilization import exceeds, hyperbolic, liu_layland
from runner.errors import UsageError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Sets that are worked on together: what belongs to them stays in the processor's cache.
BLOCK_SETS = 8192
#: No window may come near 2^53.
MAX_TIME = 1 << 50
_GUARD = 1e-9
# Where more than this part of the sets is in question, to ask all of them is cheaper than to pick these out.
_DENSE = 0.15
# What is left of the processor must be more, for a quotient by it to be right to 10^-9: the sum of 64 shares is to 10^-14.
_FREE = 1e-4
#: A response without a bound, or one that lies beyond the deadline where only the verdict was asked for.
NONE = -1


@dataclass(frozen=True)
class TaskArrays:
    """Many sets of equally many tasks, most urgent first.

    Attributes:
        wcet, period, deadline: int64, sets × tasks, all more than 0.

    Raises:
        UsageError: when the shapes differ, a number is not positive, or the times of a set sum up to 2^50 or more.
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
        for array in (self.wcet, self.period, self.deadline):
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
    return _decided(sets, total > 1.0, np.abs(total - 1.0) <= _GUARD, exceeds)


def liu_layland_of(sets: TaskArrays) -> Bools:
    """Whether the test of Liu and Layland passes, per set; for rate-monotonic order and D ≥ T."""
    n = sets.wcet.shape[1]
    power = (1.0 + (sets.wcet / sets.period).sum(axis=1) / n) ** n
    return _decided(sets, power <= 2.0, np.abs(power - 2.0) <= _GUARD * power, liu_layland)


def hyperbolic_of(sets: TaskArrays) -> Bools:
    """Whether the hyperbolic bound holds, per set; for rate-monotonic order and D ≥ T."""
    product = (sets.wcet / sets.period + 1.0).prod(axis=1)
    return _decided(sets, product <= 2.0, np.abs(product - 2.0) <= _GUARD * product, hyperbolic)


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
    found = np.full(sets.wcet.shape, NONE, np.int64)
    for first in range(0, len(found), BLOCK_SETS):
        block = slice(first, first + BLOCK_SETS)
        columns = (sets.wcet[block], sets.period[block], sets.deadline[block])
        wcet, period, deadline = (np.ascontiguousarray(one.T, np.float64) for one in columns)
        found[block] = _first_responses(wcet, period, np.minimum(deadline, period)).T
    if not only_in_time:
        # Few: what does not end within deadline and period is looked at one by one, over the whole busy window.
        for set_idx, task_idx in np.argwhere(found == NONE):
            tasks = sets.row(int(set_idx))
            wcrt = response(tasks[task_idx], tasks[:task_idx], max_steps=MAX_STEPS).wcrt
            found[set_idx, task_idx] = NONE if wcrt is None else wcrt
    return found


def schedulable_by_rank(sets: TaskArrays) -> Bools:
    """The verdict of exact response-time analysis, per set, for D ≤ T.

    Most tasks need no iteration: R ≤ (C + Σ C_j(1 − U_j))/(1 − Σ U_j) (Bini and Baruah 2007) proves them in time, R ≥ C/(1 − Σ U_j)
    proves some late; of the others, those whose window of length D has room for all that it can be asked for are in time. What is
    left is computed, over all ranks at once.

    Raises:
        UsageError: when a deadline is longer than its period.
    """
    if (sets.deadline > sets.period).any():
        raise UsageError(
            "deadlines beyond the period need the analysis of whole busy windows: see response_times"
        )
    verdicts = np.ones(len(sets.wcet), np.bool_)
    for first in range(0, len(verdicts), BLOCK_SETS):
        block = slice(first, first + BLOCK_SETS)
        columns = (sets.wcet[block], sets.period[block], sets.deadline[block])
        verdicts[block] = _all_in_time(*(np.ascontiguousarray(one.T, np.float64) for one in columns))
    return verdicts


def _all_in_time(wcet: Floats, period: Floats, deadline: Floats) -> Bools:
    """The verdicts of a block, tasks × sets."""
    alive, open_, free = _by_bounds(wcet, period, deadline)
    for idx, limit in enumerate(deadline):
        if np.count_nonzero(open_[idx]) > _DENSE * limit.size:
            open_[idx] &= _demand(limit, wcet[idx], wcet[:idx], period[:idx]) > limit
    ranks, at = np.nonzero(open_)
    # One column per open task: what is more urgent than it, the rest of its set at no cost.
    own, limit, others, times = wcet[ranks, at], deadline[ranks, at], wcet[:, at], period[:, at]
    others[np.arange(len(wcet))[:, np.newaxis] >= ranks] = 0.0
    left = np.flatnonzero(_demand(limit, own, others, times) > limit)
    own, limit, others, times = (one.take(left, axis=-1) for one in (own, limit, others, times))
    fluid = _fluid(own, free[ranks[left], at[left]])
    start = np.maximum(others.sum(axis=0) + own, np.minimum(fluid, limit + 1.0))
    _, in_time = _least_window(own, others, times, start, limit)
    alive[at[left[~in_time]]] = False
    return alive


def _by_bounds(wcet: Floats, period: Floats, deadline: Floats) -> tuple[Bools, Bools, Floats]:
    """The sets that no bound proves late; in them, the tasks that none proves in time; and 1 − Σ U_j for each task.

    Row by row, in place: it is the one part that every task goes through.
    """
    n_sets = wcet.shape[1]
    late, free, open_ = np.zeros(n_sets, np.bool_), np.ones_like(wcet), np.empty(wcet.shape, np.bool_)
    carried, share, room, needed = (np.zeros(n_sets) for _ in range(4))
    for idx, cost in enumerate(wcet):
        if idx:
            np.divide(wcet[idx - 1], period[idx - 1], out=share)
            np.subtract(free[idx - 1], share, out=free[idx])
            np.subtract(1.0, share, out=share)
            share *= wcet[idx - 1]
            carried += share
        clear = free[idx] > _FREE
        np.multiply(deadline[idx], free[idx], out=room)
        np.add(cost, carried, out=needed)
        needed *= 1.0 + _GUARD
        np.logical_not(clear & (needed <= room), out=open_[idx])
        np.multiply(cost, 1.0 - _GUARD, out=needed)
        late |= clear & (needed > room)
    alive = ~late
    open_ &= alive
    return alive, open_, free


def _fluid(own: Floats, free: Floats) -> Floats:
    """A lower bound of the window: w ≥ C + w·ΣU_j, rounded down; where no w is large enough, just some number."""
    return np.floor(own / np.maximum(free, _FREE) * (1.0 - _GUARD))


def _first_responses(wcet: Floats, period: Floats, limit: Floats) -> Ints:
    """Responses of first jobs, tasks × sets, where they end within the limit; else `NONE`."""
    found = np.full(wcet.shape, NONE, np.int64)
    window, free = np.zeros(wcet.shape[1]), np.ones(wcet.shape[1])
    for idx, own in enumerate(wcet):
        # Both are lower bounds, and a task waits at least as long as the one before it and itself together.
        start = np.maximum(window + own, np.minimum(_fluid(own, free), limit[idx] + 1.0))
        window, in_time = _least_window(own, wcet[:idx], period[:idx], start, limit[idx])
        found[idx, in_time] = window[in_time]
        free -= own / period[idx]
    return found


def _demand(window: Floats, own: Floats, others: Floats, times: Floats) -> Floats:
    """C + Σ ceil(w/T_j) C_j."""
    need = window / times
    np.ceil(need, out=need)
    need *= others
    demand: Floats = need.sum(axis=0)
    demand += own
    return demand


def _least_window(
    own: Floats, others: Floats, times: Floats, start: Floats, limit: Floats
) -> tuple[Floats, Bools]:
    """The least w = C + Σ ceil(w/T_j) C_j from `start` on, and where it is within the limit; beyond it, some w at most as large."""
    window, in_time = start.copy(), start <= limit
    active = np.flatnonzero(in_time)
    at = start
    if active.size < start.size:
        own, others, times, at, limit = (one.take(active, axis=-1) for one in (own, others, times, at, limit))
    while active.size:
        demand = _demand(at, own, others, times)
        late = demand > limit
        goes_on = (demand != at) & ~late
        # What has ended stays as it is in further steps; to take it out costs as much as one or two.
        if np.count_nonzero(goes_on) * 2 > active.size:
            at = np.where(late, at, demand)
            continue
        window[active] = np.where(late, at, demand)
        in_time[active[late]] = False
        left = np.flatnonzero(goes_on)
        active = active[left]
        own, others, times, at, limit = (
            one.take(left, axis=-1) for one in (own, others, times, demand, limit)
        )
    return window, in_time
