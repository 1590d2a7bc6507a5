"""Which task set runs next: the jobs in their order, seen as one stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from runner.errors import RunnerError
from runner.events import RunResult
from runner.queue.lease import Job, Lease
from runner.queue.taskset_queue import TaskSetQueue
from runner.specs import MachinePolicy

__all__ = ["Job", "JobQueue", "Lease", "TaskSetQueue"]


class JobQueue:
    """The jobs in the order in which they were added, seen by machines as one stream of task sets.

    Jobs that have ended take no memory. Threads: every method may be called from any thread.

    Args:
        standby: Whether there is always more to come, so that machines wait for it.
    """

    def __init__(self, *, standby: bool = False) -> None:
        self._queues: list[TaskSetQueue] = []
        self._standby = standby
        # Sets of jobs that have ended, and were dropped.
        self._n_done = self._n_bad = 0
        self._changed = threading.Condition()
        self._held = False

    def add(self, queue: TaskSetQueue) -> None:
        """Append a job."""
        with self._changed:
            ended = [one for one in self._queues if one.drained and one.error is None]
            self._n_done += sum(one.n_done for one in ended)
            self._n_bad += sum(one.n_bad for one in ended)
            self._queues = [*(one for one in self._queues if one not in ended), queue]
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
                self._changed.wait(None if self._held else self._pause_s())
            return None

    def _pause_s(self) -> float | None:
        """Seconds until what waits for this computer to recover may be tried again; None if nothing does."""
        return min(
            (pause_s for queue in self._queues if (pause_s := queue.pause_s) is not None), default=None
        )

    def _next(self) -> Lease | None:
        for queue in self._queues:
            lease = queue.acquire()
            if lease is not None:
                return lease
        return None

    def done(self, lease: Lease, result: RunResult | None = None) -> None:
        """End a lease: measured, with that result."""
        lease.queue.done(lease, result)
        self.wake()

    def give_back(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> bool:
        """End a lease: not measured. Returns whether the set is given up."""
        bad = lease.queue.give_back(lease, error, charged=charged)
        self.wake()
        return bad

    @property
    def drained(self) -> bool:
        """Whether every set of every job is done or bad."""
        return not self._standby and all(queue.drained for queue in self._queues)

    @property
    def error(self) -> Exception | None:
        """What the first source that failed raised."""
        return next((queue.error for queue in self._queues if queue.error is not None), None)

    @property
    def n_left(self) -> int | None:
        """Measurements that wait to be handed out; None while that is not known."""
        return _sum_known(queue.n_left for queue in self._queues)

    @property
    def n_total(self) -> int | None:
        """Sets of all jobs; None while that is not known."""
        n_total = _sum_known(queue.n_total for queue in self._queues)
        return None if n_total is None else n_total + self._n_done + self._n_bad

    @property
    def n_done(self) -> int:
        """Sets measured so far."""
        return self._n_done + sum(queue.n_done for queue in self._queues)

    @property
    def n_bad(self) -> int:
        """Sets given up so far."""
        return self._n_bad + sum(queue.n_bad for queue in self._queues)

    @property
    def n_running(self) -> int:
        """Measurements leased now."""
        return sum(queue.n_running for queue in self._queues)


def queue_of(job: Job, policy: MachinePolicy, *, repeat: int) -> TaskSetQueue:
    """The job's own queue, as patient as machines are."""
    return TaskSetQueue(
        job,
        max_tries=policy.max_tries,
        max_guest_tries=policy.max_guest_tries,
        max_host_tries=policy.max_host_tries,
        repeat=repeat,
    )


def _sum_known(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
