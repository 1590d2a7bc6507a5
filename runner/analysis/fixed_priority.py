"""Response times under fixed priorities, preemptive, on one processor.

Joseph and Pandya (1986) and Audsley et al. (1993) for the first job of a busy window; Lehoczky (1990) and Tindell et al. (1994) for the
later ones, which matter where a response may exceed the period. Equal priorities count as interference, both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from runner.analysis.sporadic import SporadicTask, Tasks
from runner.analysis.utilization import exceeds

#: Steps of the iteration that one task may take. The hardest of 10^5 random sets takes a few hundred.
MAX_STEPS = 20_000


class Response(NamedTuple):
    """What is known of a task's worst response.

    Attributes:
        wcrt: From the arrival on; None where there is no bound, or it was not found.
        late: Whether some job in the busy window misses its deadline; None where that is not known.
        by: When that job's deadline is, after the critical instant.
    """

    wcrt: int | None
    late: bool | None
    by: int | None = None


def responses(tasks: Tasks, ranks: Sequence[int], *, max_steps: int = MAX_STEPS) -> list[Response]:
    """The worst response of each task; exact for synchronous or sporadic releases and different ranks, else a safe bound.

    Args:
        ranks: 0 is the most urgent; may repeat.
        max_steps: Bound of work per task.
    """
    found: list[Response | None] = [None] * len(tasks)
    order = sorted(range(len(tasks)), key=ranks.__getitem__)
    if len(set(ranks)) < len(tasks):
        for idx, task in enumerate(tasks):
            others = [other for at, other in enumerate(tasks) if ranks[at] <= ranks[idx] and at != idx]
            found[idx] = response(task, others, max_steps=max_steps)
    else:
        others = []
        for idx in order:
            found[idx] = response(tasks[idx], others, max_steps=max_steps)
            others.append(tasks[idx])
    return [one for one in found if one is not None]


def response(task: SporadicTask, others: Tasks, *, max_steps: int = MAX_STEPS) -> Response:
    """The worst response of a task that all of `others` may preempt.

    w_q = B + (q+1)C + Σ ceil((w_q + J_j)/T_j) C_j;  R = max over q of w_q + J − qT, for all q of the busy window.
    """
    cost, period, deadline, jitter, blocking = task
    endless: bool | None = None
    window = blocking + cost + sum(other.wcet for other in others)
    worst, late_by = 0, None
    q, left = 0, max_steps
    while True:
        own = blocking + (q + 1) * cost
        while True:
            demand = own
            for c, t, _, j, _ in others:
                demand += -(-(window + j) // t) * c
            left -= 1
            if demand == window or left <= 0:
                break
            window = demand
            if window - q * period + jitter > deadline and late_by is None:
                late_by = q * period + deadline
            if late_by is not None and endless is None:
                endless = exceeds([*others, task])
            if endless:
                return Response(None, True, late_by)
        if left <= 0:
            return Response(None, True if late_by is not None else None, late_by)
        answer = window + jitter - q * period
        worst = max(worst, answer)
        if answer > deadline and late_by is None:
            late_by = q * period + deadline
        if window + jitter <= (q + 1) * period:
            return Response(worst, late_by is not None, late_by)
        q += 1
        window += cost


def first_job_late(
    task: SporadicTask, ahead: Tasks, once: Tasks, *, max_steps: int = MAX_STEPS
) -> bool | None:
    """Whether a task's first job is late where all tasks release together: what surely happens, not a bound.

    Args:
        ahead: Tasks of higher priority.
        once: Tasks of equal priority whose first jobs go before it; what they release later goes behind it.

    Returns:
        None where the bound of work was reached.
    """
    window = own = task.wcet + sum(other.wcet for other in once)
    for _ in range(max_steps):
        if window > task.deadline:
            return True
        demand = own + sum(-(-window // other.period) * other.wcet for other in ahead)
        if demand == window:
            return False
        window = demand
    return None
