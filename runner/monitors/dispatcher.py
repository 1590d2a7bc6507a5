"""Between machines and monitors: what many threads publish, each monitor hears from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import TracebackType
from typing import Self

from runner.errors import HostError, UsageError
from runner.faults.incidents import Incident
from runner.fleet import FleetState
from runner.monitors.base import AbstractMonitor
from runner.monitors.channel import Call, MonitorChannel
from runner.monitors.listener import Desk, Listener, MonitorThread

#: How long a monitor may take to open before the others begin without it; a required one is waited for longer.
OPEN_S = 10.0
OPEN_REQUIRED_S = 60.0
#: How long a monitor may stay in one call at the end before it is left behind; a required one, whose `close()` may have much
#: to write, for ten times as long.
STALL_S = 60.0
_REQUIRED_FACTOR = 10
# While it is waited for the end of a monitor, how often is looked whether it is stuck.
_LOOK_S = 0.2

_log = logging.getLogger(__name__)


class _Phase(Enum):
    #: Enter the dispatcher first.
    NEW = "not started"
    #: Calls are taken and delivered.
    OPEN = "open"
    #: `close()` was called: what waits is still delivered, nothing new is taken.
    CLOSING = "closing"
    #: Over, in order or by a crash.
    CLOSED = "closed"


class MonitorDispatcher:
    """Own the monitors' threads: open the monitors, tell each everything in order, close them.

    Guarantees: every call that was published before `close()` is delivered; a monitor that raises or hangs costs neither
    another monitor nor a machine anything. Its first error in each method goes to the log with its traceback and to
    `on_failure`, later ones are counted. Publishing waits while `capacity` calls wait for one of those who are to hear it,
    unless `relent` said otherwise. Monitors are closed one after the other, in the order in which they were opened.
    Threads: one thread enters and closes; everything else may be called from any thread, also by a monitor.

    Args:
        capacity: Calls that may wait for a monitor; as many again may be under way.
        on_failure: Told, in the monitor's thread, of each monitor's first error in each method.
        on_trouble: Called, in the monitor's thread, when `troubles()` has changed because of that monitor's doing; that a
            monitor is stuck shows in `troubles()` alone.
    """

    def __init__(
        self,
        *,
        capacity: int = 4096,
        on_failure: Callable[[AbstractMonitor, BaseException], None] | None = None,
        on_trouble: Callable[[], None] | None = None,
    ) -> None:
        self._capacity = capacity
        self._on_failure = on_failure
        self._desk = Desk(
            on_failure=self._take_failure, on_trouble=on_trouble or (lambda: None), on_crash=self._crashed
        )
        self._lock = self._desk.lock
        self._phase = _Phase.NEW
        self._listeners: list[Listener] = []
        self._fleet: FleetState | None = None
        self._relents = False
        self._n_blocked = 0
        self._required_failure: BaseException | None = None
        self._crash: BaseException | None = None

    def __enter__(self) -> Self:
        if self._phase is not _Phase.NEW:
            raise UsageError(
                f"MonitorDispatcher entered while it is {self._phase.value}", next_step="make a new one"
            )
        self._phase = _Phase.OPEN
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def failures(self) -> Mapping[str, int]:
        """How many calls of each monitor failed, by its class name (`SQLiteMonitor`, a second one `SQLiteMonitor#2`)."""
        return {one.name: sum(list(one.failures.values())) for one in list(self._listeners) if one.failures}

    @property
    def required_failure(self) -> BaseException | None:
        """The first error of a monitor whose `required` is true: what the run was for is not complete."""
        return self._required_failure

    def troubles(self) -> Mapping[str, str]:
        """Which monitors do not keep up, by name, and why: blocked, or stuck in one call for more than `STUCK_S` seconds."""
        return {one.name: why for one in list(self._listeners) if (why := one.trouble())}

    def channel(self, monitors: Iterable[AbstractMonitor]) -> MonitorChannel:
        """Open those of `monitors` that are not open yet, and return what their job's machines publish through.

        A monitor whose `open()` raises is reported and left out from then on; one that does not come back from it hears
        everything once it does.

        Raises:
            Exception: what the `open()` of a monitor with `required` raised.
            HostError: a monitor with `required` did not open within a minute.
            UsageError: before the dispatcher was entered and after it was closed.
        """
        listeners = tuple(self._listener(monitor) for monitor in monitors)
        for one in listeners:
            if (
                not one.opened.wait(OPEN_REQUIRED_S if one.monitor.required else OPEN_S)
                and one.monitor.required
            ):
                raise HostError(
                    f"monitor {one.name} is stuck in {one.stuck_for(0) or 'open'}, and the run is pointless without it",
                    next_step="look at what it waits for: a disk, a pipe or a network that does not answer",
                )
        for one in listeners:
            if one.open_error is not None and one.monitor.required:
                raise one.open_error
        return MonitorChannel(tuple(one for one in listeners if one.open_error is None), self._put)

    @property
    def watched(self) -> bool:
        """Whether any monitor listens to what `publish_fleet` tells."""
        return any(one.overrides("__fleet_change__") for one in list(self._listeners))

    def publish_fleet(self, state: FleetState) -> None:
        """Tell every open monitor about the fleet: ten times a second at most, the newest state, and the last one always.

        Never waits; the states in between are skipped.
        """
        with self._lock:
            self._fleet = state
            for one in self._listeners:
                if one.overrides("__fleet_change__"):
                    one.tell_fleet(state)

    def publish_incident(self, incident: Incident) -> None:
        """Tell every open monitor of a fault that belongs to no job."""
        with self._lock:
            listeners = tuple(one for one in self._listeners if one.overrides("__incident__"))
        if listeners:
            self._put(("__incident__", listeners, (incident,)))

    def relent(self, relents: bool) -> None:
        """Whether publishing waits for no room: while nothing new begins, what is still to come is bounded by itself."""
        if relents is not self._relents:
            with self._lock:
                self._relents = relents
                self._desk.room.notify_all()

    @property
    def settled(self) -> bool:
        """Whether every monitor was told everything and, where it is `required`, has it written.

        One that is stuck counts as settled, unless it is required.
        """
        with self._lock:
            return all(map(_settled, self._listeners))

    def close(self, stall_s: float | None = None) -> None:
        """Deliver what waits, close every monitor, end the threads; again does nothing but wait for those left behind.

        Raises:
            HostError: when a monitor spends more than `stall_s` seconds (`STALL_S`) in one call; its thread is then left
                behind, and every other monitor is told everything and closed.
        """
        stall_s = STALL_S if stall_s is None else stall_s
        said: set[str] = set()
        with self._lock:
            if self._phase is _Phase.OPEN:
                self._phase = _Phase.CLOSING
            while self._n_blocked or not all(
                one.resting or one.stuck_for(stall_s) for one in self._listeners
            ):
                self._desk.rest.wait(min(_LOOK_S, stall_s))
                for name, why in self.troubles().items():
                    if name not in said:
                        said.add(name)
                        _log.warning("the end waits for a monitor: %s", why)
        left = [stuck for one in self._listeners if (stuck := _end(one, stall_s, self._lock))]
        self._phase = _Phase.CLOSED
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash
        if left:
            raise HostError(
                f"{' and '.join(left)} for more than {stall_s:g} s; the run cannot end in order",
                next_step="look at what the monitor waits for: a disk, a pipe or a network that does not answer",
            )

    def _put(self, call: Call) -> None:
        method, listeners, args = call
        with self._lock:
            told_by_monitor = isinstance(threading.current_thread(), MonitorThread)
            if self._phase is not _Phase.OPEN and not (told_by_monitor and self._phase is _Phase.CLOSING):
                raise self._refusal(method)
            if not (told_by_monitor or self._has_room(listeners)):
                self._wait_for_room(method, listeners)
            for one in listeners:
                if not one.over:
                    one.put(method, args)

    def _has_room(self, listeners: tuple[Listener, ...]) -> bool:
        return self._relents or all(len(one.waiting) < self._capacity for one in listeners)

    def _wait_for_room(self, method: str, listeners: tuple[Listener, ...]) -> None:
        self._n_blocked += 1  # `close()` waits for those who came before it
        try:
            self._desk.room.wait_for(lambda: self._has_room(listeners) or self._phase is _Phase.CLOSED)
        finally:
            self._n_blocked -= 1
            self._desk.rest.notify_all()
        if self._phase is _Phase.CLOSED:
            raise self._refusal(method)

    def _refusal(self, method: str) -> UsageError:
        return UsageError(
            f"MonitorDispatcher took no {method}: it is {self._phase.value}",
            next_step="publish only inside its `with` block, and end the machines before it",
        )

    def _listener(self, monitor: AbstractMonitor) -> Listener:
        with self._lock:
            for known in self._listeners:
                if known.monitor is monitor:
                    return known
            by_monitor = isinstance(threading.current_thread(), MonitorThread)
            if self._phase is not _Phase.OPEN and not (by_monitor and self._phase is _Phase.CLOSING):
                raise self._refusal("channel")
            kind = type(monitor).__name__
            number = 1 + sum(type(one.monitor).__name__ == kind for one in self._listeners)
            new = Listener(monitor, kind if number == 1 else f"{kind}#{number}", self._desk)
            if self._fleet is not None and new.overrides("__fleet_change__"):
                new.tell_fleet(self._fleet)
            new.thread.start()
            self._listeners.append(new)
            return new

    def _take_failure(self, monitor: AbstractMonitor, error: BaseException) -> None:
        if monitor.required and self._required_failure is None:
            self._required_failure = error
        if self._on_failure is not None:
            self._on_failure(monitor, error)

    def _crashed(self, error: BaseException) -> None:
        """What no monitor may do; whoever publishes is refused from now on."""
        with self._lock:
            self._crash = self._crash or error
            self._phase = _Phase.CLOSED
            self._desk.room.notify_all()


def _settled(one: Listener) -> bool:
    if one.monitor.required:
        return one.resting and not one.blocked
    return one.resting or bool(one.trouble())


def _left_behind(one: Listener, stall_s: float) -> str:
    return one.stuck_for(stall_s * (_REQUIRED_FACTOR if one.monitor.required else 1))


def _end(one: Listener, stall_s: float, lock: threading.Lock) -> str:
    """End a listener's thread; if the monitor is stuck, in what."""
    with lock:
        one.end()
    while one.thread.is_alive():
        one.thread.join(min(_LOOK_S, stall_s))
        if one.thread.is_alive() and (stuck := _left_behind(one, stall_s)):
            return f"monitor {one.name} has been in {stuck},"
    return ""
