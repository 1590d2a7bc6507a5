"""Task sets that were written down: plain values, as a YAML file or a Python dict holds them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from runner.errors import UsageError
from runner.model import MAX_TASKS, OverrunPolicy, Policy, Provenance, Task, TaskSet
from runner.model.taskset import countable
from runner.tasksets.priorities import Priorities, ranked
from runner.tasksets.written import (
    Reader,
    arguments,
    check_number,
    cpus,
    flag,
    mapping,
    member,
    nearest,
    sequence,
    several,
    size_bytes,
    text,
    time_ns,
    whole,
)


class ExplicitTaskSets:
    """Task sets from plain values.

        tasksets:
          - name: golden
            overrun_policy: continue      # continue | kill_and_skip | abort_at_deadline
            priority: rm                  # rm | dm | opa | explicit
            stop: 4.2s
            tasks:
              - {name: fast, period: 70ms, wcet: 28.5ms, n_jobs: 60}
              - {period: [100ms, 120ms], wcet: 28.5ms, n_jobs: 35}

    A time is a text with its unit (`period: 70ms`) or a whole number under a key that names the unit (`period_ns: 70000000`); the same
    goes for `mem_limit: 100M` and `mem_limit_bytes`. A list gives several values: every combination is a task set of its own.
    Left out, `priority` is `explicit` if any task has a `priority_rank`, otherwise `rm`.

    Guarantees: every combination of every task was checked when the constructor returns.

    Args:
        tasksets: The sets, each a mapping as above.
        key: Full name of `tasksets` in the config, for messages.

    Raises:
        UsageError: for an unknown key (with the nearest known one), a value of a wrong type or out of range, or a contradiction;
            names the full key.
    """

    def __init__(self, tasksets: Sequence[Mapping[str, Any]], *, key: str = "tasksets.tasksets") -> None:
        if not tasksets:
            raise UsageError(f"{key} is empty", where=key, next_step="write down at least one task set")
        self._sets: list[_Written] = []
        n_checked = 0
        for idx, item in enumerate(sequence(tasksets, key)):
            self._sets.append(_read_taskset(item, f"{key}[{idx}]"))
            n_checked += self._sets[-1].n_checked
            check_number((n_checked,), key)

    @property
    def n_variants(self) -> int | None:
        """Combinations of all sets; None beyond 64 bits."""
        counts = [written.taskset.n_variants for written in self._sets]
        return countable(sum(count for count in counts if count is not None)) if None not in counts else None

    def variants(self) -> Iterator[TaskSet]:
        """The combinations of the first set, then those of the second …"""
        for written in self._sets:
            yield from written.variants()


@dataclass(frozen=True)
class _Written:
    """A set as read, and where its ranks come from: each variant has its own periods, so its own ranks."""

    taskset: TaskSet
    priorities: Priorities
    n_checked: int

    def variants(self) -> Iterator[TaskSet]:
        if not self.taskset.choices:
            yield self.taskset
            return
        for variant in self.taskset.variants():
            yield replace(variant, tasks=ranked(variant.tasks, self.priorities))


_TIMES = ("period", "wcet", "deadline", "offset", "jitter", "kill_after_start", "dl_runtime")
#: Key in a task -> attribute of `Task`, and how its value is read. `workload_args` is read by `arguments`.
_TASK_KEYS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "name": ("name", text),
        **{name: (f"{name}_ns", time_ns) for name in _TIMES},
        **{f"{name}_ns": (f"{name}_ns", whole) for name in _TIMES},
        "priority_rank": ("priority_rank", whole),
        "n_jobs": ("n_jobs", whole),
        "policy": ("policy", member(Policy)),
        "workload": ("workload", text),
        "mem_limit": ("mem_limit_bytes", size_bytes),
        "mem_limit_bytes": ("mem_limit_bytes", whole),
        "cpu_affinity": ("cpu_affinity", cpus),
    }
)
_TASKSET_KEYS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "name": ("name", text),
        "overrun_policy": ("overrun_policy", member(OverrunPolicy)),
        "admission_control": ("admission_control", flag),
        "stop": ("stop_ns", time_ns),
        "stop_ns": ("stop_ns", whole),
    }
)


def _read_taskset(item: object, key: str) -> _Written:
    given = dict(mapping(item, key))
    items = sequence(given.pop("tasks", ()), f"{key}.tasks")
    if len(items) > MAX_TASKS:
        raise UsageError(f"{key}.tasks has {len(items)} tasks, more than {MAX_TASKS}", where=f"{key}.tasks")
    written_tasks = [mapping(task, f"{key}.tasks[{idx}]") for idx, task in enumerate(items)]
    named = given.pop("priority", None)
    values = _read_fields(given, _TASKSET_KEYS, key, others=("tasks", "priority"))
    for attribute, several_values in values.items():
        if len(several_values) > 1:
            raise UsageError(
                f"{key}.{attribute} has several values, which only attributes of tasks may have",
                where=f"{key}.{attribute}",
                next_step="write one task set per value",
            )
    tasks: list[Task] = []
    choices: dict[tuple[int, str], tuple[Any, ...]] = {}
    n_checked = 1
    for idx, written in enumerate(written_tasks):
        task, several_of, n_combinations = _read_task(written, f"{key}.tasks[{idx}]", idx)
        n_checked += n_combinations
        check_number((n_checked,), key)
        tasks.append(task)
        choices.update({(idx, attribute): tuple(of) for attribute, of in several_of.items()})
    priorities = _priorities(named, written_tasks, key)
    with _located(key):
        taskset = TaskSet(
            tasks=tuple(tasks),
            choices=choices,
            provenance=Provenance(generator="explicit", params={"key": key}),
            **{attribute: only for attribute, (only,) in values.items()},
        )
        return _Written(replace(taskset, tasks=ranked(taskset.tasks, priorities)), priorities, n_checked)


def _priorities(named: object, tasks: Sequence[Mapping[str, Any]], key: str) -> Priorities:
    ranked = [idx for idx, task in enumerate(tasks) if task.get("priority_rank") is not None]
    if named is None:
        # One task alone needs no rank, and may be a one-shot task, which has no place in a rate-monotonic order.
        return Priorities.EXPLICIT if ranked or len(tasks) == 1 else Priorities.RM
    priorities = member(Priorities)(named, f"{key}.priority")
    if ranked and priorities is not Priorities.EXPLICIT:
        raise UsageError(
            f"{key}.tasks[{ranked[0]}].priority_rank contradicts {key}.priority, which is {priorities.value}",
            where=f"{key}.tasks[{ranked[0]}].priority_rank",
            next_step="leave one of them out",
        )
    return priorities


def _read_task(written: Mapping[str, Any], key: str, idx: int) -> tuple[Task, dict[str, list[Any]], int]:
    """The task with the first value of everything, the attributes that have several, and how many combinations were checked."""
    given = dict(written)
    written_args = given.pop("workload_args", None)
    values = _read_fields(given, _TASK_KEYS, key, others=("workload_args",))
    if written_args is not None:
        values["workload_args"] = arguments(written_args, f"{key}.workload_args")
    n_combinations = check_number(map(len, values.values()), key)
    with _located(key):
        tasks = (
            Task(**{"name": f"task{idx}", "period_ns": None, **dict(zip(values, combination, strict=True))})
            for combination in itertools.product(*values.values())
        )
        first = next(tasks)
        deque(tasks, maxlen=0)
    return first, {attribute: of for attribute, of in values.items() if len(of) > 1}, n_combinations


def _read_fields(
    given: Mapping[str, Any], known: Mapping[str, tuple[str, Reader]], key: str, *, others: Sequence[str]
) -> dict[str, list[Any]]:
    """The values of each attribute that was given; a key without a value (null) counts as left out."""
    values: dict[str, list[Any]] = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"{key}.{name} is not known",
                where=f"{key}.{name}",
                next_step=nearest(name, [*known, *others]),
            )
        attribute, read = known[name]
        if attribute in values:
            raise UsageError(f"{key}.{name} is given twice, with and without its unit", where=f"{key}.{name}")
        if value is not None:
            values[attribute] = several(value, read, f"{key}.{name}", lists=name == "cpu_affinity")
    return values


def read_tasks(items: object, key: str) -> list[Task]:
    """Tasks that were written down as above, one for every combination of their values.

    Raises:
        UsageError: as `ExplicitTaskSets`.
    """
    tasks: list[Task] = []
    for idx, item in enumerate(sequence(items, key)):
        first, several_of, _ = _read_task(mapping(item, f"{key}[{idx}]"), f"{key}[{idx}]", idx)
        choices = {(0, attribute): tuple(of) for attribute, of in several_of.items()}
        tasks += [variant.tasks[0] for variant in TaskSet((first,), choices=choices).variants()]
        check_number((len(tasks),), key)
    return tasks


@contextmanager
def _located(key: str) -> Iterator[None]:
    """Add the key to what the model refuses."""
    try:
        yield
    except UsageError as exc:
        raise UsageError(exc.what, where=exc.where or key, next_step=exc.next_step) from exc


def write_down(taskset: TaskSet) -> dict[str, Any]:
    """A concrete task set as `ExplicitTaskSets` reads it: plain values, of which the same set is made again."""
    return {
        "name": taskset.name,
        "overrun_policy": taskset.overrun_policy.value,
        "admission_control": taskset.admission_control,
        "stop_ns": taskset.stop_ns,
        "priority": Priorities.EXPLICIT.value,
        "tasks": [
            {key: value for key, value in task.as_dict().items() if value not in (None, [], {})}
            for task in taskset.tasks
        ],
    }
