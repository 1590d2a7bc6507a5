"""Lines of LITMUS^RT's `rtspin`, one a task (times in ms, the duration in s): `rtspin -w -p CPU -d D -o O -q PRIORITY C T DURATION`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from runner.errors import UsageError
from runner.formats.document import located_in, whole_file
from runner.formats.jobs import Options, n_released
from runner.formats.notes import FoundSet, Note
from runner.formats.single import only, set_name
from runner.model import MAX_TASKS, Policy, Task, TaskSet
from runner.text.excerpt import excerpt
from runner.units import NS_PER_MS, NS_PER_S, in_unit, rounded_ns

# 1 is the most urgent.
_LOWEST_PRIORITY = 511
# `shlex` takes time with the square of it.
_MAX_LINE_CHARS = 1_000
_OPTIONS = {"-p": "CPU", "-d": "deadline", "-o": "offset", "-q": "priority"}


def read(path: Path, _: Options) -> Iterator[FoundSet]:
    """The one set of a file; empty lines and comments are passed over.

    Raises:
        UsageError: a line is not as above; names it.
    """
    with located_in(path):
        try:
            lines = whole_file(path).decode().splitlines()
        except UnicodeDecodeError:
            raise UsageError("the text is no UTF-8", next_step="save it as UTF-8") from None
        tasks: list[Task] = []
        notes: list[Note] = []
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                if len(tasks) >= MAX_TASKS:
                    _refuse(number, f"is one more than the {MAX_TASKS} tasks of a set", "divide the file")
                tasks.append(_read_task(line, number, notes))
        if not tasks:
            raise UsageError("the file has no line with rtspin", next_step="name a file with a line per task")
        yield FoundSet(TaskSet(tuple(tasks), name=set_name(path)), tuple(notes))


def _read_task(line: str, number: int, notes: list[Note]) -> Task:
    if len(line) > _MAX_LINE_CHARS:
        _refuse(number, f"has {len(line)} characters", "correct it: a call of rtspin has some dozens")
    try:
        words = shlex.split(line.strip().removesuffix("&"))
    except ValueError as exc:
        _refuse(number, f"is no command: {exc}", "correct its quotes")
    if not words or Path(words[0]).name != "rtspin":
        _refuse(number, f"calls {excerpt(words[:1])}", "only rtspin is importable")
    given, plain = _split(words[1:], number)
    if len(plain) != 3:
        _refuse(number, f"has {len(plain)} numbers", "write C T DURATION")

    def time_ns(name: str, written: str, unit_ns: int = NS_PER_MS) -> int:
        value_ns, exact = rounded_ns(written, unit_ns, key=f"line {number}, {name}")
        if not exact:
            notes.append(Note(f"line {number}, {name}", f"{written} → {value_ns} ns", lost=False))
        return value_ns

    cost_ns, period_ns = time_ns("C", plain[0]), time_ns("T", plain[1])
    deadline_ns = time_ns("-d", given["-d"]) if "-d" in given else None
    try:
        task = Task(
            name=f"task{number}",
            period_ns=period_ns,
            wcet_ns=cost_ns,
            deadline_ns=None if deadline_ns == period_ns else deadline_ns,
            offset_ns=time_ns("-o", given.get("-o", "0")),
            priority_rank=_whole(given.get("-q", str(_LOWEST_PRIORITY)), number, _LOWEST_PRIORITY) - 1,
            cpu_affinity=(_whole(given["-p"], number, 63, least=0),) if "-p" in given else (),
        )
        n_jobs = n_released(task, time_ns("DURATION", plain[2], NS_PER_S))
        return replace(task, n_jobs=n_jobs)
    except UsageError as exc:
        raise UsageError(exc.what, where=f"line {number}", next_step=exc.next_step) from exc


def _split(words: list[str], number: int) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and what stands beside them."""
    given: dict[str, str] = {}
    plain: list[str] = []
    left = iter(words)
    for word in left:
        if word in _OPTIONS:
            value = next(left, None)
            if value is None or word in given:
                _refuse(
                    number, f"has {word} without a value, or twice", f"write {word} {_OPTIONS[word].upper()}"
                )
            given[word] = value
        elif word == "-w":
            continue  # all wait for a common release, as tasks of ours do
        elif word.startswith("-"):
            _refuse(number, f"has {excerpt(word)}", f"known: -w, {', '.join(_OPTIONS)}")
        else:
            plain.append(word)
    return given, plain


def _whole(written: str, number: int, most: int, *, least: int = 1) -> int:
    if not (written.isascii() and written.isdecimal() and len(written) < 5 and least <= int(written) <= most):
        _refuse(number, f"has {excerpt(written)}, no number of {least}…{most}", "correct it")
    return int(written)


def _refuse(number: int, what: str, next_step: str) -> NoReturn:
    raise UsageError(f"line {number} {what}", where=f"line {number}", next_step=next_step)


def write(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """The one set.

    Raises:
        UsageError: a task has no period, does not say how long it runs, or is none of fixed priority.
    """
    path.write_text(dump(only(tasksets, "rtspin")), encoding="utf-8")


def dump(taskset: TaskSet) -> str:
    """The text of a set: a line per task."""
    return "".join(f"{_line(task)}\n" for task in taskset.tasks)


def _line(task: Task) -> str:
    at = f"task {task.name!r}"
    if task.period_ns is None or task.wcet_ns is None:
        missing = "period_ns" if task.period_ns is None else "wcet_ns"
        raise UsageError(
            f"{at}.{missing} is missing, which every rtspin has",
            where=f"{at}.{missing}",
            next_step="set it, or leave the task out",
        )
    if task.policy not in (Policy.FIFO, Policy.RR) or task.priority_rank >= _LOWEST_PRIORITY:
        raise UsageError(
            f"{at} has policy {task.policy} and rank {task.priority_rank}: no priority of 1…{_LOWEST_PRIORITY}",
            where=f"{at}.policy",
            next_step="use fifo, and ranks below 511",
        )
    words = ["rtspin", "-w"]
    if len(task.cpu_affinity) == 1:
        words += ["-p", str(task.cpu_affinity[0])]
    deadline_ns = task.relative_deadline_ns or task.period_ns
    words += ["-d", in_unit(deadline_ns, "ms"), "-o", in_unit(task.offset_ns, "ms")]
    duration_ns = task.offset_ns + task.n_jobs * task.period_ns
    words += ["-q", str(task.priority_rank + 1), in_unit(task.wcet_ns, "ms"), in_unit(task.period_ns, "ms")]
    return " ".join([*words, in_unit(duration_ns, "s")])
