"""The coordinator's side of one worker: what is leased to it, and what comes back."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from runner.cluster.checks import Checks, Held
from runner.cluster.messages import Assignment, Order, Reply, Report, bare
from runner.cluster.reports import replayed, run_of
from runner.cluster.shares import Seat
from runner.errors import InfrastructureError, MachineKilled
from runner.events import Run
from runner.faults.evidence import EvidenceStore
from runner.faults.incidents import Incident
from runner.faults.recovery import Recovery
from runner.fleet import MachineState
from runner.machines.attempt import Attempts
from runner.monitors.channel import MonitorChannel
from runner.queue.jobs import JobQueue
from runner.queue.lease import Lease
from runner.specs import MachinePolicy

#: How long a worker collects what it reports, and so how long an order may take to get there.
POLL_S = 0.5
#: How often a worker is asked what each of its machines is doing.
SURVEY_S = 0.5
#: Task sets that wait at a worker for each of its machines: at least, and at most however fast they are.
MIN_AHEAD, MAX_AHEAD = 2, 128
#: And in all, where that is more than the least for its machines: a coordinator that is slow is helped by no more.
MAX_LEASES = 1024

_log = logging.getLogger("runner.cluster")


class WorkerLost(InfrastructureError):
    """A worker does not answer any more."""


#: One round to a worker and back.
Exchange = Callable[[Order], Reply]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the links of a fleet work with.

    Attributes:
        queue: Where task sets come from, and go back to.
        policy: How patient the queue is.
        evidence: Where to keep what is known of sets that are given up.
        on_change: Called, without a lock, when there is something new to see or to do.
        on_error: Called with what must end the run.
        on_incident: Called with each fault.
    """

    queue: JobQueue
    policy: MachinePolicy
    evidence: EvidenceStore | None
    on_change: Callable[[], None]
    on_error: Callable[[Exception], None]
    on_incident: Callable[[Incident, MonitorChannel | None], None]


