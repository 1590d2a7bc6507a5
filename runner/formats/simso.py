"""SimSo's XML (times in ms): one set a file, with the scheduler and the duration of its simulation. As SimSo 0.8.5 writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from runner.errors import UsageError
from runner.formats.document import located_in, whole_file
from runner.formats.jobs import Options, released_within
from runner.formats.markup import Element, located_at, parse_markup, quoted
from runner.formats.notes import FoundSet, Note
from runner.formats.single import only, set_name
from runner.model import MAX_TASKS, OverrunPolicy, Policy, Task, TaskSet, rank_by
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS, NS_PER_MS, in_unit, rounded_ns

#: SimSo's schedulers that order jobs as one of our policies does. Others (partitioned, servers, LLF …) do something else.
_RM = ("RM", "RM_mono")
_EDF = ("EDF", "EDF_mono")
_SCHEDULERS = (*_RM, *_EDF, "FP")
#: Attributes of tasks that are ours, and those that count only if they are not what SimSo writes by default.
_OURS = (
    "name",
    "id",
    "task_type",
    "abort_on_miss",
    "period",
    "activationDate",
    "deadline",
    "WCET",
    "priority",
)
_DEFAULTS = {
    "task": {
        **{"list_activation_dates": "", "base_cpi": "1.0", "instructions": "0", "mix": "0.5"},
        **{"ACET": "0", "preemption_cost": "0", "et_stddev": "0"},
    },
    "processor": {"cl_overhead": "0", "cs_overhead": "0", "speed": "1.0"},
    "processors": {"migration_overhead": "0"},
    "sched": {"overhead": "0", "overhead_activate": "0", "overhead_terminate": "0"},
    "simulation": {"penalty_preemption": "100000", "penalty_migration": "100000", "use_wcet": "yes"},
}
# What only the cache models look at.
_PASSED_OVER = (
    "memory_access_time",
    "instructions",
    "mix",
    "base_cpi",
    "penalty_preemption",
    "penalty_migration",
)
_DEFAULT_CYCLES = "50000"


def read(path: Path, _: Options) -> Iterator[FoundSet]:
    """The one set of a file.

    Raises:
        UsageError: the file has what a task set of ours cannot do; names the line.
    """
    with located_in(path):
        root = parse_markup(whole_file(path))
        if root.tag != "simulation":
            raise UsageError(
                f"<{root.tag}> is no simulation",
                where=root.where,
                next_step="name the format that the file has (--from, or tasksets.format)",
            )
        notes: list[Note] = []
        scheduler = _scheduler(root, notes)
        _check_simulation(root, notes)
        elements = [child for part in root.all("tasks") for child in part.all("task")]
        if not 0 < len(elements) <= MAX_TASKS:
            raise UsageError(f"the file has {len(elements)} tasks, must have 1…{MAX_TASKS}", where=root.where)
        tasks = tuple(_read_task(element, scheduler, notes) for element in elements)
        if scheduler in _RM:
            tasks = rank_by(tasks, "period_ns")
        elif scheduler == "FP":
            tasks = _by_priority(tasks, elements)
        duration_ns = _duration_ns(root, notes)
        with located_at(root):
            taskset = TaskSet(
                released_within(tasks, duration_ns),
                name=set_name(path),
                overrun_policy=_overrun_policy(elements),
                admission_control=scheduler not in _EDF,
            )
            if taskset.end_ns != duration_ns:
                taskset = replace(taskset, stop_ns=duration_ns)
        yield FoundSet(taskset, tuple(notes))


def _scheduler(root: Element, notes: list[Note]) -> str:
    found = list(root.all("sched"))
    written = found[0].attributes.get("class", "") if found else ""
    name = written.removeprefix("simso.schedulers.")
    if len(found) != 1 or name not in _SCHEDULERS or found[0].attributes.get("className"):
        what = excerpt(written or (found[0].attributes.get("className", "") if found else ""))
        raise UsageError(
            f"the scheduler is {what}, which orders jobs in no way of ours",
            where=found[0].where if found else root.where,
            next_step=f"choose one of: {', '.join(f'simso.schedulers.{one}' for one in _SCHEDULERS)}",
        )
    _note_rest(found[0], ("class", "className"), notes)
    for child in found[0].children:
        notes.append(Note(child.where, "is not carried"))
    return name


def _check_simulation(root: Element, notes: list[Note]) -> None:
    _note_rest(root, ("duration", "cycles_per_ms", "etm"), notes)
    if root.attributes.get("etm", "wcet") != "wcet":
        what = (
            f"execution times by {excerpt(root.attributes['etm'])} are not carried: each job takes its WCET"
        )
        notes.append(Note(root.where, what))
    processors = [child for part in root.all("processors") for child in part.all("processor")]
    for part in root.all("processors"):
        _note_rest(part, (), notes)
    for processor in processors:
        _note_rest(processor, ("name", "id"), notes)
    if len(processors) > 1:
        what = f"{len(processors)} processors are not carried: machines.qemu.vcpus has as many"
        notes.append(Note(processors[1].where, what))
    for child in root.children:
        if child.tag not in ("sched", "caches", "processors", "tasks"):
            notes.append(Note(child.where, "is not carried"))


def _note_rest(element: Element, known: tuple[str, ...], notes: list[Note]) -> None:
    defaults = _DEFAULTS.get(element.tag, {})
    for name, value in element.attributes.items():
        if name in known or name in _PASSED_OVER or _same(value, defaults.get(name)):
            continue
        notes.append(Note(element.where, f"{name} {excerpt(value)} is not carried"))


def _same(value: str, default: str | None) -> bool:
    """Whether both are the same number, or the same text."""
    if default is None or value == default:
        return value == default
    try:
        return rounded_ns(value, NS_PER_MS, key="") == rounded_ns(default, NS_PER_MS, key="")
    except UsageError:
        return False


def _read_task(element: Element, scheduler: str, notes: list[Note]) -> Task:
    if element.attributes.get("task_type", "Periodic") != "Periodic":
        raise UsageError(
            f"task_type is {excerpt(element.attributes['task_type'])}",
            where=element.where,
            next_step="only Periodic tasks are importable: describe it as one, or leave it out",
        )
    known = _OURS if scheduler == "FP" else tuple(name for name in _OURS if name != "priority")
    _note_rest(element, known, notes)

    def time_ns(name: str, default: str | None = None) -> int:
        written = element.attributes.get(name, default)
        value_ns, exact = rounded_ns(element.get(name) if written is None else written, NS_PER_MS, key=name)
        if not exact:
            notes.append(Note(f"{element.where}, {name}", f"{written} ms → {value_ns} ns", lost=False))
        return value_ns

    with located_at(element):
        period_ns, deadline_ns = time_ns("period"), time_ns("deadline")
        return Task(
            name=element.get("name"),
            period_ns=period_ns,
            wcet_ns=time_ns("WCET"),
            deadline_ns=None if deadline_ns == period_ns else deadline_ns,
            offset_ns=time_ns("activationDate", "0"),
            policy=Policy.DEADLINE if scheduler in _EDF else Policy.FIFO,
        )


def _by_priority(tasks: tuple[Task, ...], elements: list[Element]) -> tuple[Task, ...]:
    """SimSo's FP: the higher the number, the more urgent."""
    priorities = []
    for element in elements:
        written = element.get("priority")
        if len(written) > 18 or not written.removeprefix("-").isdecimal() or not written.isascii():
            raise UsageError(f"priority is {excerpt(written)}, no whole number", where=element.where)
        priorities.append(int(written))
    order = sorted(set(priorities), reverse=True)
    return tuple(
        replace(task, priority_rank=order.index(priority))
        for task, priority in zip(tasks, priorities, strict=True)
    )


