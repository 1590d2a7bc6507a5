"""The life of one host: bring it up, feed it task sets, replace it when it fails."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from runner.data.reuse import EarlierRun
from runner.errors import (
    HostShortage,
    InfrastructureError,
    MachineKilled,
    RunnerError,
    TaskSetError,
)
from runner.events import Event, Run, RunResult
from runner.faults.evidence import EvidenceStore
from runner.faults.quarantine import Standing
from runner.fleet import MachineState, Phase
from runner.identity import executable_digests, measurement_identity
from runner.machines.attempt import Attempts, Failure
from runner.machines.measuring import measure
from runner.machines.recoveries import OnIncident, Recoveries, untold
from runner.machines.station import MachineKind, Station, Stations
from runner.model import TaskSet
from runner.queue.jobs import JobQueue
from runner.queue.lease import Lease
from runner.shortage import as_shortage
from runner.specs import Reset

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class Machine(threading.Thread):
    """Owns one host and its session, and takes task sets from the queue while there are any and it is wanted.

    Guarantees: when the thread has ended, its host is stopped and its task set has gone back to the queue or is done.
    What fails is brought back step by step (`runner.faults.recovery`); its task set is tried again, here or elsewhere. A machine that fails
    again and again ends with a `standing` that says until when it is to be left alone.

    Args:
        name: `qemu1` …, unique in the fleet.
        folder: The machine's own: its log and its host's console.
        on_change: Called, from this thread, whenever `state` has changed.
        on_end: Called last, from this thread, with the machine.
        on_incident: Called with each fault, and with the channel of the job whose set ran then.
        standing: How far it is trusted from the beginning.
        evidence: Where to keep what is known of sets that are given up.
        reuse: Where to look for a task set's table before it is measured.
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
        on_incident: OnIncident = untold,
        standing: Standing | None = None,
        evidence: EvidenceStore | None = None,
        reuse: EarlierRun | None = None,
    ) -> None:
        super().__init__(name=name)
        self._kind = kind
        self._queue = queue
        self._folder = folder
        self._on_change = on_change
        self._on_end = on_end
        self._reuse = reuse
        self._log = logging.getLogger("runner.machine").getChild(name)
        self._state = MachineState(name, Phase.STARTING)
        self._lock = threading.Lock()
        self._closing = self._left = False
        self._killed: MachineKilled | None = None
        self._stations = Stations(kind, name, folder)
        # Taken from the queue and not begun yet.
        self._lease: Lease | None = None
        self._settings: Mapping[str, str | int | float | None] | None = None
        self._parameters: tuple[Any, ...] = ()
        self._recoveries = Recoveries(
            name,
            kind,
            self._stations,
            standing or Standing(),
            killed=lambda: self._killed,
            on_incident=on_incident,
        )
        self._attempts = Attempts(
            queue,
            kind.policy,
            self._log,
            on_start=lambda lease: self._become(Phase.RUNNING, lease.taskset.taskset_id),
            killed=lambda: self._killed,
            evidence=evidence,
            logs=(folder / "console.log", folder / "qemu.stderr"),
        )
        #: Why the machine ended before its work was done; None if it did not.
        self.error: Exception | None = None

    @property
    def state(self) -> MachineState:
        """What the machine is doing."""
        return self._state

    @property
    def standing(self) -> Standing:
        """How far it is trusted: to be handed on to whoever takes its place."""
        return self._recoveries.standing

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
            killed = self._killed or MachineKilled(f"machine {self.name} was killed by the operator")
            self._killed = killed
        self._stations.abort(killed)
        self._queue.wake()

    def run(self) -> None:
        """The thread; `start()` calls it."""
        handler = logging.FileHandler(self._folder / "machine.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        self._log.addHandler(handler)
        phase = Phase.CLOSED
        try:
            self._live()
            if self.standing.aside:
                self.error, phase = self._recoveries.error, Phase.ASIDE
        except MachineKilled as exc:
            self._log.info("%s", exc)
        except RunnerError as exc:
            self.error, phase = exc, Phase.FAILED
            self._log.info("machine %s gives up: %s", self.name, exc)  # whoever reads `error` tells it
        except Exception as exc:  # noqa: BLE001 - the thread's top: the distributor raises it in the main thread
            self.error, phase = as_shortage(exc), Phase.FAILED
            if self.error is exc:
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
        open_console = self._kind.open_console
        console = nullcontext() if open_console is None else open_console(self.name, self._folder)
        with console, self._stations:
            self._recoveries.begin()
            try:
                if self._reuse is not None:
                    self._lease = self._first_unknown()
                while self._wanted() and not self._queue.drained and not self.standing.aside:
                    try:
                        if self._work():
                            return
                    except (InfrastructureError, HostShortage) as exc:
                        self._recoveries.after_start(exc)
                        self._become(Phase.RECOVERING)
            finally:
                if self._lease is not None:  # it never ran
                    self._queue.give_back(self._lease, InfrastructureError("no start"), charged=False)

    def _wanted(self) -> bool:
        if self._killed is not None:
            raise self._killed
        return not self._closing

    def _work(self) -> bool:
        """Work at one station for as long as it is good; True when there is no more to do."""
        station = self._stations.take()
        self._parameters = ()
        try:
            return self._serve(station)
        finally:
            self._stations.retire(station)

    def _serve(self, station: Station) -> bool:
        while True:
            lease = self._next_lease(station)
            if lease is None:
                return True
            spent = self._kind.reset is Reset.TASKSET
            if spent and self._queue.n_left != 0:
                self._stations.prepare()
            failure = self._measure(lease, station)
            if failure is not None:
                self._become(Phase.RECOVERING)
                if not self._recoveries.after_attempt(failure, station):
                    return False
                self._parameters = ()  # the session may be a new one
            self._become(Phase.CLOSING if self._closing else Phase.IDLE)
            if spent:
                return False

    def _next_lease(self, station: Station) -> Lease | None:
        while self._wanted():
            lease, self._lease = self._lease, None
            lease = lease or self._queue.try_acquire() or self._await_lease(station)
            if lease is None or not self._known(lease):
                return lease
        return None

    def _await_lease(self, station: Station) -> Lease | None:
        station.pause()
        self._become(Phase.IDLE)
        lease = self._queue.acquire(self._wanted)
        if lease is not None:
            with self._unharmed(lease):  # the host may have died or been killed while it was idle
                station.resume()
        return lease

    @contextmanager
    def _unharmed(self, lease: Lease) -> Iterator[None]:
        """Give a lease back uncharged if the block fails: the set never ran."""
        try:
            yield
        except BaseException as exc:
            self._queue.give_back(lease, InfrastructureError(f"no start: {exc}"), charged=False)
            raise

    def _first_unknown(self) -> Lease | None:
        """The first task set that has no table yet; those before it need no host at all."""
        while self._wanted():
            lease = self._queue.try_acquire()
            if lease is None or not self._known(lease):
                return lease
        return None

    def _known(self, lease: Lease) -> bool:
        """Whether an earlier run has measured the same; its table is taken over then."""
        if self._reuse is None:
            return False
        with self._unharmed(lease):
            identity = self._identity(lease.taskset)
            earlier = None if identity is None else self._reuse.find(identity)
        if earlier is None:
            return False

        def replay(run: Run, events: deque[Event]) -> RunResult:
            for event in earlier.replayed():
                lease.job.channel.event(run, event)
            return earlier

        self._attempts.make(lease, self._run_of(lease, identity), replay)
        return True

    def _identity(self, taskset: TaskSet, predecessor: str | None = None) -> str | None:
        """Of all that the measurement depends on; None where nobody can tell, also because an executable cannot be read."""
        if self._settings is None and self._kind.settings is not None:
            self._settings = self._kind.settings()
        if self._settings is None:
            return None
        try:
            digests = executable_digests(taskset)
        except TaskSetError:
            return None  # the session will say so
        return measurement_identity(taskset, self._settings, files=digests, predecessor=predecessor)

    def _run_of(self, lease: Lease, identity: str | None, **more: Any) -> Run:  # noqa: ANN401 - Run's own fields
        return Run(
            taskset=lease.taskset,
            machine=self.name,
            attempt=lease.attempt,
            repetition=lease.repetition,
            submission=lease.job.submission,
            set_idx=lease.set_idx,
            identity=identity,
            **more,
        )

    def _measure(self, lease: Lease, station: Station) -> Failure | None:
        """One attempt at one task set."""
        with self._unharmed(lease):
            identity = self._identity(lease.taskset, station.identity)
        station.n_started += 1
        # What a session without a host computes does not depend on what it computed before.
        station.identity = None if station.host is None else identity
        run = self._run_of(
            lease, identity, facts=station.facts, position=station.n_started, recovery=self._recoveries.take()
        )
        failure = self._attempts.make(
            lease, run, lambda run, events: self._execute(run, lease, station, events)
        )
        if failure is None:
            self._recoveries.succeeded()
        return failure

    def _execute(self, run: Run, lease: Lease, station: Station, events: deque[Event]) -> RunResult:
        if lease.job.session_parameters != self._parameters:
            station.session.configure(lease.job.session_parameters)
            self._parameters = lease.job.session_parameters
        return measure(run, station, self._kind, lease.job.channel, events=events)

    def _become(self, phase: Phase, taskset_id: str | None = None) -> None:
        self._state = MachineState(self.name, phase, taskset_id, self._attempts.n_done)
        self._on_change()
