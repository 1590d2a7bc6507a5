"""One attempt at a task set: what monitors and queue are told of it, whatever becomes of it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runner.errors import (
    DisturbedError,
    Fault,
    GuestDied,
    HostShortage,
    InfrastructureError,
    MachineKilled,
    RunnerError,
    TaskSetError,
)
from runner.events import REPEATABLE, Event, Outcome, Run, RunResult, Validity
from runner.faults.evidence import MAX_EVENTS, EvidenceStore
from runner.monitors.channel import MonitorChannel
from runner.queue.jobs import JobQueue
from runner.queue.lease import Lease
from runner.specs import MachinePolicy

#: Makes the result of an attempt, and notes what happens meanwhile.
Produce = Callable[[Run, deque[Event]], RunResult]


@dataclass(frozen=True)
class Failure:
    """Why an attempt came to nothing through no fault of the experiment's.

    Attributes:
        run: The attempt.
        channel: Who hears of it.
        error: What was raised.
        fault: Whose doing it is, in the light of all attempts.
        evidence: What was kept of the set, if it was given up.
    """

    run: Run
    channel: MonitorChannel
    error: RunnerError
    fault: Fault
    evidence: Path | None = None


class Attempts:
    """The attempts of one machine.

    Guarantees: each lease goes back to the queue exactly once, as done or not, and the monitors were told before.
    Threads: for the machine's own.

    Args:
        on_start: Called when an attempt begins.
        killed: Why the machine was killed; None if it was not.
        logs: Files that say something about the machine's guests.
    """

    def __init__(
        self,
        queue: JobQueue,
        policy: MachinePolicy,
        log: logging.Logger,
        *,
        on_start: Callable[[Lease], None],
        killed: Callable[[], MachineKilled | None],
        evidence: EvidenceStore | None,
        logs: tuple[Path, ...],
    ) -> None:
        self._queue = queue
        self._policy = policy
        self._log = log
        self._on_start = on_start
        self._killed = killed
        self._evidence = evidence
        self._logs = logs
        #: Task sets that were measured.
        self.n_done = 0

    def make(self, lease: Lease, run: Run, produce: Produce) -> Failure | None:
        """Make one; None where it was measured, or its failure is not for the machine to recover from.

        Raises:
            MachineKilled: the machine was killed.
            RunnerError: what no further attempt can help against.
        """
        started_s = time.monotonic()
        events: deque[Event] = deque(maxlen=MAX_EVENTS)
        error: RunnerError = InfrastructureError("the machine's thread ended because of a bug")
        failed = RunResult(outcome=Outcome.INFRA_ERROR)
        result: RunResult | None = None
        failure: Failure | None = None
        try:
            self._on_start(lease)
            lease.job.channel.start(run)
            measured = produce(run, events)
            may_repeat = lease.tries.n_disturbed + 1 < self._policy.max_tries
            if measured.validity is Validity.DISTURBED and may_repeat:
                failed = replace(measured, outcome=Outcome.DISTURBED, jobs=())
                raise DisturbedError(f"the host disturbed the measurement: {measured.error}")
            result = measured
            lease.job.channel.finish(run, result)
        except RunnerError as exc:
            # Whatever breaks in a kill was broken by it, and says nothing about the set.
            error = self._killed() or exc
            if isinstance(error, MachineKilled):
                failed = replace(failed, outcome=Outcome.ABORTED)
            elif isinstance(error, GuestDied):
                failed = replace(failed, outcome=Outcome.GUEST_CRASH)
            if isinstance(error, InfrastructureError | HostShortage):
                fault = lease.queue.blame(lease, error) or Fault.GUEST
                failure = Failure(run, lease.job.channel, error, fault)
            elif not isinstance(error, TaskSetError | DisturbedError):
                raise error from exc.__cause__
        finally:
            if result is not None:
                self._end_well(lease, run, result)
            else:
                failed = replace(failed, wall_s=time.monotonic() - started_s, error=str(error))
                kept = self._give_back(lease, run, error, failed, events)
                failure = replace(failure, evidence=kept) if failure is not None else None
        return failure

    def _end_well(self, lease: Lease, run: Run, result: RunResult) -> None:
        table = result.table_sha256 if result.validity in REPEATABLE else None
        error = lease.queue.compare(lease, table, identity=run.identity)
        if error is None:
            self.n_done += 1
            self._queue.done(lease, result)
        else:
            self._give_back(lease, run, error, None, ())

    def _give_back(
        self,
        lease: Lease,
        run: Run,
        error: RunnerError,
        failed: RunResult | None,
        events: deque[Event] | tuple[()],
    ) -> Path | None:
        """End a lease without success; `failed` is what monitors are told of an attempt whose end they do not know yet."""
        charged = failed is None or failed.outcome is not Outcome.ABORTED
        bad = lease.queue.would_be_bad(lease, error, charged=charged)
        kept = None
        try:
            if bad and self._evidence is not None:
                kept = self._evidence.keep(run, error, logs=self._logs, events=tuple(events))
            # The monitors are told before the queue is: once it is drained, the run ends.
            if failed is not None:
                lease.job.channel.stop(run, failed)
            if bad:
                lease.job.channel.bad(run, error)
        finally:
            self._queue.give_back(lease, error, charged=charged)
        taskset = lease.taskset
        self._log.log(
            logging.WARNING if charged else logging.INFO,
            "task set %s (%s), try %d on %s: %s: %s",
            taskset.name,
            taskset.taskset_id,
            lease.attempt,
            run.machine,
            "given up" if bad else "goes back",
            error,
        )
        return kept
