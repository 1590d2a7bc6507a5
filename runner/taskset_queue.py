"""Which task set of a job runs next, how often, and what has become of it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from runner.errors import RunnerError, TaskSetError, UnrepeatableError, UsageError
from runner.model import TaskSet, TaskSetSource
from runner.monitors.channel import MonitorChannel


@dataclass(frozen=True)
class Job:
    """What `add_job` was given: task sets, who is told about them, and how their sessions are to be set up."""

    source: TaskSetSource
    channel: MonitorChannel
    session_parameters: tuple[Any, ...] = ()


class _Series:
    """All measurements of one set that are still to come or under way; dropped with the last of them."""

    def __init__(self, taskset: TaskSet, repeat: int) -> None:
        self.taskset = taskset
        # Repetitions that were never handed out.
        self.n_fresh = repeat
        self.n_missing = repeat
        # Identity -> the repetition that was first to end, and its table, which all others must equal.
        self.tables: dict[str | None, tuple[int, str]] = {}
        # The lease that makes the set bad; from then on nothing that the others come to counts.
        self.given_up_by: Lease | None = None


@dataclass(frozen=True, eq=False)
class Lease:
    """One measurement of one task set in the hands of one machine; goes back to its queue exactly once.

    Attributes:
        job: The job that it belongs to.
        taskset: What to run.
        repetition: Which of the measurements of that set: 1 … the queue's `repeat`.
        attempt: 1 for the first try at this repetition.
    """

    job: Job
    taskset: TaskSet
    repetition: int
    attempt: int
    queue: TaskSetQueue = field(repr=False)
    series: _Series = field(repr=False)


class TaskSetQueue:
    """Hand the task sets of one job out to machines; every set ends as done or as bad, exactly once.

    Guarantees: each set is leased `repeat` times, to several machines at once where they ask for it, and is done when all of
    these measurements are; a measurement is leased to one machine at a time. One that was given back comes first when the next
    is asked for; after `max_tries` charged attempts its set is bad, and further measurements of it count for nothing. Sets are
    drawn from the source one by one, when they are needed: it may be endless. Sets that have ended take no memory.
    Threads: every method may be called from any thread; none blocks, but for the source's own computing.
    """

    def __init__(self, job: Job, *, max_tries: int = 3, repeat: int = 1) -> None:
        if max_tries < 1:
            raise UsageError(f"max_tries is {max_tries}, must be 1 or more", where="machines.max_tries")
        if repeat < 1:
            raise UsageError(f"repeat is {repeat}, must be 1 or more", where="repeat")
        self.job = job
        self.max_tries = max_tries
        self.repeat = repeat
        self.n_total = job.source.n_variants
        self.n_done = 0
        self.n_bad = 0
        #: What the source raised; what else it would have yielded is not known then.
        self.error: Exception | None = None
        self._variants = job.source.variants()
        self._n_drawn = 0
        self._exhausted = self.n_total == 0
        # The set that was drawn last, while some of its repetitions were never handed out.
        self._current: _Series | None = None
        # What was given back: series, repetition, next attempt.
        self._again: deque[tuple[_Series, int, int]] = deque()
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()

    @property
    def n_running(self) -> int:
        """Measurements that are leased now."""
        return len(self._leases)

    @property
    def n_left(self) -> int | None:
        """Measurements that wait to be handed out; None while that is not known."""
        with self._lock:
            if self._exhausted:
                return self._n_waiting
            if self.n_total is None:
                return None
            return max(0, self.n_total - self._n_drawn) * self.repeat + self._n_waiting

    @property
    def _n_waiting(self) -> int:
        return len(self._again) + (self._current.n_fresh if self._current is not None else 0)

    @property
    def drained(self) -> bool:
        """Whether every set is done or bad: nothing is left, and no lease is out that could come back."""
        with self._lock:
            return self._exhausted and not self._n_waiting and not self._leases

    def acquire(self) -> Lease | None:
        """The next measurement, or None if none is at hand (a leased one may still come back: see `drained`).

        Raises:
            Exception: whatever the source raises; it is then exhausted.
        """
        with self._lock:
            if self._again:
                series, repetition, attempt = self._again.popleft()
            else:
                fresh = self._fresh()
                if fresh is None:
                    return None
                series, attempt = fresh, 1
                repetition = self.repeat - series.n_fresh
            lease = Lease(self.job, series.taskset, repetition, attempt, self, series)
            self._leases.add(lease)
            return lease

    def _fresh(self) -> _Series | None:
        """The set whose next repetition is handed out for the first time."""
        series = self._current
        if series is None:
            taskset = self._draw()
            if taskset is None:
                return None
            series = self._current = _Series(taskset, self.repeat)
        series.n_fresh -= 1
        if not series.n_fresh:
            self._current = None
        return series

    def _draw(self) -> TaskSet | None:
        if self._exhausted:
            return None
        self._exhausted = True  # unless the source has one more: also right when it raises
        try:
            taskset = next(self._variants, None)
        except Exception as exc:
            self.error = exc
            raise
        if taskset is None:
            self.n_total = self._n_drawn
        else:
            self._n_drawn += 1
            self._exhausted = self._n_drawn == self.n_total
        return taskset

    def compare(
        self, lease: Lease, table_sha256: str | None, *, identity: str | None = None
    ) -> UnrepeatableError | None:
        """The error to give the lease back with, if its job table is not that of the set's other repetitions.

        Call it before `done()`. A table without a digest is never compared, nor one of a set that is bad already.

        Args:
            identity: Only tables of the same identity are to be equal: on a guest that runs many sets in a row, each repetition
                has another.
        """
        with self._lock:
            series = lease.series
            if table_sha256 is None or series.given_up_by is not None:
                return None
            first = series.tables.setdefault(identity, (lease.repetition, table_sha256))
        repetition, first_sha256 = first
        if table_sha256 == first_sha256:
            return None
        return UnrepeatableError(
            f"task set {lease.taskset.taskset_id} does not repeat: repetitions {repetition} and {lease.repetition} gave"
            f" different job tables (SHA-256 {first_sha256} and {table_sha256})",
            next_step="look for what reaches the guest besides the task set: a workload that reads a clock of its own or random"
            " numbers, an own session; if both tables come from workloads of this package, report it with the run folder",
        )

    def done(self, lease: Lease) -> None:
        """The measurement was made."""
        with self._lock:
            self._end(lease)
            lease.series.n_missing -= 1
            if not lease.series.n_missing and lease.series.given_up_by is None:
                self.n_done += 1

    def give_back(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> bool:
        """The measurement was not made; returns whether its set is given up as bad, which `TaskSetError` means at once.

        Args:
            charged: Whether the attempt counts; an operator's kill does not.
        """
        with self._lock:
            self._end(lease)
            series = lease.series
            if self._gives_up(lease, error, charged):
                self.n_bad += 1
                self._again = deque(one for one in self._again if one[0] is not series)
                if self._current is series:
                    self._current = None
                return True
            if series.given_up_by is lease:
                series.given_up_by = None  # asked about another error than came in the end
            if series.given_up_by is None:
                self._again.append((series, lease.repetition, lease.attempt + charged))
            return False

    def would_be_bad(self, lease: Lease, error: RunnerError, *, charged: bool) -> bool:
        """Whether `give_back` with these arguments gives the set up; it should follow.

        Until then no other lease of the set is told True: a set's end is told once.
        """
        with self._lock:
            return self._gives_up(lease, error, charged)

    def _gives_up(self, lease: Lease, error: RunnerError, charged: bool) -> bool:
        if not isinstance(error, TaskSetError) and not (charged and lease.attempt >= self.max_tries):
            return False
        series = lease.series
        series.given_up_by = series.given_up_by or lease
        return series.given_up_by is lease

    def _end(self, lease: Lease) -> None:
        try:
            self._leases.remove(lease)
        except KeyError:
            raise UsageError(
                f"task set {lease.taskset.taskset_id} (repetition {lease.repetition}, try {lease.attempt}) is not leased",
                next_step="end a lease once, with done() or give_back()",
            ) from None
