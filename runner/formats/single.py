"""What formats with one set a file, and names as keys, have in common."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from runner.errors import UsageError
from runner.model import TaskSet
from runner.text.excerpt import printable_line


def only(tasksets: Iterable[TaskSet], title: str) -> TaskSet:
    """The one set that there is.

    Raises:
        UsageError: there are several, or none.
    """
    found = list(islice(tasksets, 2))
    if len(found) != 1:
        raise UsageError(
            f"a file of {title} holds one task set, and here {'are several' if found else 'is none'}",
            next_step="choose one by its place, from 0: --set 0; or write JSON, which holds any number",
        )
    return found[0]


def unique_names(taskset: TaskSet) -> list[str]:
    """A name for each task that no other has: the second `a` is `a-2`."""
    names: list[str] = []
    for task in taskset.tasks:
        name, number = task.name, 1
        while name in names:
            number += 1
            name = f"{task.name}-{number}"
        names.append(name)
    return names


def set_name(path: Path) -> str:
    """The name of the set in a file that does not say it: the file's."""
    return printable_line(path.stem)[:100] or "taskset"
