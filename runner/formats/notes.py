"""What became of a task set on its way through a file: what was lost, rounded or assumed, as a list that the user is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from runner.errors import UsageError
from runner.model import Policy, Provenance, Task, TaskSet
from runner.text.excerpt import excerpt
from runner.units import written_bytes, written_ns

_MAX_SHOWN = 20


@dataclass(frozen=True)
class Note:
    """One thing that is not as it was, or was not told.

    Attributes:
        where: The place: set and task, or a line of the file.
        what: What is different, in a few words.
        lost: Whether what is executed has become other: the user has to agree. Otherwise it was rounded to whole nanoseconds on
            import, assumed, or is for people only (names, where a set comes from).
    """

    where: str
    what: str
    lost: bool = True

    def __str__(self) -> str:
        return f"{'lost' if self.lost else 'note'}: {self.where}: {self.what}"


@dataclass(frozen=True)
class FoundSet:
    """A task set as found in a file, and what of the file it does not hold."""

    taskset: TaskSet
    notes: tuple[Note, ...] = ()


def refuse_losses(notes: Iterable[Note], where: str, next_step: str) -> None:
    """Raise the refusal that lists what is lost, if anything is.

    Raises:
        UsageError: something is lost.
    """
    lost = [f"{note.where}: {note.what}" for note in notes if note.lost]
    if lost:
        more = f"\n    … and {len(lost) - _MAX_SHOWN} more" if len(lost) > _MAX_SHOWN else ""
        raise UsageError(
            f"{len(lost)} things would be lost:\n    " + "\n    ".join(lost[:_MAX_SHOWN]) + more,
            where=where,
            next_step=next_step,
        )


def differences(given: TaskSet, back: TaskSet, where: str) -> Iterator[Note]:
    """How a set that was written and read again differs from what it was; nothing where both mean the same.

    Priority ranks are compared by their order, and what may be given in two ways (D = T, `spin`'s C) by what it comes to.
    """
    if given.name != back.name:
        yield Note(f"{where}.name", f"{excerpt(given.name)} → {excerpt(back.name)}", lost=False)
    for name in ("overrun_policy", "end_ns"):
        yield from _difference(f"{where}.{name}", name, getattr(given, name), getattr(back, name))
    if any(task.policy is Policy.DEADLINE for task in given.tasks):
        key = "admission_control"
        yield from _difference(f"{where}.{key}", key, given.admission_control, back.admission_control)
    if _plain(given.provenance) != _plain(back.provenance) and given.provenance.generator != "explicit":
        origin, seed = given.provenance.generator, given.provenance.seed
        what = f"made by {excerpt(origin)}, seed {excerpt(seed)}: not carried"
        yield Note(f"{where}.provenance", what, lost=False)
    if len(given.tasks) != len(back.tasks):
        yield Note(f"{where}.tasks", f"{len(given.tasks)} → {len(back.tasks)}")
        return
    pairs = zip(_meanings(given), _meanings(back), strict=True)
    for idx, (before, after) in enumerate(pairs):
        for name, value in before.items():
            at = f"{where}.tasks[{idx}] ({excerpt(given.tasks[idx].name)}).{name}"
            yield from _difference(at, name, value, after[name])


def _difference(where: str, name: str, before: object, after: object) -> Iterator[Note]:
    if before != after:
        what = f"{_shown(name, before)} → {_shown(name, after)}"
        yield Note(where, what, lost=name != "name")


def _shown(name: str, value: object) -> str:
    if isinstance(value, int) and name.endswith("_ns"):
        return written_ns(value)
    if isinstance(value, int) and name.endswith("_bytes"):
        return written_bytes(value)
    return "none" if value is None else excerpt(value)


def _meanings(taskset: TaskSet) -> Iterator[dict[str, Any]]:
    """Each task's fields, by what they come to."""
    ranked = (Policy.FIFO, Policy.RR)
    ranks = sorted({task.priority_rank for task in taskset.tasks if task.policy in ranked})
    for task in taskset.tasks:
        meaning = {one.name: getattr(task, one.name) for one in fields(Task)}
        meaning["deadline_ns"] = task.relative_deadline_ns
        meaning["priority_rank"] = ranks.index(task.priority_rank) if task.policy in ranked else None
        meaning["workload_args"] = dict(task.workload_args)
        if task.workload == "spin" and task.spin_ns == task.wcet_ns:
            meaning["workload_args"].pop("cpu_ns", None)
        if task.policy is Policy.DEADLINE:
            meaning["dl_runtime_ns"] = task.dl_budget_ns
        yield meaning


def _plain(provenance: Provenance) -> str:
    return json.dumps(
        [provenance.generator, dict(provenance.params), provenance.seed, provenance.utilization_target],
        sort_keys=True,
        default=str,
    )
