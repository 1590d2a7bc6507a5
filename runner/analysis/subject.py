"""A task set as the analyses see it, and what they may conclude about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise

from runner.analysis.sporadic import SporadicTask, constrained, implicit
from runner.analysis.utilization import exceeds
from runner.model import OverrunPolicy, Policy, Task, TaskSet


class Scheduling(Enum):
    """By what jobs are put in order."""

    FIXED_PRIORITY = "fixed priority"
    EDF = "EDF"


_SCHEDULING = {
    Policy.FIFO: Scheduling.FIXED_PRIORITY,
    Policy.RR: Scheduling.FIXED_PRIORITY,
    Policy.DEADLINE: Scheduling.EDF,
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Tasks on equal processors under one scheduler.

    Attributes:
        ranks: 0 is the most urgent.
        in_order: Whether tasks of one rank that wake together run one after the other, by their index: not so under RR.
        worst_case_happens: Whether a run begins with the worst case of the theory, so that a failed exact test proves a miss: releases
            are synchronous and without jitter, nothing blocks, C is what jobs use, and no job is killed before its deadline.
        overload_misses: Whether U > m proves a miss: the same, whatever the releases are.
    """

    tasks: tuple[SporadicTask, ...]
    ranks: tuple[int, ...]
    scheduling: Scheduling
    n_cpus: int
    in_order: bool
    worst_case_happens: bool
    overload_misses: bool

    @cached_property
    def plain(self) -> bool:
        """Without jitter and blocking."""
        return not any(task.jitter or task.blocking for task in self.tasks)

    @cached_property
    def implicit(self) -> bool:
        """No deadline is shorter than its period."""
        return implicit(self.tasks)

    @cached_property
    def constrained(self) -> bool:
        """No deadline is longer than its period."""
        return constrained(self.tasks)

    @cached_property
    def overloaded(self) -> bool:
        """Whether U > m, and that proves a miss."""
        return self.overload_misses and exceeds(self.tasks, self.n_cpus)

    @cached_property
    def rate_monotonic(self) -> bool:
        """Whether shorter periods have more urgent ranks, each its own."""
        pairs = sorted(zip((task.period for task in self.tasks), self.ranks, strict=True))
        return all(a[0] == b[0] or a[1] < b[1] for a, b in pairwise(pairs))


def subject(taskset: TaskSet, *, n_cpus: int = 1, blockings_ns: Sequence[int] = ()) -> Subject | None:
    """The set as the analyses see it; None where they have nothing to say of it.

    That is: a task without a period or a known C, SCHED_OTHER, schedulers mixed, or a SCHED_DEADLINE budget smaller than C, which
    makes a server late whatever EDF does.

    Args:
        blockings_ns: B per task; empty: none.
    """
    members, tasks = taskset.tasks, []
    kinds = {_SCHEDULING.get(task.policy) for task in members}
    scheduling = kinds.pop() if len(kinds) == 1 else None
    if scheduling is None:
        return None
    kills_at_period = taskset.overrun_policy is OverrunPolicy.KILL_AND_SKIP
    for idx, task in enumerate(members):
        cost_ns, deadline_ns = _cost_ns(task), task.relative_deadline_ns
        if cost_ns is None or task.period_ns is None or deadline_ns is None:
            return None
        if scheduling is Scheduling.EDF and (task.dl_budget_ns or 0) < cost_ns:
            return None
        limit_ns = min(deadline_ns, task.period_ns) if kills_at_period else deadline_ns
        blocking_ns = blockings_ns[idx] if blockings_ns else 0
        tasks.append(SporadicTask(cost_ns, task.period_ns, limit_ns, task.jitter_ns, blocking_ns))
    spared = kills_at_period and not all(
        one.relative_deadline_ns == two.deadline for one, two in zip(members, tasks, strict=True)
    )
    ends_late = not spared and all(
        task.kill_after_start_ns is None and task.workload == "spin" for task in members
    )
    synchronous = len({task.offset_ns for task in members}) == 1 and not any(
        task.jitter_ns for task in members
    )
    return Subject(
        tasks=tuple(tasks),
        ranks=tuple(task.priority_rank for task in members),
        scheduling=scheduling,
        n_cpus=n_cpus,
        in_order=all(task.policy is not Policy.RR for task in members),
        worst_case_happens=ends_late and synchronous and not any(blockings_ns),
        overload_misses=ends_late,
    )


def _cost_ns(task: Task) -> int | None:
    """C: what each job of `spin` uses; what is declared for others."""
    return task.spin_ns if task.workload == "spin" else task.wcet_ns