def _overrun_policy(elements: list[Element]) -> OverrunPolicy:
    aborting = [element.attributes.get("abort_on_miss", "yes") == "yes" for element in elements]
    if len(set(aborting)) > 1:
        other = elements[aborting.index(not aborting[0])]
        raise UsageError(
            "abort_on_miss differs between the tasks, and a set of ours has one overrun policy",
            where=other.where,
            next_step='write abort_on_miss="no" (continue) or "yes" (abort_at_deadline) at all of them; left out it means yes',
        )
    return OverrunPolicy.ABORT_AT_DEADLINE if aborting[0] else OverrunPolicy.CONTINUE


def _duration_ns(root: Element, notes: list[Note]) -> int:
    cycles, per_ms = (
        root.attributes.get("duration", _DEFAULT_CYCLES),
        root.attributes.get("cycles_per_ms", "1000000"),
    )
    for name, written in (("duration", cycles), ("cycles_per_ms", per_ms)):
        if not (written.isascii() and written.isdecimal() and len(written) <= 18 and int(written) > 0):
            raise UsageError(f"{name} is {excerpt(written)}, not a number of cycles", where=root.where)
    duration_ns, rest = divmod(int(cycles) * NS_PER_MS, int(per_ms))
    if not 0 < duration_ns <= MAX_TIME_NS:
        raise UsageError(f"duration is {duration_ns} ns", where=root.where)
    if rest:
        notes.append(Note(f"{root.where}, duration", f"{cycles} cycles → {duration_ns} ns", lost=False))
    return duration_ns


