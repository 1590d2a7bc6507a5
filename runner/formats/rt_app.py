"""rt-app's JSON (times in us): one set a file; periodic threads that run a calibrated loop and wait for an absolute timer.

`run` counts loops, so it is CPU time. `runtime` counts wall time, preemption included: such a file measures something else, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import UsageError
from runner.formats.document import located_in, parse_document, whole_file
from runner.formats.jobs import Options, n_released
from runner.formats.notes import FoundSet, Note
from runner.formats.single import only, set_name, unique_names
from runner.model import MAX_TASKS, Policy, Task, TaskSet
from runner.tasksets.written import cpus, mapping, nearest, text, whole
from runner.text.excerpt import excerpt
from runner.units import NS_PER_S, NS_PER_US

_POLICIES = {
    "SCHED_FIFO": Policy.FIFO,
    "SCHED_RR": Policy.RR,
    "SCHED_DEADLINE": Policy.DEADLINE,
    "SCHED_OTHER": Policy.OTHER,
}
_NAMES = {policy: name for name, policy in _POLICIES.items()}
_BUDGET = ("dl-runtime", "dl-deadline", "dl-period")
_KEYS = ("policy", "priority", *_BUDGET, "cpus", "delay", "loop", "instance", "run", "timer")
# What rt-app knows beside them; by the beginning of the key, as rt-app reads it.
_EVENTS = (
    *("phases", "runtime", "lock", "unlock", "wait", "signal", "broad", "sync", "sleep", "suspend", "resume"),
    *("mem", "iorun", "yield", "barrier", "fork", "timer", "run", "taskgroup", "numa", "nodes"),
)
# How rt-app measures, and where it writes to: no part of a task set.
_MEASURING = (
    *("calibration", "lock_pages", "ftrace", "logdir", "log_basename", "log_size", "gnuplot"),
    *("frag", "cumulative_slack", "io_device", "mem_buffer_size"),
)
#: The highest priority that is a task's; FIFO's 99 is the guest supervisor's.
_TOP = 98
_RULES = 'give it "run" (us of CPU time) and "timer": {"ref": "unique", "period": us, "mode": "absolute"}, in this order'


def read(path: Path, options: Options) -> Iterator[FoundSet]:
    """The one set of a file.

    Raises:
        UsageError: the file has what a task set of ours cannot do; names the place.
    """
    with located_in(path):
        document = mapping(parse_document(whole_file(path)), "the file")
        for name, value in document.items():
            if name not in ("tasks", "global") and value not in ({}, []):
                _refuse(
                    name,
                    "is not importable",
                    "remove it; locks and other resources are not part of our tasks",
                )
        notes: list[Note] = []
        stop_ns, default_policy = _globals(mapping(document.get("global", {}), "global"), options, notes)
        tasks: list[Task] = []
        references: dict[str, str] = {}
        priorities: list[int] = []
        for name, item in mapping(document.get("tasks"), "tasks").items():
            given = mapping(item, f"tasks.{name}")
            _check_reference(given, name, references)
            task, priority = _read_task(name, given, default_policy, stop_ns)
            n_instances = whole(given.get("instance", 1), f"tasks.{name}.instance")
            if not 1 <= n_instances <= MAX_TASKS:
                _refuse(f"tasks.{name}.instance", f"is {n_instances}", f"choose 1…{MAX_TASKS}")
            if len(tasks) + n_instances > MAX_TASKS:
                _refuse(f"tasks.{name}", f"is beyond the {MAX_TASKS} tasks of a set", "divide the file")
            alike = (
                [replace(task, name=f"{name}-{k}") for k in range(n_instances)] if n_instances > 1 else [task]
            )
            tasks += alike
            priorities += [priority] * n_instances
        top = max([_TOP, *priorities])
        tasks = [
            replace(task, priority_rank=top - priority if task.policy in (Policy.FIFO, Policy.RR) else 0)
            for task, priority in zip(tasks, priorities, strict=True)
        ]
        yield FoundSet(TaskSet(tuple(tasks), name=set_name(path), stop_ns=stop_ns), tuple(notes))


def _globals(given: Mapping[str, Any], options: Options, notes: list[Note]) -> tuple[int | None, str]:
    for name, value in given.items():
        if name not in (*_MEASURING, "duration", "default_policy") and value not in (False, None):
            notes.append(Note(f"global.{name}", f"{excerpt(value)} is not carried"))
    duration_s = whole(given.get("duration", -1), "global.duration")
    stop_ns = duration_s * NS_PER_S if duration_s > 0 else options.duration_ns
    return stop_ns, text(given.get("default_policy", "SCHED_OTHER"), "global.default_policy")


def _check_reference(given: Mapping[str, Any], name: str, references: dict[str, str]) -> None:
    timer = given.get("timer")
    reference = timer.get("ref") if isinstance(timer, Mapping) else None
    if isinstance(reference, str) and reference != "unique":
        if reference in references:
            other = references[reference]
            at = f"tasks.{name}.timer.ref"
            _refuse(at, f"is the timer of task {other!r}, too", 'give each its own: "ref": "unique"')
        references[reference] = name


def _read_task(
    name: str, given: Mapping[str, Any], default_policy: str, stop_ns: int | None
) -> tuple[Task, int]:
    """The task without its rank, and its priority."""
    at = f"tasks.{name}"
    _check_keys(given, at)
    policy_name = text(given.get("policy", default_policy), f"{at}.policy")
    if policy_name not in _POLICIES:
        _refuse(f"{at}.policy", f"is {excerpt(policy_name)}", f"choose one of: {', '.join(_POLICIES)}")
    policy = _POLICIES[policy_name]
    period_us = _period_us(given, at)
    priority = whole(
        given.get("priority", 0 if policy in (Policy.OTHER, Policy.DEADLINE) else 10), f"{at}.priority"
    )
    if policy in (Policy.FIFO, Policy.RR) and not 1 <= priority <= 99:
        _refuse(f"{at}.priority", f"is {priority}", "choose 1…99, of which 99 is the most urgent")
    if policy is Policy.OTHER and priority != 0:
        _refuse(f"{at}.priority", f"is {priority}, a nice value, which our tasks do not have", "leave it out")
    runtime_ns = deadline_ns = None
    cost_ns = whole(given["run"], f"{at}.run") * NS_PER_US
    if policy is Policy.DEADLINE:
        runtime_us, deadline_us = _budget_us(given, at, period_us)
        runtime_ns = runtime_us * NS_PER_US if runtime_us is not None else None
        runtime_ns = None if runtime_ns == cost_ns else runtime_ns
        deadline_ns = deadline_us * NS_PER_US if deadline_us not in (None, period_us) else None
    task = Task(
        name=name,
        period_ns=None if period_us is None else period_us * NS_PER_US,
        wcet_ns=cost_ns,
        deadline_ns=deadline_ns,
        offset_ns=whole(given.get("delay", 0), f"{at}.delay") * NS_PER_US,
        policy=policy,
        cpu_affinity=cpus(given.get("cpus", ()), f"{at}.cpus"),
        dl_runtime_ns=runtime_ns,
    )
    return replace(task, n_jobs=_n_jobs(task, given, at, stop_ns)), priority


def _check_keys(given: Mapping[str, Any], at: str) -> None:
    for key in given:
        if key in _KEYS:
            continue
        if key.startswith("runtime"):
            _refuse(f"{at}.{key}", "counts wall time, preemption included", 'write "run": us of CPU time')
        if key.startswith(_EVENTS):
            _refuse(f"{at}.{key}", "is not importable: a task of ours is one run and one timer", _RULES)
        _refuse(f"{at}.{key}", "is not known", nearest(key, _KEYS))
    order = [key for key in given if key in ("run", "timer")]
    if "run" not in order:
        _refuse(f"{at}.run", "is missing", _RULES)
    if order[0] != "run":
        _refuse(f"{at}.timer", "stands before run: the first job would wait for a period", _RULES)


def _period_us(given: Mapping[str, Any], at: str) -> int | None:
    if "timer" not in given:
        if given.get("loop", -1) != 1:
            _refuse(f"{at}.timer", "is missing, and the loop does not end after one job", _RULES)
        return None
    timer = mapping(given["timer"], f"{at}.timer")
    for key in timer:
        if key not in ("ref", "period", "mode"):
            _refuse(f"{at}.timer.{key}", "is not known", nearest(key, ("ref", "period", "mode")))
    if timer.get("mode", "relative") != "absolute":
        _refuse(
            f"{at}.timer.mode",
            f"is {excerpt(timer.get('mode', 'relative'))}: after an overrun such a timer begins anew, and is periodic no more",
            'write "mode": "absolute"',
        )
    return whole(timer.get("period"), f"{at}.timer.period")


def _budget_us(given: Mapping[str, Any], at: str, period_us: int | None) -> tuple[int | None, int | None]:
    runtime_us, deadline_us, reservation_us = (
        whole(given[key], f"{at}.{key}") if key in given else None for key in _BUDGET
    )
    if reservation_us is None:
        reservation_us = period_us
    if reservation_us != period_us:
        _refuse(
            f"{at}.dl-period",
            f"is {reservation_us} us and the timer's period {period_us} us: a task of ours has one period",
            "make them equal",
        )
    return runtime_us, deadline_us if deadline_us is not None else reservation_us


def _n_jobs(task: Task, given: Mapping[str, Any], at: str, stop_ns: int | None) -> int:
    n_loops = whole(given.get("loop", -1), f"{at}.loop")
    if n_loops > 0:
        return n_loops
    if n_loops != -1:
        _refuse(f"{at}.loop", f"is {n_loops}", "choose a number of jobs, or -1 with a duration")
    if stop_ns is None:
        _refuse(
            f"{at}.loop", "is endless, and global.duration does not end it", "say how long: --duration 10s"
        )
    return n_released(task, stop_ns)


def _refuse(where: str, what: str, next_step: str) -> NoReturn:
    raise UsageError(f"{where} {what}", where=where, next_step=next_step)


def write(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """The one set. C is rounded up to whole us, what else is a time down; the duration up to whole seconds.

    Raises:
        UsageError: a task does not say how long it runs, or there are several sets.
    """
    path.write_text(dump(only(tasksets, "rt-app")), encoding="utf-8")


def dump(taskset: TaskSet) -> str:
    """The text of a set."""
    ranks = [task.priority_rank for task in taskset.tasks]
    names = unique_names(taskset)
    texts = []
    for name, task in zip(names, taskset.tasks, strict=True):
        priority = taskset.priority(task) if max(ranks) >= _TOP else _TOP - task.priority_rank
        head, body = _compact(_head(task, priority))[:-1], _compact(_events(task))[1:]
        texts.append(f"{_compact(name)}:{head},\n   {body}")
    duration_s = -1 if taskset.stop_ns is None else _up(taskset.stop_ns, NS_PER_S)
    measuring = {
        "duration": duration_s,
        "calibration": "CPU0",
        "lock_pages": True,
        "ftrace": "none",
        "logdir": "./",
    }
    return f'{{"tasks":{{{f",{chr(10)} ".join(texts)}}},\n "global":{_compact(measuring)}}}\n'


def _head(task: Task, priority: int) -> dict[str, Any]:
    head: dict[str, Any] = {"policy": _NAMES[task.policy]}
    if task.policy is Policy.DEADLINE:
        times_ns = (task.dl_budget_ns, task.relative_deadline_ns, task.period_ns)
        runtime_ns, deadline_ns, period_ns = (0 if one is None else one for one in times_ns)
        head["dl-runtime"] = _up(runtime_ns, NS_PER_US)
        head["dl-deadline"], head["dl-period"] = deadline_ns // NS_PER_US, period_ns // NS_PER_US
    elif task.policy is not Policy.OTHER:
        head["priority"] = priority
    if task.cpu_affinity:
        head["cpus"] = list(task.cpu_affinity)
    if task.offset_ns or task.policy is not Policy.DEADLINE:
        head["delay"] = task.offset_ns // NS_PER_US
    head["loop"] = task.n_jobs
    return head


def _events(task: Task) -> dict[str, Any]:
    cost_ns = task.spin_ns if task.workload == "spin" else task.wcet_ns
    if cost_ns is None:
        at = f"task {task.name!r}.wcet_ns"
        _refuse(at, f"is missing, and rt-app has no workload {task.workload!r}", "set wcet: it becomes `run`")
    events: dict[str, Any] = {"run": _up(cost_ns, NS_PER_US)}
    if task.period_ns is not None:
        period_us = max(1, task.period_ns // NS_PER_US)
        events["timer"] = {"ref": "unique", "period": period_us, "mode": "absolute"}
    return events


def _up(value_ns: int, ns_per_unit: int) -> int:
    return -(-value_ns // ns_per_unit)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
