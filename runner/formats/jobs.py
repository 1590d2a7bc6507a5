"""How many jobs a task has, where a file only says how long the set runs, or nothing at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.errors import UsageError
from runner.formats.notes import Note
from runner.model import Task
from runner.units import MAX_TIME_NS, NS_PER_US, written_ns

# One hyperperiod of more than that is nobody's idea of a default.
MAX_ASSUMED_JOBS = 100_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user adds to a file that does not say it.

    Attributes:
        unit_ns: What a plain number of SchedCAT's counts, in nanoseconds.
        duration_ns: How long a set runs where its file does not say so; None: one hyperperiod.
    """

    unit_ns: int = NS_PER_US
    duration_ns: int | None = None


def n_released(task: Task, duration_ns: int) -> int:
    """How many jobs are released before `duration_ns`; one for a one-shot task.

    Raises:
        UsageError: none is.
    """
    if task.offset_ns >= duration_ns:
        raise UsageError(
            f"task {task.name!r} is released first after {written_ns(task.offset_ns)}, when the set is over"
            f" ({written_ns(duration_ns)})",
            next_step="leave the task out, or run the set for longer",
        )
    return 1 if task.period_ns is None else -((task.offset_ns - duration_ns) // task.period_ns)


def released_within(tasks: Sequence[Task], duration_ns: int) -> tuple[Task, ...]:
    """The tasks, each with all its jobs that are released before `duration_ns`.

    Raises:
        UsageError: one has none, or too many.
    """
    return tuple(replace(task, n_jobs=n_released(task, duration_ns)) for task in tasks)


def released_by_default(
    tasks: Sequence[Task], options: Options, where: str
) -> tuple[tuple[Task, ...], tuple[Note, ...]]:
    """The tasks of a file that does not say how long, with the jobs of `options.duration_ns` or one hyperperiod; the note that says so.

    Raises:
        UsageError: the hyperperiod is beyond what anybody would want by default.
    """
    if options.duration_ns is not None:
        return released_within(tasks, options.duration_ns), ()
    periods_ns = [task.period_ns for task in tasks if task.period_ns is not None]
    duration_ns = max(task.offset_ns for task in tasks) + math.lcm(*periods_ns)
    if duration_ns > MAX_TIME_NS or duration_ns // min(periods_ns, default=1) > MAX_ASSUMED_JOBS:
        raise UsageError(
            f"the file does not say how long the set runs, and its hyperperiod has more than {MAX_ASSUMED_JOBS} jobs of one task",
            where=where,
            next_step="say how long: --duration 10s, or tasksets.duration=10s",
        )
    what = f"the file does not say how long the set runs: one hyperperiod, {written_ns(duration_ns)}"
    return released_within(tasks, duration_ns), (Note(where, what, lost=False),)
