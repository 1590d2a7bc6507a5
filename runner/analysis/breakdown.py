"""By how much every C may grow before a set breaks: its critical scaling factor (Lehoczky, Sha and Ding 1989)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from runner.analysis.sporadic import Tasks, constrained, implicit
from runner.analysis.utilization import exceeds

#: Instants that one task is looked at; the hardest of periods of 1 … 1000 ms have some thousands.
MAX_POINTS = 200_000
# Neither an instant nor what is asked for until then may come near 2^63.
_MAX_TIME = 1 << 56


class Scaling(NamedTuple):
    """What is known of a set's limit.

    Attributes:
        factor: The largest one by which each C can be multiplied, times being real; U times that is the breakdown utilization.
        holds: Whether it is 1 or more, decided in whole numbers: the set is schedulable.
    """

    factor: float
    holds: bool


def scaling_by_rank(tasks: Tasks, ranks: Sequence[int]) -> Scaling | None:
    """Under fixed priorities: min over tasks of max over t of t / Σ ceil(t/T_j)·C_j.

    The t that decide are the deadline and, up to it, every multiple of the periods of tasks that are no less urgent.

    Args:
        ranks: 0 is the most urgent.

    Returns:
        None where that is not the answer, or takes too long: ranks that repeat, jitter, blocking, D > T, too many such t.
    """
    plain = not any(task.jitter or task.blocking for task in tasks)
    if len(set(ranks)) < len(ranks) or not plain or not constrained(tasks):
        return None
    factor, holds = float("inf"), True
    wcet, period = (np.empty(len(tasks), np.int64) for _ in range(2))
    for place, idx in enumerate(sorted(range(len(tasks)), key=ranks.__getitem__)):
        cost, t, deadline, _, _ = tasks[idx]
        if max(cost, t, deadline) >= _MAX_TIME // len(tasks):
            return None
        wcet[place], period[place] = cost, t
        ahead, costs = period[: place + 1], wcet[: place + 1]
        n_points = 1 + int((deadline // ahead).sum())
        if n_points > MAX_POINTS or deadline * float((costs / ahead).sum()) >= _MAX_TIME:
            return None
        multiples = [np.arange(one, deadline + 1, one) for one in ahead]
        points = np.unique(np.concatenate([*multiples, [deadline]]))
        demand = sum(-(-points // one) * c for one, c in zip(ahead, costs, strict=True))
        factor = min(factor, float((points / demand).max()))
        holds = holds and bool((demand <= points).any())
    return Scaling(factor, holds)


def scaling_under_edf(tasks: Tasks) -> Scaling | None:
    """Under EDF: 1/U (Liu and Layland 1973); None where a deadline is shorter than its period, or with jitter or blocking."""
    if not implicit(tasks) or any(task.jitter or task.blocking for task in tasks):
        return None
    return Scaling(1.0 / sum(task.wcet / task.period for task in tasks), not exceeds(tasks))
