"""Events as plain tuples: what goes over the wire for each job is read by a program that has thousands of them a second to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from runner.events import EndEvent, Event, JobEvent, JobRecord, RefusedEvent, StartEvent, TaskDoneEvent

#: An event's kind, by its place here, and its fields.
Packed = tuple[Any, ...]
_KINDS = (JobEvent, StartEvent, RefusedEvent, TaskDoneEvent, EndEvent)
_JOB = 0


def packed(event: Event) -> Packed:
    """The event for the wire."""
    match event:
        case JobEvent(job):
            return (_JOB, *job)
        case StartEvent(t0_guest_ns):
            return (1, t0_guest_ns)
        case RefusedEvent(task_idx, errno, name):
            return (2, task_idx, errno, name)
        case TaskDoneEvent(task_idx, t_ns):
            return (3, task_idx, t_ns)
        case EndEvent(t_ns, stopped):
            return (4, t_ns, stopped)


def events(packs: Iterable[Packed]) -> Iterator[Event]:
    """The events that were packed."""
    for kind, *values in packs:
        yield JobEvent(JobRecord(*values)) if kind == _JOB else _KINDS[kind](*values)


def jobs(packs: Iterable[Packed]) -> tuple[JobRecord, ...]:
    """The jobs among the events that were packed, in their order."""
    return tuple(JobRecord._make(pack[1:]) for pack in packs if pack[0] == _JOB)
