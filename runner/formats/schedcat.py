"""SchedCAT's XML: whole numbers without a unit; `<taskset>`, or a `<testpoint>` of several. The order of the tasks is their priority."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import NoReturn

from runner.errors import UsageError
from runner.formats.document import located_in, whole_file
from runner.formats.jobs import Options, released_by_default
from runner.formats.markup import Element, located_at, parse_markup
from runner.formats.notes import FoundSet, Note
from runner.formats.single import set_name
from runner.model import MAX_TASKS, Task, TaskSet
from runner.text.excerpt import excerpt
from runner.units import rounded_ns

# What SchedCAT computes and writes beside a set: computed here anew.
_COMPUTED = ("id", "response_time")


def read(path: Path, options: Options) -> Iterator[FoundSet]:
    """The sets of a file. A task's rank is its place in the document.

    Raises:
        UsageError: the file has what a task set of ours does not have; names the line.
    """
    with located_in(path):
        root = parse_markup(whole_file(path))
        match root.tag:
            case "taskset":
                yield _read_set(root, set_name(path), options)
            case "testpoint":
                numbers = count()
                for child in root.children:
                    if child.tag == "taskset":
                        yield _read_set(child, f"{set_name(path)}-{next(numbers)}", options)
                    elif child.tag != "config":
                        _refuse(child)
            case _:
                raise UsageError(
                    f"<{root.tag}> is neither a taskset nor a testpoint",
                    where=root.where,
                    next_step="name the format that the file has (--from, or tasksets.format)",
                )


def _read_set(element: Element, name: str, options: Options) -> FoundSet:
    _known(element, ())
    notes: list[Note] = []
    tasks: list[Task] = []
    for child in element.children:
        if child.tag == "properties":
            continue
        if child.tag != "task":
            _refuse(child)
        if len(tasks) >= MAX_TASKS:
            raise UsageError(f"the set has more than {MAX_TASKS} tasks", where=child.where)
        tasks.append(_read_task(child, len(tasks), options, notes))
    if not tasks:
        raise UsageError("the set has no task", where=element.where)
    released, assumed = released_by_default(tasks, options, element.where)
    return FoundSet(TaskSet(released, name=name), (*notes, *assumed))


def _read_task(element: Element, rank: int, options: Options, notes: list[Note]) -> Task:
    _known(element, ("period", "wcet", "deadline", "partition", "wss", *_COMPUTED))
    if "wss" in element.attributes:
        notes.append(Note(element.where, f"wss {excerpt(element.attributes['wss'])} is not carried"))

    def time_ns(name: str) -> int:
        value_ns, exact = rounded_ns(element.get(name), options.unit_ns, key=name)
        if not exact:
            notes.append(Note(f"{element.where}, {name}", f"{element.get(name)} → {value_ns} ns", lost=False))
        return value_ns

    with located_at(element):
        period_ns = time_ns("period")
        deadline_ns = time_ns("deadline") if "deadline" in element.attributes else None
        return Task(
            name=f"task{rank}",
            period_ns=period_ns,
            wcet_ns=time_ns("wcet"),
            deadline_ns=None if deadline_ns == period_ns else deadline_ns,
            priority_rank=rank,
            cpu_affinity=_cpus(element),
        )


def _cpus(element: Element) -> tuple[int, ...]:
    found: list[tuple[int, ...]] = []
    if "partition" in element.attributes:
        found.append((_cpu(element, "partition"),))
    for child in element.children:
        if child.tag == "resources" and not child.children:
            continue
        if child.tag != "affinity":
            _refuse(child)
        for cpu in child.children:
            if cpu.tag != "cpu":
                _refuse(cpu)
            _known(cpu, ("id",))
        found.append(tuple(sorted(_cpu(cpu, "id") for cpu in child.children)))
    if len(set(found)) > 1:
        raise UsageError("partition and affinity name other CPUs", where=element.where, next_step="keep one")
    return found[0] if found else ()


def _cpu(element: Element, name: str) -> int:
    written = element.get(name)
    if not (written.isascii() and written.isdigit() and len(written) < 4):
        raise UsageError(f"{name} is {excerpt(written)}, no number of a CPU", where=element.where)
    return int(written)


def _known(element: Element, names: tuple[str, ...]) -> None:
    for name in element.attributes:
        if name not in names:
            raise UsageError(
                f"{name}={excerpt(element.attributes[name])} is not importable",
                where=element.where,
                next_step=f"remove it; known: {', '.join(names) or 'no attribute'}",
            )


def _refuse(element: Element) -> NoReturn:
    hint = (
        "our tasks share no resources" if element.tag in ("resources", "requirement") else "it is not known"
    )
    raise UsageError(
        f"<{element.tag}> is not importable", where=element.where, next_step=f"remove it: {hint}"
    )


def arranged(taskset: TaskSet) -> TaskSet:
    """The set with its tasks in the order of their ranks, which is what SchedCAT goes by."""
    return replace(taskset, tasks=tuple(sorted(taskset.tasks, key=lambda task: task.priority_rank)))


def write(tasksets: Iterable[TaskSet], path: Path, options: Options) -> None:
    """One set as `<taskset>`, several as a `<testpoint>`. C is rounded up to whole units, what else is a time down."""
    sets = [_dump(arranged(taskset), options.unit_ns) for taskset in tasksets]
    body = "\n".join(sets)
    path.write_text(body + "\n" if len(sets) == 1 else f"<testpoint><config/>\n{body}\n</testpoint>\n")


def _dump(taskset: TaskSet, unit_ns: int) -> str:
    lines = []
    for task in taskset.tasks:
        at = f"task {task.name!r}"
        if task.period_ns is None or task.wcet_ns is None:
            missing = "period_ns" if task.period_ns is None else "wcet_ns"
            raise UsageError(
                f"{at}.{missing} is missing, which every task of SchedCAT has",
                where=f"{at}.{missing}",
                next_step="set it, or leave the task out",
            )
        times = {"period": max(1, task.period_ns // unit_ns), "wcet": -(-task.wcet_ns // unit_ns)}
        if task.relative_deadline_ns != task.period_ns and task.deadline_ns is not None:
            times["deadline"] = max(1, task.deadline_ns // unit_ns)
        if len(task.cpu_affinity) == 1:
            times["partition"] = task.cpu_affinity[0]
        head = "<task" + "".join(f' {name}="{value}"' for name, value in times.items())
        inside = "".join(f'<cpu id="{cpu}"/>' for cpu in task.cpu_affinity)
        lines.append(f"{head}><affinity>{inside}</affinity></task>" if inside else f"{head}/>")
    body = "\n".join(lines)
    return f"<taskset>{body}</taskset>"
