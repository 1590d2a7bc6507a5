"""Task descriptions: a task set in the words of Genode's task loader, or why that has none for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.sax.saxutils import escape

from runner.errors import TaskSetError
from runner.genode.framing import MAX_BINARY_BYTES, NAME_BYTES
from runner.model import WORKLOADS, OverrunPolicy, Policy, Task, TaskSet
from runner.text.excerpt import excerpt
from runner.units import NS_PER_MS

LOWEST_PRIORITY = 127
#: Instead of a priority: the deadline decides.
EDF = 128
# Known to do for every binary of the original's.
_CAPS = 235
_DEFAULT_QUOTA = "100M"
_MAX_NUMBER = (1 << 31) - 1
# No dot in front: a host that keeps programs in files takes none that are hidden, or lead elsewhere.
_NAME = re.compile(rf"[A-Za-z0-9_+-][A-Za-z0-9._+-]{{0,{NAME_BYTES - 2}}}")
# Blanks around a value are not kept by every reader of XML.
_PLAIN = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")


@dataclass(frozen=True)
class Binary:
    """A program under the name by which the descriptions refer to it."""

    name: str
    path: Path


def packages(taskset: TaskSet, folder: Path | None) -> tuple[Binary, ...]:
    """The programs that a set needs and the host may not have, each once.

    Args:
        folder: Holds one file per workload, by its name; None: the host knows the workloads.

    Raises:
        TaskSetError: a name cannot be sent, or two programs share one.
    """
    found: dict[str, Path] = {}
    for task in taskset.tasks:
        binary = binary_of(task, folder)
        if binary is None:
            continue
        if found.setdefault(binary.name, binary.path) != binary.path:
            raise TaskSetError(
                f"the executables {found[binary.name]} and {binary.path} share the name {binary.name}",
                where=f"task {task.name!r}.workload_args.path",
                next_step="rename one: a Genode host knows programs by their names alone",
            )
    return tuple(Binary(name, found[name]) for name in sorted(found))


def binary_of(task: Task, folder: Path | None) -> Binary | None:
    """The program of one task; None where the host has it."""
    if task.workload == "executable":
        return Binary(_package(task), Path(str(task.workload_args["path"])))
    return None if folder is None else Binary(task.workload, folder / task.workload)


def encode_descriptions(taskset: TaskSet, *, vcpus: int | None = None) -> bytes:
    """The document for SEND_DESCS; a task's id is its index in the set.

    Offsets add up on the host, in the order of the descriptions: they stand in the order of their first releases, each with what it
    comes later than the one before.

    Args:
        vcpus: Processors of the host, if known: a task that is bound to some is given its part of them.

    Raises:
        TaskSetError: names what a Genode host cannot do.
    """
    taskset.refuse_jitter()
    if taskset.overrun_policy is not OverrunPolicy.KILL_AND_SKIP:
        raise TaskSetError(
            f"overrun_policy={taskset.overrun_policy} cannot be run on a Genode host, which kills a job at the next release",
            where=f"task set {taskset.name!r}.overrun_policy",
            next_step="set overrun_policy=kill_and_skip",
        )
    order = sorted(range(len(taskset.tasks)), key=lambda idx: taskset.tasks[idx].offset_ns)
    priorities = _priorities(taskset)
    parts, before_ms = [], 0
    for idx in order:
        task = taskset.tasks[idx]
        offset_ms = _whole_ms(task, "offset_ns", task.offset_ns)
        values = _values(task, priorities[idx], vcpus)
        numbers = {"id": idx, **values, "offset": offset_ms - before_ms}
        before_ms = offset_ms
        body = "".join(f"<{key}>{escape(str(value))}</{key}>" for key, value in numbers.items())
        parts.append(f"<periodictask>{body}<config>{_config(task)}</config></periodictask>")
    return f"<taskset>{''.join(parts)}</taskset>".encode("ascii") + b"\0"


def _values(task: Task, priority: int, vcpus: int | None) -> dict[str, int | str]:
    period_ms = _whole_ms(task, "period_ns", task.period_ns)
    deadline_ms = 0
    if task.policy is Policy.DEADLINE:
        deadline_ms = _whole_ms(task, "deadline_ns", task.relative_deadline_ns)
    elif task.deadline_ns is not None and task.deadline_ns != task.period_ns:
        _refuse(
            task,
            "deadline_ns",
            "differs from the period, and a Genode host knows no deadline beside a fixed priority",
            "leave it out, or use policy deadline",
        )
    cores, first = _cores(task, vcpus)
    return {
        "priority": priority,
        "deadline": deadline_ms,
        "period": period_ms,
        "criticaltime": _whole_ms(task, "kill_after_start_ns", task.kill_after_start_ns),
        "numberofjobs": task.n_jobs,
        "quota": _DEFAULT_QUOTA if task.mem_limit_bytes is None else _quota(task, task.mem_limit_bytes),
        "caps": _CAPS,
        "cores": cores,
        "coreoffset": first,
        "pkg": _package(task),
    }


def _priorities(taskset: TaskSet) -> list[int]:
    """Ranks as they are where they fit, else by their order, which is all that counts."""
    ranks = sorted({task.priority_rank for task in taskset.tasks if task.policy in (Policy.FIFO, Policy.RR)})
    fit = not ranks or ranks[-1] <= LOWEST_PRIORITY
    priorities = []
    for task in taskset.tasks:
        if task.policy is Policy.OTHER:
            _refuse(
                task,
                "policy",
                "is other: a Genode host schedules every task by priority or deadline",
                "use fifo",
            )
        if task.policy is Policy.DEADLINE:
            priorities.append(EDF)
        else:
            priorities.append(task.priority_rank if fit else ranks.index(task.priority_rank))
    return priorities


def _cores(task: Task, vcpus: int | None) -> tuple[int, int]:
    """Into how many equal parts the processors are cut, and which of these is the task's; 0: it may use all."""
    cpus = task.cpu_affinity
    if not cpus:
        return 0, 0
    contiguous = cpus[-1] - cpus[0] + 1 == len(cpus)
    if vcpus is None or not contiguous or vcpus % len(cpus) or cpus[0] % len(cpus) or cpus[-1] >= vcpus:
        _refuse(
            task,
            "cpu_affinity",
            f"is {cpus}: a Genode host takes an equal part of its processors ({vcpus or 'an unknown number'})",
            "leave it empty, or name one processor of a host whose vcpus are told",
        )
    return vcpus // len(cpus), cpus[0] // len(cpus)


