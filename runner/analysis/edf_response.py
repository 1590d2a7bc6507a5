"""Response times under EDF, preemptive, on one processor: Spuri (1996).

A task's worst response lies in a deadline busy period in which all other tasks release together and at their full rate, and the task
itself at an instant at which its deadline is that of some other job. Jobs with equal deadlines count as interference.
"""

from __future__ import annotations

from runner.analysis.demand import busy_period
from runner.analysis.sporadic import Tasks

#: Steps of the iteration for all tasks of a set together.
MAX_STEPS = 200_000


def edf_responses(tasks: Tasks, *, max_steps: int = MAX_STEPS) -> list[int | None]:
    """The worst response of each task without jitter and blocking; exact for sporadic releases. None: no bound, or not found.

    R_i = max over a of max(C_i, L(a) − a), with L = (1 + floor(a/T_i)) C_i + Σ over j ≠ i with D_j ≤ a + D_i of
    min(ceil(L/T_j), 1 + floor((a + D_i − D_j)/T_j)) C_j.
    """
    longest = busy_period(tasks)
    if longest is None:
        return [None] * len(tasks)
    left = max_steps
    found: list[int | None] = []
    for idx in range(len(tasks)):
        worst, left = _response(tasks, idx, longest, left)
        found.append(worst)
    return found


def _response(tasks: Tasks, idx: int, longest: int, left: int) -> tuple[int | None, int]:
    """The worst response of one task, and what is left of the bound of work."""
    task = tasks[idx]
    worst = task.wcet
    releases: set[int] = set()
    for other in tasks:
        n_before = max(0, longest + task.deadline - other.deadline - 1) // other.period + 1
        if len(releases) + n_before > left:
            return None, 0
        first = other.deadline - task.deadline
        releases.update(range(first + max(0, -(first // other.period)) * other.period, longest, other.period))
    for release in sorted(releases):
        if release < 0:
            continue
        window, left = _window(tasks, idx, release, left)
        if window is None:
            return None, 0
        worst = max(worst, window - release)
    return worst, left


def _window(tasks: Tasks, idx: int, release: int, left: int) -> tuple[int | None, int]:
    """When the job that is released at `release` ends, at the latest, after the deadline busy period has begun."""
    task = tasks[idx]
    due = release + task.deadline
    own = (1 + release // task.period) * task.wcet
    others = [
        (other.wcet, other.period, 1 + (due - other.deadline) // other.period)
        for at, other in enumerate(tasks)
        if at != idx and other.deadline <= due
    ]
    # Its own first job may be released later than the others', which is when the period may begin with theirs alone.
    window = sum(cost for cost, _, _ in others) + (task.wcet if release % task.period == 0 else 0)
    window = window or own
    while left > 0:
        left -= 1
        demand = own + sum(min(-(-window // period), most) * cost for cost, period, most in others)
        if demand == window:
            return window, left
        window = demand
    return None, 0
