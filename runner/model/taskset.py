"""Task sets: tasks that run together, the variants of one, and whatever yields task sets."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Protocol

from runner.errors import TaskSetError
from runner.model.refusal import check, check_name, member_of, refusal
from runner.model.task import Policy, Task
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS

MAX_TASKS = 64
# PREEMPT_RT's interrupt threads run at FIFO 50 and the supervisor at 99: 51…98 are for tasks.
MAX_PRIORITY_LEVELS = 48


class OverrunPolicy(StrEnum):
    """What happens to a job that is not finished at its limit."""

    #: It goes on; the next job starts when it ends, with its nominal release. What analysis assumes.
    CONTINUE = "continue"
    #: It is killed at the next release, and that release is skipped. What the original did.
    KILL_AND_SKIP = "kill_and_skip"
    #: It is killed at its absolute deadline.
    ABORT_AT_DEADLINE = "abort_at_deadline"


class TaskSetSource(Protocol):
    """Whatever yields concrete task sets: a `TaskSet`, a generator of this package, a class of the user's."""

    def variants(self) -> Iterator[TaskSet]:
        """Yield every concrete task set, lazily; may never end.

        Called by whichever machine wants the next set, while it holds the queue: must not call the Distributor.
        """
        ...

    @property
    def n_variants(self) -> int | None:
        """How many `variants()` will yield, exactly; None when that is not known or endless."""
        ...


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a generated set comes from, enough to make it again alone.

    Attributes:
        generator: Name of the generator; `explicit` for sets that were written down.
        params: Its parameters.
        seed: What it was seeded with; None for written sets.
        utilization_target: What was asked for, before rounding to whole nanoseconds.
    """

    generator: str = "explicit"
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    utilization_target: float | None = None


@dataclass(frozen=True)
class TaskSet:
    """Tasks that run together from a common start instant.

    Attributes:
        tasks: In the order in which they were given; `task_idx` in every table counts from 0 here.
        name: For people; not part of the identity.
        overrun_policy: What happens to a job that is not finished at its limit.
        admission_control: Whether the kernel's SCHED_DEADLINE bandwidth test (95 % of a CPU) applies; off, everything is admitted.
        stop_ns: When the set is ended, after the start instant; None: when the last deadline and period are over.
        choices: Several values per attribute: `{(task_idx, "period_ns"): (…, …)}`; `variants()` yields every combination.
        provenance: Where the set comes from.

    Raises:
        UsageError: no task, too many, more priority levels than the guest has, or a name that no table or log can hold.
    """

    tasks: tuple[Task, ...]
    name: str = "taskset"
    overrun_policy: OverrunPolicy = OverrunPolicy.CONTINUE
    admission_control: bool = True
    stop_ns: int | None = None
    choices: Mapping[tuple[int, str], Iterable[Any]] = field(default_factory=dict, compare=False, repr=False)
    provenance: Provenance = field(default_factory=Provenance, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_name(self.name, "task set")
        at = f"task set {self.name!r}"
        overrun = member_of(OverrunPolicy, self.overrun_policy, f"{at}.overrun_policy")
        object.__setattr__(self, "overrun_policy", overrun)
        check(
            0 < len(self.tasks) <= MAX_TASKS,
            f"{at}.tasks",
            f"has {len(self.tasks)} tasks, must have 1…{MAX_TASKS}",
        )
        check(
            len(self._levels) <= MAX_PRIORITY_LEVELS,
            f"{at}.tasks",
            f"use {len(self._levels)} priority ranks; a guest has {MAX_PRIORITY_LEVELS} levels for tasks",
        )
        if self.stop_ns is not None:
            check(
                0 < self.stop_ns <= MAX_TIME_NS,
                f"{at}.stop_ns",
                f"is {excerpt(self.stop_ns)}, must be 1…{MAX_TIME_NS}",
            )
        names = {f.name for f in fields(Task)} if self.choices else set()
        for task_idx, attribute in self.choices:
            check(
                0 <= task_idx < len(self.tasks) and attribute in names,
                f"{at}.choices",
                f"names attribute {attribute!r} of task {task_idx}, which does not exist",
            )

    @property
    def _levels(self) -> list[int]:
        return sorted({t.priority_rank for t in self.tasks if t.policy in (Policy.FIFO, Policy.RR)})

    def variants(self) -> Iterator[TaskSet]:
        """Every concrete task set: one value of each attribute that has several; lazily, in a fixed order.

        The attribute named last varies fastest. The first one's values may go on for ever.
        """
        for values in _product(list(self.choices.values())):
            changes: dict[int, dict[str, Any]] = {}
            for (task_idx, attribute), value in zip(self.choices, values, strict=True):
                changes.setdefault(task_idx, {})[attribute] = value
            yield TaskSet(
                tasks=tuple(replace(task, **changes.get(idx, {})) for idx, task in enumerate(self.tasks)),
                name=self.name,
                overrun_policy=self.overrun_policy,
                admission_control=self.admission_control,
                stop_ns=self.stop_ns,
                provenance=self.provenance,
            )

    @property
    def n_variants(self) -> int | None:
        """How many concrete sets `variants()` yields; None when an attribute's values cannot be counted, or it has over 64 bits."""
        counts = [len(values) for values in self.choices.values() if isinstance(values, Sized)]
        return countable(math.prod(counts)) if len(counts) == len(self.choices) else None

    @property
    def end_ns(self) -> int:
        """When the set is over, after the start instant: `stop_ns`, or the end of the last job's period and deadline."""
        return self.stop_ns if self.stop_ns is not None else max(t.end_ns for t in self.tasks)

    @property
    def utilization(self) -> float | None:
        """Sum of C/T as achieved after rounding; None unless every task has both."""
        parts = [t.utilization for t in self.tasks]
        return float(sum(p for p in parts if p is not None)) if all(p is not None for p in parts) else None

    @property
    def hyperperiod_ns(self) -> int | None:
        """Least common multiple of the periods; None for one-shot tasks, or beyond 64-bit time."""
        periods = [t.period_ns for t in self.tasks if t.period_ns is not None]
        if len(periods) != len(self.tasks):
            return None
        value = math.lcm(*periods)
        return value if value <= MAX_TIME_NS else None

    def refuse_jitter(self) -> None:
        """For whatever releases jobs punctually, as guests do.

        Raises:
            TaskSetError: a task has release jitter.
        """
        for task in self.tasks:
            if task.jitter_ns:
                raise TaskSetError(
                    f"task {task.name!r} has a release jitter of {task.jitter_ns} ns, and guests release their jobs punctually",
                    where=f"task {task.name!r}.jitter_ns",
                    next_step="set jitter to 0, or simulate the set: machines=simulation",
                )

    def priority(self, task: Task) -> int:
        """Linux priority of a task: 98 for the most urgent rank, one less per further rank; 0 outside FIFO and RR."""
        return 98 - self._levels.index(task.priority_rank) if task.policy in (Policy.FIFO, Policy.RR) else 0

    @cached_property
    def taskset_id(self) -> str:
        """Content hash (16 hex digits) of all that decides what is executed; names do not count."""
        content = {
            "version": 1,
            "tasks": [{k: v for k, v in t.as_dict().items() if k != "name"} for t in self.tasks],
            "overrun_policy": self.overrun_policy.value,
            "admission_control": self.admission_control,
            "stop_ns": self.stop_ns,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def countable(number: int) -> int | None:
    """A number of task sets; None where it is as good as endless: beyond 64 bits."""
    return number if number.bit_length() < 64 else None


def _product(factors: list[Iterable[Any]]) -> Iterator[tuple[Any, ...]]:
    """As `itertools.product`, but without keeping the factors in memory, so that the first may be endless."""
    if not factors:
        yield ()
        return
    for value in factors[0]:
        for rest in _product(factors[1:]):
            yield (value, *rest)


def rank_by(tasks: Iterable[Task], attribute: Literal["period_ns", "deadline_ns"]) -> tuple[Task, ...]:
    """Give each task the rank of its `period_ns` (rate-monotonic) or `deadline_ns` (deadline-monotonic); equal values share a rank.

    Raises:
        UsageError: when a task lacks that attribute.
    """
    tasks = tuple(tasks)
    keys: list[int] = []
    for task in tasks:
        key = task.relative_deadline_ns if attribute == "deadline_ns" else task.period_ns
        if key is None:
            raise refusal(
                f"task {task.name!r}.{attribute}", "is missing, so the task has no place in the order"
            )
        keys.append(key)
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return tuple(replace(task, priority_rank=ranks[key]) for task, key in zip(tasks, keys, strict=True))
