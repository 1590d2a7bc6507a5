"""Who is more urgent: how the ranks of a set's tasks are assigned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from runner.analysis.fixed_priority import response
from runner.analysis.sporadic import SporadicTask
from runner.errors import UsageError
from runner.model import Task, rank_by

#: Whether a task meets its deadlines when exactly these others are more urgent, in whatever order.
Feasible = Callable[[Task, Sequence[Task]], bool]


class Priorities(StrEnum):
    """Where the ranks of a set come from."""

    #: The shorter the period, the more urgent.
    RM = "rm"
    #: The shorter the relative deadline, the more urgent.
    DM = "dm"
    #: Audsley's: an assignment that meets all deadlines if there is one, otherwise deadline-monotonic.
    OPA = "opa"
    #: As written, `priority_rank` of each task; of a random set, in the order of its tasks.
    EXPLICIT = "explicit"


def ranked(
    tasks: Sequence[Task], priorities: Priorities, feasible: Feasible | None = None
) -> tuple[Task, ...]:
    """The tasks with their ranks, in the same order.

    Args:
        feasible: For `OPA`; exact response-time analysis of one processor unless given.

    Raises:
        UsageError: a task lacks the attribute that the order goes by.
    """
    match priorities:
        case Priorities.RM:
            return rank_by(tasks, "period_ns")
        case Priorities.DM:
            return rank_by(tasks, "deadline_ns")
        case Priorities.OPA:
            return audsley(tasks, feasible or meets_deadline) or rank_by(tasks, "deadline_ns")
        case Priorities.EXPLICIT:
            return tuple(tasks)


def audsley(tasks: Sequence[Task], feasible: Feasible) -> tuple[Task, ...] | None:
    """Ranks with which every task is feasible; None where there are none (Audsley 1991: optimal for tests like this).

    The lowest rank goes to the last task, in the order of deadlines, that is feasible there; and so on upwards.
    """
    by_deadline = rank_by(tasks, "deadline_ns")
    left = sorted(range(len(tasks)), key=lambda idx: (by_deadline[idx].priority_rank, idx))
    ranks: dict[int, int] = {}
    while left:
        lowest = next(
            (
                idx
                for idx in reversed(left)
                if feasible(tasks[idx], [tasks[other] for other in left if other != idx])
            ),
            None,
        )
        if lowest is None:
            return None
        left.remove(lowest)
        ranks[lowest] = len(left)
    return tuple(replace(task, priority_rank=ranks[idx]) for idx, task in enumerate(tasks))


def meets_deadline(task: Task, higher: Sequence[Task]) -> bool:
    """Whether a task meets all its deadlines below these others, on one processor with preemption, as `runner.analysis` has it.

    Exact for periodic tasks that start together without jitter, and for sporadic ones; safe with offsets. What is not known within
    the analysis' bound of work counts as missed.

    Raises:
        UsageError: C or T of a task is not known.
    """
    return response(_sporadic(task), [_sporadic(other) for other in higher]).late is False


def _sporadic(task: Task) -> SporadicTask:
    if task.wcet_ns is None or task.period_ns is None:
        raise UsageError(
            f"task {task.name!r} has no {'wcet' if task.wcet_ns is None else 'period'}, which opa needs",
            where="priority",
            next_step="give it one, or choose rm, dm or explicit",
        )
    return SporadicTask(
        task.wcet_ns, task.period_ns, task.relative_deadline_ns or task.period_ns, task.jitter_ns
    )
