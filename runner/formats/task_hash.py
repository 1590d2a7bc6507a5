"""The original's task hash: 52 decimal digits a task. A line is a set, its tasks' digits one after the other.

A line may also be a list of sets, `['…', '…']`, as the original left them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.errors import UsageError
from runner.formats.document import located_in, whole_file
from runner.formats.jobs import Options
from runner.formats.notes import FoundSet
from runner.formats.original_task import OriginalTask, found_set, original_tasks
from runner.model import MAX_TASKS, TaskSet
from runner.text.excerpt import excerpt

#: Field -> digits, in their order. The quota counts MiB.
FIELDS = {
    **{"pkg": 1, "priority": 3, "deadline_ms": 5, "period_ms": 5, "criticaltime_ms": 5, "numberofjobs": 3},
    **{"offset_ms": 5, "quota": 3, "caps": 3, "cores": 2, "core": 2, "arg1": 15},
}
N_DIGITS = sum(FIELDS.values())
#: The digit of a program. The last one was there, but switched off.
_PACKAGES = {"hey": 1, "pi": 2, "tumatmul": 3, "cond_mod": 4, "cond_42": 5}
_NAMES = {digit: name for name, digit in _PACKAGES.items()}
_LIST = re.compile(r"""\[(?:\s*(?:'[0-9]+'|"[0-9]+")\s*(?:,|(?=\])))*\s*\]""")
_DIGITS = re.compile(r"[0-9]+")


def digits_of(task: OriginalTask) -> str:
    """The hash of a task.

    Raises:
        UsageError: a value has more digits than there are, or the program has none.
    """
    if task.pkg not in _PACKAGES:
        known = ", ".join(_PACKAGES)
        raise UsageError(
            f"pkg {excerpt(task.pkg)} has no digit in the task hash", next_step=f"known: {known}"
        )
    values = {**vars(task), "pkg": _PACKAGES[task.pkg], "quota": int(task.quota.removesuffix("M"))}
    parts = []
    for name, width in FIELDS.items():
        if not 0 <= values[name] < 10**width:
            field = name.removesuffix("_ms")
            raise UsageError(
                f"{field} is {values[name]}, and the task hash has {width} digits for it",
                where=field,
                next_step="write SQLite, which has no such bound",
            )
        parts.append(f"{values[name]:0{width}}")
    return "".join(parts)


def task_of(digits: str) -> OriginalTask:
    """The task of a hash of `N_DIGITS` digits.

    Raises:
        UsageError: its program is none.
    """
    values: dict[str, int] = {}
    at = 0
    for name, width in FIELDS.items():
        values[name], at = int(digits[at : at + width]), at + width
    package = values.pop("pkg")
    if package not in _NAMES:
        known = ", ".join(f"{digit} ({name})" for digit, name in _NAMES.items())
        raise UsageError(f"the program is {package}", next_step=f"known: {known}")
    quota = values.pop("quota")
    return OriginalTask(pkg=_NAMES[package], quota=f"{quota}M", **values)


def read(path: Path, _: Options) -> Iterator[FoundSet]:
    """The sets of a file.

    Raises:
        UsageError: a line is neither digits nor a list of them; names it.
    """
    with located_in(path):
        try:
            lines = whole_file(path).decode("ascii").splitlines()
        except UnicodeDecodeError:
            raise UsageError("the text is no ASCII", next_step="a task hash has digits only") from None
        n_sets = 0
        for number, line in enumerate(lines, start=1):
            where = f"line {number}"
            written = line.strip()
            if not (_DIGITS.fullmatch(written) or _LIST.fullmatch(written) or not written):
                raise UsageError(
                    f"{excerpt(line)} is no task hash", where=where, next_step="write digits only"
                )
            for digits in _DIGITS.findall(written):
                yield _read_set(digits, where, n_sets)
                n_sets += 1


def _read_set(digits: str, where: str, number: int) -> FoundSet:
    n_tasks, rest = divmod(len(digits), N_DIGITS)
    if rest or n_tasks > MAX_TASKS:
        raise UsageError(
            f"a set has {len(digits)} digits; a task has {N_DIGITS}, and a set 1…{MAX_TASKS} tasks",
            where=where,
            next_step="correct the line",
        )
    tasks = []
    for idx in range(n_tasks):
        try:
            task = task_of(digits[idx * N_DIGITS : (idx + 1) * N_DIGITS])
        except UsageError as exc:
            raise UsageError(exc.what, where=f"{where}, task {idx}", next_step=exc.next_step) from exc
        tasks.append((f"{where}, task {idx}", task))
    return found_set(tasks, f"set{number}")


def write(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """All sets, a line each."""
    with open(path, "w", encoding="ascii") as file:
        for taskset in tasksets:
            file.write("".join(map(digits_of, original_tasks(taskset))) + "\n")