def _config(task: Task) -> str:
    if task.workload == "executable":
        argv = task.workload_args.get("argv", ())
        words = tuple(argv) if isinstance(argv, tuple) else (str(argv),)
    elif task.workload == "spin":
        words = () if task.spin_ns is None else (str(task.spin_ns),)
    else:
        words = tuple(str(task.workload_args[key]) for key in ("arg1",) if key in task.workload_args)
    for word in words:
        if not _PLAIN.fullmatch(word):
            _refuse(
                task,
                "workload_args.argv",
                f"has {excerpt(word)}, which is no plain ASCII without blanks around it",
                "write it otherwise",
            )
    return "".join(f"<arg{number}>{escape(word)}</arg{number}>" for number, word in enumerate(words, start=1))


def _package(task: Task) -> str:
    if task.workload != "executable":
        return task.workload
    name = Path(str(task.workload_args["path"])).name
    if not _NAME.fullmatch(name):
        _refuse(
            task,
            "workload_args.path",
            f"ends with {excerpt(name)}; a Genode host takes names of 1…{NAME_BYTES - 1} letters, digits and ._+-, no dot first",
            "rename the file",
        )
    if name in WORKLOADS:
        _refuse(
            task,
            "workload_args.path",
            f"ends with {name}, which is the name of a workload, and a Genode host knows programs by their names alone",
            f"rename the file, or use the workload {name}",
        )
    return name


def _quota(task: Task, n_bytes: int) -> str:
    for unit, factor in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if n_bytes % factor == 0:
            return f"{n_bytes // factor}{unit}"
    return str(n_bytes)


def _whole_ms(task: Task, field: str, value_ns: int | None) -> int:
    """0 where there is none: no period (one job), never killed, no deadline."""
    if value_ns is None:
        return 0
    value_ms, rest_ns = divmod(value_ns, NS_PER_MS)
    if rest_ns or value_ms > _MAX_NUMBER:
        _refuse(
            task,
            field,
            f"is {value_ns} ns; a Genode host takes whole milliseconds up to {_MAX_NUMBER}",
            "round it",
        )
    if value_ms == 0 and field != "offset_ns":
        _refuse(task, field, "is 0, which means none to a Genode host", "set at least 1 ms")
    return value_ms


def _refuse(task: Task, field: str, what: str, next_step: str) -> NoReturn:
    where = f"task {task.name!r}.{field}"
    raise TaskSetError(f"{where} {what}", where=where, next_step=next_step)


def check_binary(binary: Binary, content: bytes) -> None:
    """Refuse what no host takes."""
    if not 0 < len(content) <= MAX_BINARY_BYTES:
        raise TaskSetError(
            f"the program {binary.path} has {len(content)} bytes, must have 1…{MAX_BINARY_BYTES}",
            next_step="see what it is",
        )
