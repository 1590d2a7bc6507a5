"""Task sets for benchmarks: those that the default config draws, cut to a horizon, with `spin` or with real programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from runner.model import Policy, Task, TaskSet
from runner.tasksets.uunifast import UUniFastTaskSets
from runner.units import NS_PER_MS

_DEFAULT_CONFIG = Path(__file__).parents[1] / "conf" / "tasksets" / "uunifast.yaml"


@dataclass(frozen=True)
class Listed:
    """Task sets that are there already, in this order."""

    tasksets: Sequence[TaskSet]

    @property
    def n_variants(self) -> int:
        """How many."""
        return len(self.tasksets)

    def variants(self) -> Iterator[TaskSet]:
        """One at a time."""
        return iter(self.tasksets)


def drawn(utilization: float, n_sets: int, horizon_ns: int, *, seed: int = 1) -> list[TaskSet]:
    """Sets of `spin` as `conf/tasksets/uunifast.yaml` draws them, each of which runs for the horizon and no longer."""
    source = UUniFastTaskSets(
        **{
            **_default_parameters(),
            "utilizations": [utilization],
            "sets_per_utilization": n_sets,
            "seed": seed,
        }
    )
    return [_cut(taskset, horizon_ns) for taskset in source.variants()]


def tiny(n_sets: int) -> list[TaskSet]:
    """Sets of one job of a millisecond, no two alike."""
    return [
        TaskSet((Task(period_ns=10 * NS_PER_MS, wcet_ns=NS_PER_MS + idx),), name=f"tiny{idx}")
        for idx in range(n_sets)
    ]


def with_program(taskset: TaskSet, program: str, arg1_of: Callable[[int], int]) -> TaskSet:
    """The same set, whose jobs run a program instead of `spin`.

    Args:
        arg1_of: The program's argument that makes it use so many nanoseconds of CPU time.
    """
    return replace(
        taskset,
        name=f"{program}-{taskset.name}",
        tasks=tuple(
            replace(task, workload=program, workload_args={"arg1": arg1_of(task.wcet_ns or 0)})
            for task in taskset.tasks
        ),
    )


def one_job(program: str, arg1: int) -> TaskSet:
    """A set of a single job of a program, which has a minute for it."""
    task = Task(period_ns=60_000 * NS_PER_MS, workload=program, workload_args={"arg1": arg1})
    return TaskSet((task,), name=f"{program}-{arg1}")


def assorted(n_sets: int, *, seed: int = 1) -> list[TaskSet]:
    """Sets of all sorts, no two alike: utilization 0.3 to 1.2, 1 to 8 tasks; FIFO, DEADLINE (with admission control and
    without), and both in one set. A hyperperiod each, so 600 ms at most.
    """
    least, most = 0.3, 1.2
    tasksets = []
    for idx in range(n_sets):
        utilization = least + (most - least) * idx / max(1, n_sets - 1)
        # One task has no more than 1; which number meets which policy changes from one round to the next.
        n_tasks = max(1 if utilization <= 1 else 2, 1 + (idx * 5 + idx // 8) % 8)
        sort = idx % 4
        (drawn_set,) = UUniFastTaskSets(
            n_tasks=n_tasks,
            utilizations=[round(utilization, 3)],
            sets_per_utilization=1,
            periods=_default_parameters()["periods"],
            hyperperiods=1,
            seed=seed + idx,
            policy=Policy.FIFO if sort == 0 else Policy.DEADLINE,
            admission_control=sort == 1,
        ).variants()
        tasksets.append(_mixed(drawn_set) if sort == 3 else drawn_set)
    return tasksets


def _mixed(taskset: TaskSet) -> TaskSet:
    """Every other task under FIFO instead of DEADLINE."""
    tasks = (
        replace(task, policy=Policy.FIFO, dl_runtime_ns=None) if idx % 2 else task
        for idx, task in enumerate(taskset.tasks)
    )
    return replace(taskset, tasks=tuple(tasks))


def _default_parameters() -> Mapping[str, Any]:
    parameters: dict[str, Any] = yaml.safe_load(_DEFAULT_CONFIG.read_text(encoding="utf-8"))
    del parameters["defaults"]
    return parameters


def _cut(taskset: TaskSet, horizon_ns: int) -> TaskSet:
    tasks = (replace(task, n_jobs=math.ceil(horizon_ns / (task.period_ns or 1))) for task in taskset.tasks)
    return replace(taskset, tasks=tuple(tasks), stop_ns=horizon_ns)
