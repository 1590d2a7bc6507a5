"""Where a machine works: a host that is up with the session to it, and the next one made ready meanwhile."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.admission.capacity import Needs
from runner.deadline import Deadline
from runner.disturbance import DisturbanceLimits
from runner.errors import RunnerError
from runner.events import Validity
from runner.faults.recovery import SAME_GUEST, STEPS, Recovery
from runner.hosts.base import AbstractHost
from runner.sessions.base import AbstractSession
from runner.specs import MachinePolicy, Reach, Reset

Fact = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class MachineKind:
    """What the machines of a fleet are made of.

    Attributes:
        open_host: Makes the host of a machine from its name and its folder; None where a session needs no host.
        open_session: Makes the session to that host.
        policy: How patient a machine is.
        reset: When a machine goes back to a fresh host.
        validity: What every measurement of such machines is worth; None where it has to be found out each time.
        limits: How much of a disturbance by this computer a measurement may suffer; None where none can reach it.
        settings: Tells all that a measurement depends on beside its task set; None where nobody can tell.
        needs: What each machine takes of this computer.
        open_console: From a machine's name and its folder: what shows its console as long as it lives; None: nothing does.
    """

    open_host: Callable[[str, Path], AbstractHost] | None
    open_session: Callable[[AbstractHost | None], AbstractSession]
    policy: MachinePolicy = field(default_factory=MachinePolicy)
    reset: Reset = Reset.MACHINE
    validity: Validity | None = None
    limits: DisturbanceLimits | None = None
    settings: Callable[[], Mapping[str, Fact]] | None = None
    needs: Needs = field(default_factory=Needs)
    open_console: Callable[[str, Path], AbstractContextManager[object]] | None = None

    @property
    def steps(self) -> frozenset[Recovery]:
        """How its machines can be brought back.

        On the same guest only where nobody relies on what that guest went through: not where each set is to have a fresh one, nor
        where results repeat (as they do with every mailbox), for a guest that answered garbage is not in the state that a
        measurement's identity would name.
        """
        if self.open_host is None:
            return frozenset({Recovery.TASK_LOADER})
        kept = self.reset is Reset.MACHINE and self.validity is not Validity.EXACT
        return frozenset(STEPS) if kept else frozenset(STEPS) - SAME_GUEST


class Station:
    """A host and the session to it, opened and closed once.

    Threads: `abort` is for any thread; everything else for one at a time.

    Attributes:
        facts: What host and session say of themselves: columns of the `runs` table.
        n_started: Task sets that were started here.
        identity: Of the last of them; None before the first.
    """

    def __init__(
        self, kind: MachineKind, name: str, folder: Path, recovery: Recovery = Recovery.SNAPSHOT
    ) -> None:
        self._kind = kind
        self._name = name
        self._folder = folder
        self._recovery = recovery
        self._lock = threading.Lock()
        self._reason: RunnerError | None = None
        self._owned = ExitStack()
        self._host: AbstractHost | None = None
        self._session: AbstractSession | None = None
        self.facts: Mapping[str, Fact] = {}
        self.n_started = 0
        self.identity: str | None = None

    def open(self) -> None:
        """Bring the host up and open the session; on any error everything is released before it leaves.

        Raises:
            RunnerError: what host or session raise; the reason of an abort that came meanwhile.
        """
        policy = self._kind.policy
        with ExitStack() as half_open:
            if self._kind.open_host is not None:
                host = half_open.enter_context(self._kind.open_host(self._name, self._folder))
                self._adopt(host=host)
                host.start(Deadline.after(policy.start_timeout_s), self._recovery)
            self._open_session(half_open)
            self._owned = half_open.pop_all()

    def _open_session(self, owner: ExitStack) -> None:
        session = self._kind.open_session(self._host)
        owner.callback(session.close)
        self._adopt(session=session)
        if self._host is not None:
            self._host.watch(session.abort)
        self.resume()
        session.open(Deadline.after(self._kind.policy.request_timeout_s))
        self.facts = self._describe()

    def regain(self, step: Recovery) -> bool:
        """After a failed attempt: take a step that leaves the guest as it is. Whether the station is good again.

        Raises:
            RunnerError: the step failed; the reason of an abort.
        """
        if step is Recovery.MESSAGE:
            return self.session.regain(Deadline.after(self._kind.policy.request_timeout_s))
        self.session.close()
        self._open_session(self._owned)
        return True

    def _adopt(self, *, host: AbstractHost | None = None, session: AbstractSession | None = None) -> None:
        with self._lock:
            self._host, self._session = host or self._host, session or self._session
            if self._reason is not None:  # an abort that found nothing to end
                raise self._reason

    @property
    def host(self) -> AbstractHost | None:
        """What it works on; None where the session needs none."""
        return self._host

    @property
    def session(self) -> AbstractSession:
        """How it is talked to; known once `open` has returned."""
        assert self._session is not None  # noqa: S101 - the line above
        return self._session

    def _describe(self) -> dict[str, Fact]:
        facts: dict[str, Fact] = {"host_id": platform.node()}
        if self._host is not None:
            facts |= asdict(self._host.facts)
            facts["guest_image_sha256"] = facts.pop("image_digest")
            facts["reset"] = self._kind.reset.value
            del facts["name"]
        return {**facts, **self.session.facts}

    def pause(self) -> None:
        """Stop an idle guest: its virtual time would race, and cost a core of this computer."""
        if self._host is not None and self.session.reach is not Reach.MAILBOX:
            self._host.pause()

    def resume(self) -> None:
        """Let it run on; a guest with a mailbox runs only while it is asked something."""
        if self._host is not None and self.session.reach is not Reach.MAILBOX:
            self._host.resume()

    def abort(self, error: RunnerError) -> None:
        """End it at once: whatever is under way raises `error`. Any thread; `close()` is still due."""
        with self._lock:
            self._reason = self._reason or error
            host, session = self._host, self._session
        # The session first: it should hear of the reason before it finds the line dead.
        if session is not None:
            session.abort(error)
        if host is not None:
            host.kill()

    def close(self) -> None:
        """Release everything; again does nothing.

        Raises:
            HostError: the host could not be ended even by force.
        """
        self._owned.close()


class Stations:
    """The stations of one machine, one after the other. Left as a context manager, none is left.

    Threads: `abort` is for any thread, everything else for the machine's.
    """

    def __init__(self, kind: MachineKind, name: str, folder: Path) -> None:
        self._kind = kind
        self._name = name
        self._folder = folder
        self._log = logging.getLogger("runner.machine").getChild(name)
        self._lock = threading.Lock()
        self._alive: set[Station] = set()
        self._reason: RunnerError | None = None
        self._n_opened = 0
        self._next: Future[Station] | None = None
        self._recovery = Recovery.SNAPSHOT
        self._retired: list[Future[None]] = []
        self._hands = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-hands")

    def take(self) -> Station:
        """The station that was prepared, or a new one, made ready as `distrust` asked for it.

        Raises:
            RunnerError: it could not be opened, or an earlier one not be closed; the reason of an abort.
        """
        self._see_off([future for future in self._retired if future.done()])
        prepared, self._next = self._next, None
        return self._open(self._asked_for()) if prepared is None else prepared.result()

    def _asked_for(self) -> Recovery:
        """How the next station is to be made ready; asked for once."""
        recovery, self._recovery = self._recovery, Recovery.SNAPSHOT
        return recovery

    def distrust(self, step: Recovery) -> None:
        """Have the next station made ready by this step; one that was prepared by a lesser one is given up."""
        self._recovery = step if step not in SAME_GUEST else Recovery.SNAPSHOT
        if self._recovery is not Recovery.SNAPSHOT and self._next is not None:
            prepared, self._next = self._next, None
            self._retired.append(self._hands.submit(self._give_up, prepared))

    def _give_up(self, prepared: Future[Station]) -> None:
        if prepared.exception() is None:
            self._close(prepared.result())

    def prepare(self) -> None:
        """Begin to open the next station; `take` has it then. Returns at once."""
        if self._next is None:
            self._next = self._hands.submit(self._open, self._asked_for())

    def retire(self, station: Station) -> None:
        """Close a station that is of no further use, without waiting for it."""
        self._retired.append(self._hands.submit(self._close, station))

    def _see_off(self, retired: list[Future[None]]) -> None:
        """Note that they are closed; raise what went wrong."""
        for future in retired:
            self._retired.remove(future)
            future.result()

    def abort(self, error: RunnerError) -> None:
        """End every station at once; whoever opens one from now on gets `error`. Any thread."""
        with self._lock:
            self._reason = self._reason or error
            alive = list(self._alive)
        for station in alive:
            station.abort(error)

    def _open(self, recovery: Recovery) -> Station:
        station = Station(self._kind, self._name, self._folder, recovery)
        with self._lock:
            if self._reason is not None:
                raise self._reason
            self._alive.add(station)
        try:
            station.open()
        except BaseException:
            self._forget(station)
            raise
        if station.host is not None:
            facts, at = station.host.facts, station.session.where
            # With a guest per task set the log would be full of it.
            often = self._kind.reset is Reset.TASKSET and self._n_opened > 0
            level = logging.DEBUG if often else logging.INFO
            self._log.log(level, "%s is up%s (%s, %.2f s)", self._name, at, facts.boot.value, facts.start_s)
        self._n_opened += 1
        return station

    def _close(self, station: Station) -> None:
        try:
            station.close()
        finally:
            self._forget(station)

    def _forget(self, station: Station) -> None:
        with self._lock:
            self._alive.discard(station)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hands.shutdown()  # what it has begun comes to its end first
        with self._lock:
            alive = list(self._alive)
        with ExitStack() as stack:
            for station in alive:
                stack.callback(self._close, station)
            stack.callback(self._see_off, list(self._retired))
