"""The kernel's admission test for SCHED_DEADLINE."""

from __future__ import annotations

from runner.model import Policy, TaskSet
from runner.units import NS_PER_S

# kernel/sched/core.c, to_ratio(): bandwidths are fractions of 1 << BW_SHIFT, rounded down.
BW_SHIFT = 20
DL_BANDWIDTH_CAP = (950_000_000 << BW_SHIFT) // NS_PER_S


def admitted(taskset: TaskSet) -> tuple[bool, ...]:
    """Which tasks the kernel takes, asked in task order: SCHED_DEADLINE may claim 95 % of the processor in all."""
    claimed, verdicts = 0, []
    for task in taskset.tasks:
        bandwidth = 0
        if task.policy is Policy.DEADLINE:
            bandwidth = ((task.dl_budget_ns or 0) << BW_SHIFT) // (task.period_ns or 1)
        fits = bandwidth == 0 or not taskset.admission_control or claimed + bandwidth <= DL_BANDWIDTH_CAP
        verdicts.append(fits)
        claimed += bandwidth if fits else 0
    return tuple(verdicts)
