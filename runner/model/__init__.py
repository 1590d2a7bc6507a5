"""The task-set model: pure, frozen, and the same for every session and monitor."""

from runner.model.task import WORKLOADS, Policy, Task, WorkloadArg
from runner.model.taskset import (
    MAX_TASKS,
    OverrunPolicy,
    Provenance,
    TaskSet,
    TaskSetSource,
    rank_by,
)

__all__ = [
    "MAX_TASKS",
    "WORKLOADS",
    "OverrunPolicy",
    "Policy",
    "Provenance",
    "Task",
    "TaskSet",
    "TaskSetSource",
    "WorkloadArg",
    "rank_by",
]
