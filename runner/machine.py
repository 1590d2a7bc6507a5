"""The life of one host: bring it up, feed it task sets, replace it when it fails."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.deadline import Deadline
from runner.errors import (
    GuestDied,
    InfrastructureError,
    MachineKilled,
    ProtocolError,
    RunnerError,
    TaskSetError,
)
from runner.events import EndEvent, JobEvent, JobRecord, Outcome, RefusedEvent, Run, RunResult, StartEvent
from runner.fleet import MachineState, Phase
from runner.hosts import AbstractHost
from runner.queue import JobQueue, Lease
from runner.sessions.base import AbstractSession
from runner.specs import MachinePolicy
from runner.units import NS_PER_S

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


@dataclass(frozen=True, kw_only=True)
class MachineKind:
    """What the machines of a fleet are made of.

    Attributes:
        open_host: Makes the host of a machine from its name and its folder; None where a session needs no host.
        open_session: Makes the session to that host.
        policy: How patient a machine is.
    """

    open_host: Callable[[str, Path], AbstractHost] | None
    open_session: Callable[[AbstractHost | None], AbstractSession]
    policy: MachinePolicy = field(default_factory=MachinePolicy)


@dataclass(frozen=True)
class _Station:
    """A host that is up, the session to it, and what both say of themselves."""

    host: AbstractHost | None
    session: AbstractSession
    facts: dict[str, str | int | float | None]

    def pause(self) -> None:
        """Stop an idle guest: its virtual time would race, and cost a core of this computer."""
        if self.host is not None:
            self.host.pause()

    def resume(self) -> None:
        """Let it run on."""
        if self.host is not None:
            self.host.resume()


class Machine(threading.Thread):
    """Owns one host and its session, and takes task sets from the queue while there are any and it is wanted.

    Guarantees: when the thread has ended, its host is stopped and its task set has gone back to the queue or is done.
    A host that fails is replaced by a new one; its task set is tried again, here or elsewhere.

    Args:
        name: `qemu1` …, unique in the fleet.
        folder: The machine's own: its log and its host's console.
        on_change: Called, from this thread, whenever `state` has changed.
        on_end: Called last, from this thread, with the machine.
    """

    def __init__(
        self,
        name: str,
        kind: MachineKind,
        queue: JobQueue,
        *,
        folder: Path,
        on_change: Callable[[], None],
        on_end: Callable[[Machine], None],
    ) -> None:
        super().__init__(name=name)
        self._kind = kind
        self._queue = queue
        self._folder = folder
        self._on_change = on_change
        self._on_end = on_end
        self._log = logging.getLogger("runner.machine").getChild(name)
        self._state = MachineState(name, Phase.STARTING)
        self._lock = threading.Lock()
        self._closing = False
        self._left = False
        self._killed: MachineKilled | None = None
        self._host: AbstractHost | None = None
        self._session: AbstractSession | None = None
        self._parameters: tuple[Any, ...] = ()
        # Starts in a row that came to nothing.
        self._failures = 0
        #: Why the machine ended before its work was done; None if it did not.
        self.error: Exception | None = None

    @property
    def state(self) -> MachineState:
        """What the machine is doing."""
        return self._state

    @property
    def closing(self) -> bool:
        """Whether it will end after its present task set."""
        return self._closing or self._killed is not None or self._left

    def close(self) -> None:
        """Finish the present task set, then end. Any thread; returns at once."""
        self._closing = True
        self._queue.wake()

    def reopen(self) -> bool:
        """Take a `close()` back; False when it is too late."""
        with self._lock:
            if self._left or self._killed is not None:
                return False
            self._closing = False
            return True

    def kill(self) -> None:
        """End now; the present task set goes back uncharged. Any thread; returns at once."""
        with self._lock:
            self._killed = self._killed or MachineKilled(f"machine {self.name} was killed by the operator")
            host, session = self._host, self._session
        # The session first: it should hear of the kill before it finds the line dead.
        if session is not None:
            session.abort(self._killed)
        if host is not None:
            host.kill()
        self._queue.wake()

    def run(self) -> None:
        """The thread; `start()` calls it."""
        handler = logging.FileHandler(self._folder / "machine.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        self._log.addHandler(handler)
        phase = Phase.CLOSED
        try:
            self._live()
        except MachineKilled as exc:
            self._log.info("%s", exc)
        except RunnerError as exc:
            self.error, phase = exc, Phase.FAILED
            self._log.info("machine %s gives up: %s", self.name, exc)  # whoever reads `error` tells it
        except Exception as exc:  # noqa: BLE001 - the thread's top: the distributor raises it in the main thread
            self.error, phase = exc, Phase.FAILED
            self._log.exception("machine %s ends because of a bug", self.name)
        finally:
            with self._lock:
                self._left = True
            self._log.removeHandler(handler)
            handler.close()
            try:
                self._become(phase)
            except Exception as exc:  # noqa: BLE001 - a bug in `on_change`; the end must be told all the same
                self.error = self.error or exc
            self._on_end(self)

    def _live(self) -> None:
        while self._wanted() and not self._queue.drained:
            try:
                with self._station() as station:
                    if self._serve(station):
                        return
            except InfrastructureError as exc:
                if self._killed is not None:  # whatever breaks now was broken by the kill
                    raise self._killed from exc
                self._failures += 1
                if self._failures >= self._kind.policy.max_start_failures:
                    raise
                self._log.warning("start %d of %s failed: %s", self._failures, self.name, exc)
            self._become(Phase.RECOVERING)

    def _wanted(self) -> bool:
        if self._killed is not None:
            raise self._killed
        return not self._closing

    @contextmanager
    def _station(self) -> Iterator[_Station]:
        """A host that is up with an open session; both are closed at the end, whatever happened."""
        policy = self._kind.policy
        with ExitStack() as stack:
            host = None
            if self._kind.open_host is not None:
                host = stack.enter_context(self._kind.open_host(self.name, self._folder))
                with self._lock:
                    self._host = host
                self._wanted()  # a kill that came before the line above found no host to kill
                host.start(Deadline.after(policy.start_timeout_s))
                host.resume()
            session = self._kind.open_session(host)
            stack.callback(session.close)
            with self._lock:
                self._session = session
            if host is not None:
                host.watch(session.abort)
            self._wanted()
            session.open(Deadline.after(policy.request_timeout_s))
            self._parameters = ()
            if host is not None:
                self._log.info("%s is up (%s, %.2f s)", self.name, host.facts.boot.value, host.facts.start_s)
            try:
                yield _Station(host, session, _facts(host, session))
            finally:
                with self._lock:
                    self._host = self._session = None

    def _serve(self, station: _Station) -> bool:
        """Run task sets; True when there is no more to do, False when the host has to be replaced."""
        while True:
            lease = self._next_lease(station)
            if lease is None:
                return True
            self._failures = 0  # not before: a host that dies whenever it idles is of no use either
            if not self._measure(lease, station):
                return False
            self._become(Phase.CLOSING if self._closing else Phase.IDLE)

    def _next_lease(self, station: _Station) -> Lease | None:
        if not self._wanted():
            return None
        lease = self._queue.try_acquire()
        if lease is not None:
            return lease
        station.pause()
        self._become(Phase.IDLE)
        lease = self._queue.acquire(self._wanted)
        if lease is not None:
            try:
                station.resume()
            except BaseException as exc:
                # The host died or was killed while it was idle: the set never ran, so it is not charged.
                self._queue.give_back(lease, InfrastructureError(f"no start: {exc}"), charged=False)
                raise
        return lease

    def _measure(self, lease: Lease, station: _Station) -> bool:
        """One attempt at one task set. Returns whether the station is still good."""
        run = Run(taskset=lease.taskset, machine=self.name, attempt=lease.attempt, facts=station.facts)
        started_s = time.monotonic()
        error: RunnerError = InfrastructureError("the machine's thread ended because of a bug")
        outcome = Outcome.INFRA_ERROR
        result: RunResult | None = None
        try:
            self._become(Phase.RUNNING, lease.taskset.taskset_id)
            lease.job.channel.start(run)
            result = self._execute(run, lease, station.session, started_s)
            lease.job.channel.finish(run, result)
        except RunnerError as exc:
            # Whatever breaks in a kill was broken by it, and says nothing about the set.
            error = self._killed or exc
            if isinstance(error, MachineKilled):
                outcome = Outcome.ABORTED
            elif isinstance(error, GuestDied):
                outcome = Outcome.GUEST_CRASH
            if isinstance(error, TaskSetError | InfrastructureError):
                return isinstance(error, TaskSetError)
            raise error from exc.__cause__
        finally:
            if result is not None:
                self._queue.done(lease)
            else:
                self._give_back(lease, run, error, outcome, time.monotonic() - started_s)
        self._state = MachineState(
            self.name, self._state.phase, self._state.taskset_id, self._state.n_done + 1
        )
        return True

    def _give_back(self, lease: Lease, run: Run, error: RunnerError, outcome: Outcome, wall_s: float) -> None:
        channel = lease.job.channel
        charged = outcome is not Outcome.ABORTED
        bad = lease.queue.would_be_bad(lease, error, charged=charged)
        try:
            # The monitors are told before the queue is: once it is drained, the run ends.
            channel.stop(run, RunResult(outcome=outcome, wall_s=wall_s, error=str(error)))
            if bad:
                channel.bad(run, error)
        finally:
            self._queue.give_back(lease, error, charged=charged)
        taskset = lease.taskset
        self._log.log(
            logging.INFO if outcome is Outcome.ABORTED else logging.WARNING,
            "task set %s (%s), try %d on %s: %s: %s",
            taskset.name,
            taskset.taskset_id,
            lease.attempt,
            self.name,
            "given up" if bad else "goes back",
            error,
        )

    def _execute(self, run: Run, lease: Lease, session: AbstractSession, started_s: float) -> RunResult:
        policy, taskset = self._kind.policy, lease.taskset
        if lease.job.session_parameters != self._parameters:
            session.configure(lease.job.session_parameters)
            self._parameters = lease.job.session_parameters
        session.start(taskset, Deadline.after(policy.request_timeout_s))
        budget_s = policy.taskset_timeout_s + policy.taskset_timeout_factor * taskset.end_ns / NS_PER_S
        jobs: list[JobRecord] = []
        t0_ns = end_ns = None
        outcome = Outcome.COMPLETED
        for event in session.events(Deadline.after(budget_s)):
            lease.job.channel.event(run, event)
            match event:
                case JobEvent(job):
                    jobs.append(job)
                case StartEvent(t0_guest_ns):
                    t0_ns = t0_guest_ns
                case RefusedEvent():
                    outcome = Outcome.REJECTED
                case EndEvent(t_ns, stopped):
                    end_ns = t_ns
                    if stopped and outcome is Outcome.COMPLETED:
                        outcome = Outcome.TIMEOUT
        if end_ns is None:
            raise ProtocolError(f"{type(session).__name__}.events() ended without an EndEvent")
        return RunResult(
            outcome=outcome,
            jobs=tuple(jobs),
            t0_guest_ns=t0_ns,
            end_ns=end_ns,
            wall_s=time.monotonic() - started_s,
        )

    def _become(self, phase: Phase, taskset_id: str | None = None) -> None:
        self._state = MachineState(self.name, phase, taskset_id, self._state.n_done)
        self._on_change()


def _facts(host: AbstractHost | None, session: AbstractSession) -> dict[str, str | int | float | None]:
    """Columns of the `runs` table."""
    facts: dict[str, str | int | float | None] = {"host_id": platform.node()}
    if host is not None:
        facts |= asdict(host.facts)
        facts["guest_image_sha256"] = facts.pop("image_digest")
        del facts["name"]
    return {**facts, **session.facts}