class Link(threading.Thread):
    """Keeps one worker supplied, and hands what it reports to queue and monitors.

    Guarantees: each lease goes back to the queue exactly once: as its report says, or uncharged when the worker is lost or has
    closed its fleet. A report of a lease that is not out (any more) is dropped.
    Memory: at most `MAX_AHEAD` sets for each machine, `MAX_LEASES` in all.
    Threads: everything but `run` is for any thread.

    Attributes:
        seat: Where the worker is, and what it can hold.
        machines: What its machines were doing when it answered last.
        recoveries: How often each step was taken there.
        error: Why it is of no use any more; None while it is.
    """

    def __init__(
        self,
        seat: Seat,
        exchange: Exchange,
        hooks: Hooks,
        *,
        checks: Checks,
        on_end: Callable[[Link], None],
    ) -> None:
        super().__init__(name=f"worker-{seat.worker}")
        self.seat = seat
        self.machines: tuple[MachineState, ...] = ()
        self.recoveries: Mapping[Recovery, int] = {}
        self.error: Exception | None = None
        self._exchange = exchange
        self._hooks = hooks
        self._checks = checks
        self._on_end = on_end
        self._changed = threading.Condition()
        self._n_machines = 0
        self._paused = self._kill = self._ending = False
        # What of the worker has to be waited for: its fleet, or leases.
        self._open = False
        self._leases: dict[int, Lease | Held] = {}
        self._numbers = itertools.count(1)
        self._ahead = MIN_AHEAD
        self._survey_due_s = 0.0
        # Whether there was nothing to lease when there was room for it.
        self._hungry = False
        self._attempts = Attempts(
            hooks.queue,
            hooks.policy,
            _log,
            on_start=lambda lease: None,
            killed=lambda: None,
            evidence=hooks.evidence,
            logs=(),
        )

    def want(self, n_machines: int, *, paused: bool, kill: bool = False) -> None:
        """What the worker is to have from now on."""
        with self._changed:
            self._n_machines, self._paused, self._kill = n_machines, paused, kill
            self._changed.notify_all()

    def leave(self) -> None:
        """Nothing more is wanted of it: end the thread when its machines have ended."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    @property
    def at_work(self) -> bool:
        """Whether it has, or may have, machines or leases."""
        return self._open or bool(self._leases)

    def run(self) -> None:
        """The thread; `start()` calls it."""
        try:
            self._keep_supplied()
        except WorkerLost as exc:
            self.error = exc
        except Exception as exc:  # noqa: BLE001 - the thread's top: the fleet raises it in the main thread
            self.error = exc
            self._hooks.on_error(exc)
        finally:
            self._open, self.machines = False, ()
            self._on_end(self)

    def _keep_supplied(self) -> None:
        try:
            while self._await_something():
                self._round()
        finally:
            self._checks.leave(self.seat.worker)
            self._release(f"worker {self.seat.worker} is gone")
            self._settle_checks()

    def _await_something(self) -> bool:
        """Wait until the worker is wanted, or has to be heard; False when neither will be."""
        with self._changed:
            while not (self.at_work or self._wanted):
                if self._ending:
                    return False
                self._changed.wait()
        return True

    @property
    def _wanted(self) -> bool:
        return bool(self._n_machines) and not (self._kill or self._ending or self._hooks.queue.drained)

    def _round(self) -> None:
        with self._changed:
            wanted = self._n_machines if self._wanted else 0
            paused, kill = self._paused, self._kill
            self._open = True  # from here on there may be a fleet
        batch = self._lease(wanted) if wanted and not paused and not kill else ()
        survey = not wanted or time.monotonic() >= self._survey_due_s
        wait_s = 0.0 if kill else POLL_S
        order = Order(n_machines=wanted, paused=paused, kill=kill, batch=batch, wait_s=wait_s, survey=survey)
        reply = self._exchange(order)
        if survey:
            self._survey_due_s = time.monotonic() + SURVEY_S
        self._take(reply)

    def _lease(self, n_machines: int) -> tuple[Assignment, ...]:
        most = min(self._ahead * n_machines, max(MIN_AHEAD * n_machines, MAX_LEASES))
        room = most - len(self._leases)
        if room < max(1, most // 4):  # a batch is worth the way only if it is one
            return ()
        batch: list[Assignment] = []
        while len(batch) < room and (work := self._next()) is not None:
            lease = work.lease if isinstance(work, Held) else work
            parameters = lease.job.session_parameters
            if batch and parameters != batch[0].session_parameters:
                # Sessions are set up by batch: this one begins the next.
                self._give_back(work, "not sent")
                break
            number = next(self._numbers)
            self._leases[number] = work
            batch.append(Assignment(number, bare(lease.taskset), parameters))
        return tuple(batch)

    def _next(self) -> Lease | Held | None:
        held = self._checks.take(self.seat.worker)
        if held is not None or self._checks.full:
            return held
        lease = self._hooks.queue.try_acquire()
        self._hungry = lease is None
        return lease

    def _take(self, reply: Reply) -> None:
        for report in reply.reports:
            work = self._leases.pop(report.number, None)
            if work is not None:
                self._heard(work, report)
        for incident in reply.incidents:
            machine = f"{self.seat.worker}.{incident.machine}"
            # Numbers of set and submission are those of the worker's own fleet.
            told = replace(incident, machine=machine, submission=None, set_idx=None, evidence="")
            self._hooks.on_incident(told, None)
        if not reply.open:
            self._release(f"worker {self.seat.worker} ended its machines")
        self._settle_checks()
        changed = self._survey(reply) or self._open != reply.open or self._hooks.queue.drained
        changed = changed or any(report.error is not None for report in reply.reports)
        waited_for = len(reply.reports) * 2 // max(1, self._n_machines)
        self._ahead = max(MIN_AHEAD, min(MAX_AHEAD, waited_for, self._ahead * 2))
        with self._changed:
            self._open = reply.open
        if reply.error is not None:
            raise WorkerLost(
                f"worker {self.seat.worker} gave up: {reply.error}",
                where=self.seat.computer,
                next_step="what it says is about that computer; the others go on",
            ) from reply.error
        if changed:
            self._hooks.on_change()

    def _survey(self, reply: Reply) -> bool:
        """Take down what the machines are doing; whether that is news."""
        before = self.machines
        if reply.recoveries is not None:
            self.recoveries = reply.recoveries
        if reply.machines is not None:
            self.machines = tuple(
                replace(one, name=f"{self.seat.worker}.{one.name}") for one in reply.machines
            )
        return self.machines != before

    def _heard(self, work: Lease | Held, report: Report) -> None:
        if isinstance(work, Held):
            self._compare(work, report)
            return
        run = run_of(work, report, self.seat.worker)
        if self._checks.wants(work, report):
            settle = partial(self._settle, work, run, report)
            self._checks.hold(
                Held(lease=work, run=run, report=report, worker=self.seat.worker, settle=settle)
            )
        else:
            self._settle(work, run, report)

    def _settle(self, lease: Lease, run: Run, report: Report) -> None:
        """Have queue and monitors hear of it as of an attempt that was made here."""
        with suppress(MachineKilled):  # it went back uncharged
            self._attempts.make(lease, run, partial(replayed, lease, report))

    def _compare(self, held: Held, report: Report) -> None:
        run = run_of(held.lease, report, self.seat.worker)
        error = self._checks.compare(held, run, report, self._hooks.evidence)
        if error is not None:
            self._hooks.on_error(error)
            self._give_back(held.lease, error.what)

    def _settle_checks(self) -> None:
        """See to the results that wait for a second worker in vain."""
        self._checks.settle_alone(hungry=self._hungry)
        for lease in self._checks.dropped():
            self._give_back(lease, "two workers do not agree")

    def _release(self, why: str) -> None:
        """Give back, uncharged, all that is leased."""
        leases, self._leases = list(self._leases.values()), {}
        for work in leases:
            self._give_back(work, why)
        if leases:
            _log.info("%s: %d task sets go back", why, len(leases))

    def _give_back(self, work: Lease | Held, why: str) -> None:
        """It was not measured, and that is nobody's fault."""
        if isinstance(work, Held):
            self._checks.give_back(work)
        else:
            self._hooks.queue.give_back(work, InfrastructureError(why), charged=False)
