"""The processor demand criterion for EDF on one processor, and its quick form.

Baruah, Rosier and Howell (1990): schedulable exactly if in no interval the jobs that are released and due in it need more than its
length: h(t) = Σ max(0, floor((t − D_i)/T_i) + 1) C_i ≤ t. QPA: Zhang and Burns (2009). Release jitter shortens the deadline of the
first job only (D_i − J_i); blocking is not counted.
"""

from __future__ import annotations

from fractions import Fraction
from heapq import heapify, heapreplace
from typing import NamedTuple

from runner.analysis.sporadic import Tasks, load, utilization
from runner.analysis.utilization import exceeds

#: Deadlines that are looked at, or steps that are taken, before a test gives up.
MAX_STEPS = 20_000


class Demand(NamedTuple):
    """What came of a test.

    Attributes:
        feasible: None where the bound of work was reached first.
        overload_at: Where demand exceeds time, if an instant is known: by then a synchronous run has missed a deadline.
        peak: The largest h(t)/t among the instants that were looked at; 0 if there were none.
    """

    feasible: bool | None
    overload_at: int | None = None
    peak: float = 0.0


def demand_bound(tasks: Tasks, t: int) -> int:
    """h(t): processor time that jobs released and due within `t` need at most."""
    total = 0
    for cost, period, deadline, jitter, _ in tasks:
        behind = t - deadline + jitter
        if behind >= 0:
            total += (behind // period + 1) * cost
    return total


def busy_period(tasks: Tasks, *, max_steps: int = MAX_STEPS) -> int | None:
    """How long the processor is busy after all tasks release together; None for U > 1, or beyond the bound of work."""
    if exceeds(tasks):
        return None
    window = sum(task.wcet for task in tasks)
    for _ in range(max_steps):
        demand = sum(-(-(window + task.jitter) // task.period) * task.wcet for task in tasks)
        if demand == window:
            return window
        window = demand
    return None


def demand_limit(tasks: Tasks) -> Fraction | None:
    """L*: beyond it demand cannot exceed time; None for U ≥ 1. Σ max(0, T_i − D_i + J_i) U_i / (1 − U)."""
    total = utilization(tasks)
    if total >= 1:
        return None
    gaps = sum(
        (Fraction(max(0, one.period - one.deadline + one.jitter) * one.wcet, one.period) for one in tasks),
        Fraction(),
    )
    return gaps / (1 - total)


def overload_instant(tasks: Tasks) -> int | None:
    """For U > 1: an instant by which demand exceeds time, max(max D, Σ D_i U_i / (U − 1)), rounded up, and one more; else None."""
    numerator, denominator = load(tasks)
    if numerator <= denominator:
        return None
    lag = sum((Fraction(one.deadline * one.wcet, one.period) for one in tasks), Fraction())
    instant = lag * denominator / (numerator - denominator)
    return max(int(instant) + 1, *(task.deadline for task in tasks))


def _instants_end(tasks: Tasks, max_steps: int) -> int | None:
    """No instant at or beyond it needs to be looked at; None: not known within the bound of work."""
    limit = demand_limit(tasks)
    busy = busy_period(tasks, max_steps=max_steps)
    ends = [int(limit) + 1] if limit is not None else []
    ends += [busy + 1] if busy is not None else []
    return min(ends, default=None)


def processor_demand(tasks: Tasks, *, max_steps: int = MAX_STEPS) -> Demand:
    """Compare demand with time at every deadline up to min(L*, busy period), in the order of time."""
    if exceeds(tasks):
        return Demand(False, overload_instant(tasks))
    end = _instants_end(tasks, max_steps)
    if end is None:
        return Demand(None)
    waiting = [(task.deadline - task.jitter, idx) for idx, task in enumerate(tasks)]
    heapify(waiting)
    demand, peak, steps = 0, 0.0, 0
    while waiting[0][0] < end:
        now = waiting[0][0]
        if now <= 0:
            return Demand(False)
        while waiting[0][0] == now:
            _, idx = waiting[0]
            demand += tasks[idx].wcet
            heapreplace(waiting, (now + tasks[idx].period, idx))
        peak = max(peak, demand / now)
        if demand > now:
            return Demand(False, now, peak)
        steps += 1
        if steps >= max_steps:
            return Demand(None, None, peak)
    return Demand(True, None, peak)


def quick_demand(tasks: Tasks, *, max_steps: int = MAX_STEPS) -> Demand:
    """The same verdict, from the end backwards: t ← h(t), or the last deadline before t where h(t) = t."""
    if exceeds(tasks):
        return Demand(False, overload_instant(tasks))
    if all(task.deadline - task.jitter >= task.period for task in tasks):
        return Demand(True)  # where no deadline is shorter than its period, U ≤ 1 is all it takes
    end = _instants_end(tasks, max_steps)
    if end is None:
        return Demand(None)
    first = min(task.deadline - task.jitter for task in tasks)
    if first <= 0:
        return Demand(False)
    instant = _deadline_before(tasks, end)
    peak = 0.0
    for _ in range(max_steps):
        if instant is None:
            return Demand(True, None, peak)
        demand = demand_bound(tasks, instant)
        peak = max(peak, demand / instant)
        if demand > instant:
            return Demand(False, instant, peak)
        if demand <= first:
            return Demand(True, None, peak)
        instant = demand if demand < instant else _deadline_before(tasks, instant)
    return Demand(None, None, peak)


def _deadline_before(tasks: Tasks, t: int) -> int | None:
    """The last instant before `t` at which a job of a synchronous release is due."""
    last = None
    for _, period, deadline, jitter, _ in tasks:
        first = deadline - jitter
        if first < t:
            due = first + (t - 1 - first) // period * period
            last = due if last is None or due > last else last
    return last
