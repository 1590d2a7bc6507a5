"""Traces in Chrome's JSON format, which Perfetto (ui.perfetto.dev) opens: of one task set, and of a whole fleet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.data.history import DataSet
from runner.report.fleet import instant_s
from runner.report.schedule import Job, Schedule
from runner.text.excerpt import printable_line
from runner.text.log_lines import clean

TraceEvent = dict[str, Any]
_CPUS, _TASKS = 1, 2
# Times in the format are microseconds, with a fraction.
_NS_PER_US = 1000.0
_US_PER_S = 1e6
#: Attempts in a fleet's trace: some 50 MB, which is what a browser takes.
MAX_ATTEMPTS = 200_000
_FACTS = ("taskset_id", "run_id", "outcome", "n_jobs", "n_missed", "repetition", "attempt")
_FIRST = (
    "SELECT min(utc) FROM (SELECT min(started_utc) AS utc FROM runs WHERE reused_from IS NULL"
    " UNION ALL SELECT min(utc) FROM incidents)"
)
_MACHINES = "SELECT machine FROM runs UNION SELECT machine FROM incidents"
_ATTEMPTS = """
SELECT machine, started_utc, wall_s, tasksets.name, taskset_id, run_id, outcome, runs.n_jobs, n_missed, repetition, attempt
FROM runs JOIN tasksets USING (taskset_id) WHERE reused_from IS NULL ORDER BY started_utc LIMIT ?
"""
_INCIDENTS = "SELECT machine, utc, fault, substr(what, 1, 500), recovery, taskset_id FROM incidents ORDER BY seq LIMIT ?"


def set_trace(schedule: Schedule) -> Iterator[TraceEvent]:
    """The executions of each CPU as slices, the jobs from release to deadline as async slices, the misses as instants.

    Guarantees: slices of one track do not overlap; every async slice that begins ends.
    """
    names = {task.task_idx: _text(task.name) for task in schedule.tasks}
    yield _process(_CPUS, f"CPUs: {_text(schedule.taskset.name)}")
    yield _process(_TASKS, "tasks: release to deadline")
    for cpu in sorted({one.cpu for one in schedule.executions}):
        yield _thread(_CPUS, cpu, f"CPU {cpu}")
    for place, task in enumerate(schedule.tasks):
        yield _thread(_TASKS, task.task_idx, names[task.task_idx])
        yield {
            "ph": "M",
            "name": "thread_sort_index",
            "pid": _TASKS,
            "tid": task.task_idx,
            "args": {"sort_index": place},
        }
    for one in schedule.executions:
        name, job = names.get(one.task_idx, f"#{one.task_idx}"), f"{one.task_idx}:{one.job_idx}"
        if one.known:
            span = {"ts": one.start_ns / _NS_PER_US, "dur": (one.end_ns - one.start_ns) / _NS_PER_US}
            yield {
                "ph": "X",
                "name": name,
                "cat": "execution",
                "pid": _CPUS,
                "tid": one.cpu,
                **span,
                "args": {"job": one.job_idx},
            }
        else:
            yield from _async(
                f"{name}: between start and finish",
                "not known",
                job,
                one.task_idx,
                one.start_ns,
                one.end_ns,
                {},
            )
    for row in schedule.jobs:
        yield from _job(row, names.get(row.task_idx, f"#{row.task_idx}"))


def _job(job: Job, name: str) -> Iterator[TraceEvent]:
    facts = {key: value for key, value in job._asdict().items() if value is not None}
    end_ns = job.deadline_abs_ns if job.deadline_abs_ns is not None else job.finish_ns
    if end_ns is not None:
        yield from _async(
            f"{name} #{job.job_idx}",
            "job",
            f"{job.task_idx}:{job.job_idx}",
            job.task_idx,
            job.release_ns,
            end_ns,
            facts,
        )
    if job.missed and job.deadline_abs_ns is not None:
        at = job.deadline_abs_ns / _NS_PER_US
        yield {
            "ph": "i",
            "name": f"{name} #{job.job_idx} misses",
            "cat": "miss",
            "pid": _TASKS,
            "tid": job.task_idx,
            "ts": at,
            "s": "t",
        }


def _async(  # noqa: PLR0917 - a row
    name: str, category: str, number: str, task_idx: int, start_ns: int, end_ns: int, facts: TraceEvent
) -> Iterator[TraceEvent]:
    # `id2.local`: within its process, so that Perfetto does not join it with what has the same id elsewhere.
    base = {
        "name": name,
        "cat": category,
        "id2": {"local": f"{category}:{number}"},
        "pid": _TASKS,
        "tid": task_idx,
    }
    yield {"ph": "b", **base, "ts": start_ns / _NS_PER_US, "args": facts}
    yield {"ph": "e", **base, "ts": max(start_ns, end_ns) / _NS_PER_US}


def fleet_trace(database: DataSet, max_attempts: int = MAX_ATTEMPTS) -> Iterator[TraceEvent]:
    """Machines as processes, attempts at task sets as slices, incidents as instants; in the time since the first of them.

    Guarantees: slices of one machine do not overlap: an attempt ends at the latest when the next begins. Memory does not grow with
    the run.
    """
    (first_utc,) = database.execute(_FIRST).fetchone()
    if first_utc is None:
        return
    begun_s = instant_s(first_utc)
    names = [name for (name,) in database.execute(_MACHINES)]
    pids = {name: pid for pid, name in enumerate(sorted(names, key=lambda name: (len(name), name)), 1)}
    for name, pid in pids.items():
        yield _process(pid, _text(name))
    yield from _attempts(database, pids, begun_s, max_attempts)
    for machine, utc, fault, what, recovery, taskset_id in database.execute(_INCIDENTS, (max_attempts,)):
        at = {"pid": pids[machine], "tid": 0, "ts": _since_us(begun_s, utc), "s": "p"}
        facts = {"what": clean(what, 500), "recovery": recovery, "taskset_id": taskset_id}
        yield {"ph": "i", "name": f"fault: {fault}", "cat": "incident", **at, "args": facts}


def _attempts(
    database: DataSet, pids: Mapping[str, int], begun_s: float, max_attempts: int
) -> Iterator[TraceEvent]:
    last: dict[str, TraceEvent] = {}
    for row in database.execute(_ATTEMPTS, (max_attempts,)):
        machine, utc, wall_s, name, *facts = row
        at_us = _since_us(begun_s, utc)
        if (before := last.get(machine)) is not None:
            before["dur"] = max(0.0, min(before["dur"], round(at_us - before["ts"], 1)))
            yield before
        last[machine] = {
            "ph": "X",
            "name": _text(name),
            "cat": "attempt",
            "pid": pids[machine],
            "tid": 0,
            "ts": at_us,
            "dur": round(max(0.0, wall_s) * _US_PER_S, 1),
            "args": dict(zip(_FACTS, facts, strict=True)),
        }
    yield from last.values()


def _since_us(begun_s: float, utc: str) -> float:
    return round((instant_s(utc) - begun_s) * _US_PER_S, 1)


def write_trace(path: Path, events: Iterable[TraceEvent]) -> int:
    """The events as a file, one a line; how many there are. The file appears whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    n = 0
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ns", "traceEvents": [')
            for event in events:
                file.write((",\n" if n else "\n") + json.dumps(event))
                n += 1
            file.write("\n]}\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return n


def _process(pid: int, name: str) -> TraceEvent:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _thread(pid: int, tid: int, name: str) -> TraceEvent:
    return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _text(text: str) -> str:
    return printable_line(text)