def write(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """The one set, for one processor; the simulation lasts as long as the set.

    Raises:
        UsageError: SimSo has no scheduler for it, a task does not say how long it runs, or there are several sets.
    """
    path.write_text(dump(only(tasksets, "SimSo")), encoding="utf-8")


def dump(taskset: TaskSet) -> str:
    """The text of a set."""
    scheduler = _scheduler_of(taskset)
    fields = '<field name="priority" type="int"/>' if scheduler == "FP" else ""
    lines = []
    for number, task in enumerate(taskset.tasks, start=1):
        at = f"task {task.name!r}"
        if task.period_ns is None or task.wcet_ns is None:
            missing = "period_ns" if task.period_ns is None else "wcet_ns"
            raise UsageError(
                f"{at}.{missing} is missing, which every periodic task of SimSo has",
                where=f"{at}.{missing}",
                next_step="set it, or leave the task out",
            )
        deadline_ns = task.relative_deadline_ns or task.period_ns
        abort = "yes" if taskset.overrun_policy is OverrunPolicy.ABORT_AT_DEADLINE else "no"
        priority = f' priority="{-task.priority_rank}"' if fields else ""
        lines.append(
            f'<task name={quoted(task.name, at)} id="{number}" task_type="Periodic" abort_on_miss="{abort}"'
            f' period="{_ms(task.period_ns)}" activationDate="{_ms(task.offset_ns)}" list_activation_dates=""'
            f' deadline="{_ms(deadline_ns)}"\n base_cpi="1.0" instructions="0" mix="0.5" WCET="{_ms(task.wcet_ns)}"'
            f' ACET="0" preemption_cost="0" et_stddev="0"{priority}/>'
        )
    return (
        f'<simulation duration="{taskset.end_ns}" cycles_per_ms="1000000" etm="wcet">'
        f'<sched class="simso.schedulers.{scheduler}"/><caches memory_access_time="100"/>\n'
        '<processors><processor name="CPU 1" id="1" cl_overhead="0" cs_overhead="0" speed="1.0"/></processors>\n'
        f"<tasks>{fields}{chr(10).join(lines)}</tasks></simulation>\n"
    )


def _ms(value_ns: int) -> str:
    return in_unit(value_ns, "ms")


def _scheduler_of(taskset: TaskSet) -> str:
    policies = {task.policy for task in taskset.tasks}
    if policies == {Policy.DEADLINE}:
        return "EDF"
    if not policies <= {Policy.FIFO, Policy.RR}:
        raise UsageError(
            f"the tasks have the policies {', '.join(sorted(policies))}, and SimSo has one scheduler for all",
            where="policy",
            next_step="use fifo for all tasks, or deadline for all",
        )
    if all(task.period_ns is not None for task in taskset.tasks):
        ranks = [task.priority_rank for task in taskset.tasks]
        order = sorted(set(ranks))
        if [order.index(rank) for rank in ranks] == [
            task.priority_rank for task in rank_by(taskset.tasks, "period_ns")
        ]:
            return "RM"
    return "FP"
