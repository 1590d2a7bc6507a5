"""Which task set of a job runs next, how often, and what has become of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runner.data.progress import KnownSet, Progress, other_set
from runner.errors import Fault, RunnerError, TaskSetError, UnrepeatableError, UsageError
from runner.events import RunResult
from runner.faults.tries import Experience, Others
from runner.model import TaskSet
from runner.queue.lease import Job, Lease, Series
from runner.queue.retries import Retries, Retry
from runner.queue.supply import Supply
from runner.submission import Submission


class TaskSetQueue:
    """Hand the task sets of one job out to machines; every set ends as done or as bad, exactly once.

    Guarantees: each set is leased `repeat` times, to several machines at once where they ask for it, and is done when all of
    these measurements are; a measurement is leased to one machine at a time. One that was given back comes first when the next
    is asked for; but if its guest failed, others go first until one is measured, and if this computer did, it waits for a while. After as
    many charged attempts as the kind of failure allows its set is bad, and further measurements of it count for nothing. Sets are
    drawn from the source one by one, when they are needed: it may be endless. Sets that have ended take no memory. What an
    earlier runner has ended (the job's `progress`) is not handed out again. An adaptive source is told the verdict on each of its
    sets, also of those that an earlier runner has ended; until it has more sets, machines wait.
    Threads: every method may be called from any thread; none blocks, but for the source's own computing.
    """

    def __init__(
        self,
        job: Job,
        *,
        max_tries: int = 3,
        max_guest_tries: int = 5,
        max_host_tries: int = 10,
        repeat: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_tries < 1:
            raise UsageError(f"max_tries is {max_tries}, must be 1 or more", where="machines.max_tries")
        if repeat < 1:
            raise UsageError(f"repeat is {repeat}, must be 1 or more", where="repeat")
        if job.progress is not None:
            job.progress.check_repeat(repeat)
        self.job = job
        self.bounds = {Fault.TASKSET: max_tries, Fault.GUEST: max_guest_tries, Fault.HOST: max_host_tries}
        self.repeat = repeat
        progress = job.progress
        self.n_total = job.source.n_variants
        if self.n_total is None and progress is not None:
            self.n_total = progress.n_total
        self.n_done = 0 if progress is None else progress.n_done
        self.n_bad = 0 if progress is None else progress.n_bad
        #: What the source raised; what else it would have yielded is not known then.
        self.error: Exception | None = None
        self._supply = Supply(job.source)
        # Measurements that an earlier runner has ended, of sets that were not drawn yet.
        self._n_ended_ahead = 0 if progress is None else progress.n_ended
        self._exhausted = self._n_ahead == 0
        self._announced_total = self.n_total
        # The set that was drawn last, while some of its repetitions were never handed out.
        self._current: Series | None = None
        self._clock = clock
        self._again: Retries[Series] = Retries()
        self._experience = Experience()
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
            n_ahead = self._n_ahead
            return None if n_ahead is None else n_ahead + self._n_waiting

    @property
    def _n_ahead(self) -> int | None:
        """Measurements of sets that were not drawn yet; None while that is not known."""
        if self.n_total is None:
            return None
        return max(0, (self.n_total - self._supply.n_drawn) * self.repeat - self._n_ended_ahead)

    @property
    def _n_waiting(self) -> int:
        return len(self._again) + (len(self._current.fresh) if self._current is not None else 0)

    @property
    def drained(self) -> bool:
        """Whether every set is done or bad: nothing is left, and no lease is out that could come back."""
        with self._lock:
            return self._exhausted and not self._n_waiting and not self._leases

    @property
    def submission(self) -> Submission:
        """What others are told of the job."""
        return Submission(
            number=self.job.submission,
            source=type(self.job.source).__name__,
            repeat=self.repeat,
            n_total=self.n_total,
            resumed=None if self.job.progress is None else self.job.progress.number,
        )

    def acquire(self) -> Lease | None:
        """The next measurement, or None if none is at hand (a leased one may still come back: see `drained`).

        Raises:
            Exception: whatever the source raises; it is then exhausted.
            UsageError: the source does not yield the sets that an earlier runner was given.
        """
        with self._lock:
            lease = self._lease()
            news, self._announced_total = self.n_total != self._announced_total, self.n_total
        if news:  # not under the lock: the channel may be full
            self.job.channel.submission(self.submission)
        return lease

    def _lease(self) -> Lease | None:
        retry = self._again.next(self._clock()) or self._first_try() or self._again.next_of_all(self._clock())
        if retry is None:
            return None
        of = retry.of
        lease = Lease(
            self.job, of.taskset, of.set_idx, retry.repetition, retry.attempt, self, of, retry.tries
        )
        self._leases.add(lease)
        return lease

    @property
    def pause_s(self) -> float | None:
        """Seconds until the first of those that came back may be tried again; None if none waits."""
        with self._lock:
            return self._again.pause_s(self._clock())

    def _first_try(self) -> Retry[Series] | None:
        """A measurement that this queue hands out for the first time."""
        while self._current is None:
            set_idx, taskset = self._supply.n_drawn, self._draw()
            if taskset is None:
                return None
            known = None if self.job.progress is None else self._known(self.job.progress, set_idx, taskset)
            series = Series(taskset, set_idx, self.repeat, known)
            if known is not None and known.bad:
                self._supply.tell(set_idx, None)
            elif not series.fresh:
                self._supply.tell(set_idx, series.verdict)
            else:
                self._current = series
        series = self._current
        repetition = series.fresh.pop()
        if not series.fresh:
            self._current = None
        return Retry(series, repetition, *series.past(repetition))

    def _known(self, progress: Progress, set_idx: int, taskset: TaskSet) -> KnownSet | None:
        known = progress.known(set_idx)
        if known is None:
            return None
        if known.taskset_id != taskset.taskset_id:
            self._exhausted = True
            self.error = other_set(progress, set_idx, known.taskset_id, taskset.taskset_id)
            raise self.error
        self._n_ended_ahead -= self.repeat if known.bad else len(known.measured)
        self._exhausted = self._n_ahead == 0
        return known

    def _draw(self) -> TaskSet | None:
        if self._exhausted:
            return None
        self._exhausted = True  # unless the source has one more, or will have: also right when it raises
        try:
            taskset = self._supply.next()
        except Exception as exc:
            self.error = exc
            raise
        if taskset is not None:
            self._exhausted = self._n_ahead == 0
        elif self._supply.ended:
            self.n_total = self._supply.n_drawn
        else:
            self._exhausted = False
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

    def done(self, lease: Lease, result: RunResult | None = None) -> None:
        """The measurement was made; an adaptive source learns from the result."""
        verdict = None
        if self._supply.wants_verdicts and result is not None:
            verdict = result.schedulable(lease.taskset)
        with self._lock:
            self._end(lease)
            self._experience.measured()
            self._again.release()
            lease.series.n_measured += 1
            lease.series.n_missing -= 1
            lease.series.verdicts.append(verdict)
            if not lease.series.n_missing and lease.series.given_up_by is None:
                self.n_done += 1
                self._supply.tell(lease.set_idx, lease.series.verdict)

    def give_back(self, lease: Lease, error: RunnerError, *, charged: bool = True) -> bool:
        """The measurement was not made; returns whether its set is given up as bad, which `TaskSetError` means at once.

        Args:
            charged: Whether the attempt counts; an operator's kill does not.
        """
        with self._lock:
            self._end(lease)
            series = lease.series
            gives_up = self._gives_up(lease, error, charged)
            if charged:
                self._experience.failed(lease.set_idx, error)
            if gives_up:
                self.n_bad += 1
                self._supply.tell(lease.set_idx, None)
                self._again.drop(series)
                if self._current is series:
                    self._current = None
                return True
            if series.given_up_by is lease:
                series.given_up_by = None  # asked about another error than came in the end
            if series.given_up_by is None:
                self._again.add(self._retry(lease, error, charged))
            return False

    def _retry(self, lease: Lease, error: RunnerError, charged: bool) -> Retry[Series]:
        if not charged:
            return Retry(lease.series, lease.repetition, lease.attempt, lease.tries)
        tries = lease.tries.failed(error, self._others(lease))
        return Retry(lease.series, lease.repetition, lease.attempt + 1, tries).after(error, self._clock())

    def blame(self, lease: Lease, error: RunnerError) -> Fault | None:
        """Whose doing it is that the lease's attempt failed, in the light of what else was measured meanwhile."""
        with self._lock:
            return lease.tries.blame(error, self._others(lease))

    def _others(self, lease: Lease) -> Others:
        return self._experience.beside(lease.set_idx, lease.series.n_measured)

    def would_be_bad(self, lease: Lease, error: RunnerError, *, charged: bool) -> bool:
        """Whether `give_back` with these arguments gives the set up; it should follow.

        Until then no other lease of the set is told True: a set's end is told once.
        """
        with self._lock:
            return self._gives_up(lease, error, charged)

    def _gives_up(self, lease: Lease, error: RunnerError, charged: bool) -> bool:
        tries = lease.tries.failed(error, self._others(lease))
        if not isinstance(error, TaskSetError) and not (charged and tries.used_up(self.bounds)):
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
