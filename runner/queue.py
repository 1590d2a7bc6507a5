"""Which task set runs next: the sets of one job, and the jobs in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from runner.errors import RunnerError, TaskSetError, UsageError
from runner.model import TaskSet, TaskSetSource
from runner.monitors.channel import MonitorChannel


@dataclass(frozen=True)
class Job:
    """What `add_job` was given: task sets, who is told about them, and how their sessions are to be set up."""

    source: TaskSetSource
    channel: MonitorChannel
    session_parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Lease:
    """One task set in the hands of one machine; goes back to its queue exactly once.

    Attributes:
        job: The job that it belongs to.
        taskset: What to run.
        attempt: 1 for the first try.
    """

    job: Job
    taskset: TaskSet
    attempt: int
    queue: TaskSetQueue = field(repr=False)


class TaskSetQueue:
    """Hand the task sets of one job out to machines; every set ends as done or as bad, exactly once.

    Guarantees: a set is leased to one machine at a time. A set that was given back comes first when the next one is
    asked for; after `max_tries` charged attempts it is bad. Sets are drawn from the source one by one, when they are needed:
    it may be endless.
    Threads: every method may be called from any thread; none blocks, but for the source's own computing.
    """

    def __init__(self, job: Job, *, max_tries: int = 3) -> None:
        if max_tries < 1:
            raise UsageError(f"max_tries is {max_tries}, must be 1 or more", where="machines.max_tries")
        self.job = job
        self.max_tries = max_tries
        self.n_total = job.source.n_variants
        self.n_done = 0
        self.n_bad = 0
        #: What the source raised; what else it would have yielded is not known then.
        self.error: Exception | None = None
        self._variants = job.source.variants()
        self._n_drawn = 0
        self._exhausted = self.n_total == 0
        self._again: deque[tuple[TaskSet, int]] = deque()
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()

    @property
    def n_running(self) -> int:
        """Sets that are leased now."""
        return len(self._leases)

    @property
    def n_left(self) -> int | None:
        """Sets that are neither done nor bad nor leased; None while that is not known."""
        with self._lock:
            if self._exhausted:
                return len(self._again)
            if self.n_total is None:
                return None
            return max(0, self.n_total - self.n_done - self.n_bad - len(self._leases))

    @property
    def drained(self) -> bool:
        """Whether every set is done or bad: nothing is left, and no lease is out that could come back."""
        with self._lock:
            return self._exhausted and not self._again and not self._leases

    def acquire(self) -> Lease | None:
        """The next set, or None if none is at hand (a leased one may still come back: see `drained`).

        Raises:
            Exception: whatever the source raises; it is then exhausted.
        """
        with self._lock:
            if self._again:
                taskset, attempt = self._again.popleft()
            else:
                drawn = self._draw()
                if drawn is None:
                    return None
                taskset, attempt = drawn, 1
            lease = Lease(self.job, taskset, attempt, self)
            self._leases.add(lease)
            return lease

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

    def done(self, lease: Lease) -> None:
        """The set was measured."""
        with self._lock:
            self._end(lease)
            self.n_done += 1

    def give_back(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> bool:
        """The set was not measured; returns whether it is given up as bad, which `TaskSetError` means at once.

        Args:
            charged: Whether the attempt counts; an operator's kill does not.
        """
        with self._lock:
            self._end(lease)
            if self.would_be_bad(lease, error, charged=charged):
                self.n_bad += 1
                return True
            self._again.append((lease.taskset, lease.attempt + charged))
            return False

    def would_be_bad(self, lease: Lease, error: RunnerError, *, charged: bool) -> bool:
        """Whether `give_back` with these arguments gives the set up."""
        return isinstance(error, TaskSetError) or (charged and lease.attempt >= self.max_tries)

    def _end(self, lease: Lease) -> None:
        try:
            self._leases.remove(lease)
        except KeyError:
            raise UsageError(
                f"task set {lease.taskset.taskset_id} (try {lease.attempt}) is not leased",
                next_step="end a lease once, with done() or give_back()",
            ) from None


class JobQueue:
    """The jobs in the order in which they were added, seen by machines as one stream of task sets.

    Threads: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._queues: list[TaskSetQueue] = []
        self._changed = threading.Condition()
        self._held = False

    def add(self, queue: TaskSetQueue) -> None:
        """Append a job."""
        with self._changed:
            self._queues.append(queue)
            self._changed.notify_all()

    def hold(self) -> None:
        """Hand nothing out until `release()`; what is leased is not touched."""
        with self._changed:
            self._held = True
            self._changed.notify_all()

    def release(self) -> None:
        """Hand task sets out (again)."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wake(self) -> None:
        """Have every waiting machine look again at whether it is wanted."""
        with self._changed:
            self._changed.notify_all()

    def try_acquire(self) -> Lease | None:
        """A task set if one is at hand now."""
        with self._changed:
            return None if self._held else self._next()

    def acquire(self, wanted: Callable[[], bool]) -> Lease | None:
        """Wait for a task set; None when all are done or bad, or the caller is not wanted any more.

        A machine waits even if nothing is left to hand out, as long as another machine might give a set back.
        """
        with self._changed:
            while wanted():
                if not self._held:
                    lease = self._next()
                    if lease is not None or self.drained:
                        return lease
                self._changed.wait()
            return None

    def _next(self) -> Lease | None:
        for queue in self._queues:
            lease = queue.acquire()
            if lease is not None:
                return lease
        return None

    def done(self, lease: Lease) -> None:
        """End a lease: measured."""
        lease.queue.done(lease)
        self.wake()

    def give_back(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> bool:
        """End a lease: not measured. Returns whether the set is given up."""
        bad = lease.queue.give_back(lease, error, charged=charged)
        self.wake()
        return bad

    @property
    def drained(self) -> bool:
        """Whether every set of every job is done or bad."""
        return all(queue.drained for queue in self._queues)

    @property
    def error(self) -> Exception | None:
        """What the first source that failed raised."""
        return next((queue.error for queue in self._queues if queue.error is not None), None)

    @property
    def n_left(self) -> int | None:
        """Sets that wait to be handed out; None while that is not known."""
        return _sum_known(queue.n_left for queue in self._queues)

    @property
    def n_total(self) -> int | None:
        """Sets of all jobs; None while that is not known."""
        return _sum_known(queue.n_total for queue in self._queues)

    @property
    def n_done(self) -> int:
        """Sets measured so far."""
        return sum(queue.n_done for queue in self._queues)

    @property
    def n_bad(self) -> int:
        """Sets given up so far."""
        return sum(queue.n_bad for queue in self._queues)

    @property
    def n_running(self) -> int:
        """Sets leased now."""
        return sum(queue.n_running for queue in self._queues)


def _sum_known(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
