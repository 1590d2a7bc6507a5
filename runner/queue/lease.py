"""One measurement of one task set, in the hands of one machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.data.progress import KnownSet, Progress
from runner.faults.tries import Tries
from runner.model import TaskSet, TaskSetSource
from runner.model.adaptive import Verdict
from runner.monitors.channel import MonitorChannel

if TYPE_CHECKING:
    from runner.queue.taskset_queue import TaskSetQueue


@dataclass(frozen=True)
class Job:
    """What `add_job` was given: task sets, who is told about them, and how their sessions are to be set up.

    Attributes:
        progress: How far an earlier runner came with them; None for a job of one's own.
    """

    source: TaskSetSource
    channel: MonitorChannel
    session_parameters: tuple[Any, ...] = ()
    submission: int = 1
    progress: Progress | None = None


class Series:
    """All measurements of one set that are still to come or under way; dropped with the last of them."""

    def __init__(self, taskset: TaskSet, set_idx: int, repeat: int, known: KnownSet | None) -> None:
        self.taskset = taskset
        self.set_idx = set_idx
        measured = {} if known is None else known.measured
        self._known = known
        # Repetitions that were never handed out by this queue, the last one first.
        self.fresh = [k for k in range(repeat, 0, -1) if k not in measured]
        self.n_missing = len(self.fresh)
        self.n_measured = 0
        # Identity -> the repetition that was first to end, and its table, which all others must equal.
        self.tables: dict[str | None, tuple[int, str]] = {}
        for repetition, (identity, table_sha256) in measured.items():
            if identity is not None and table_sha256 is not None:
                self.tables.setdefault(identity, (repetition, table_sha256))
        self.verdicts: list[Verdict] = [] if known is None else list(known.verdicts)
        # The lease that makes the set bad; from then on nothing that the others come to counts.
        self.given_up_by: Lease | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether no job missed in any of its measurements; False as soon as one did."""
        if False in self.verdicts:
            return False
        return None if None in self.verdicts else True

    def past(self, repetition: int) -> tuple[int, Tries]:
        """Which attempt at a measurement is the next, and what those of an earlier runner came to."""
        n_failed, tries = (0, Tries())
        if self._known is not None:
            n_failed, tries = self._known.failed.get(repetition, (n_failed, tries))
        return n_failed + 1, tries


@dataclass(frozen=True, eq=False)
class Lease:
    """One measurement of one task set in the hands of one machine; goes back to its queue exactly once.

    Attributes:
        job: The job that it belongs to.
        taskset: What to run.
        set_idx: Its place in its source, from 0.
        repetition: Which of the measurements of that set: 1 … the queue's `repeat`.
        attempt: 1 for the first try at this repetition.
        tries: What the tries before came to.
    """

    job: Job
    taskset: TaskSet
    set_idx: int
    repetition: int
    attempt: int
    queue: TaskSetQueue = field(repr=False)
    series: Series = field(repr=False)
    tries: Tries = field(default_factory=Tries, repr=False)
