"""The monitors' thread: machines publish from many threads, every monitor hears it from one."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Self

from runner.errors import HostError, UsageError
from runner.fleet import FleetState
from runner.incidents import Incident
from runner.monitors.base import AbstractMonitor
from runner.monitors.channel import Call, Listener, MonitorChannel

FLEET_INTERVAL_S = 0.1
_log = logging.getLogger(__name__)


class _Phase(Enum):
    #: The thread was not started yet: enter the dispatcher first.
    NEW = "not started"
    #: Calls are taken and delivered.
    OPEN = "open"
    #: `close()` was called: what waits is still delivered, nothing new is taken.
    CLOSING = "closing"
    #: The thread has ended.
    CLOSED = "closed"


class MonitorDispatcher:
    """Own the monitors' thread: open them, tell them everything in order, close them.

    Guarantees: every call that was published before `close()` is delivered; a monitor that raises costs neither another
    monitor nor a machine anything. Its first error in each method goes to the log with its traceback and to `on_failure`,
    later ones are counted. Publishing waits while `capacity` calls wait to be delivered.
    Threads: one thread enters and closes; everything else may be called from any thread, also by a monitor.

    Args:
        capacity: Calls that may wait; as many again may be under way.
        on_failure: Told, in the monitors' thread, of each monitor's first error in each method.
    """

    def __init__(
        self,
        *,
        capacity: int = 4096,
        on_failure: Callable[[AbstractMonitor, BaseException], None] | None = None,
    ) -> None:
        self._capacity = capacity
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # something to do for the monitors' thread
        self._room = threading.Condition(self._lock)  # the queue was emptied, or the thread ended
        self._phase = _Phase.NEW
        self._calls: list[Call] = []
        self._blocked = 0
        self._fleet: FleetState | None = None
        self._fleet_told: FleetState | None = None
        self._fleet_due_s = 0.0
        self._listeners: list[Listener] = []
        self._at_work: tuple[str, str, float] | None = None
        self._required_failure: BaseException | None = None
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="monitors")

    def __enter__(self) -> Self:
        if self._phase is not _Phase.NEW:
            raise UsageError(
                f"MonitorDispatcher entered while it is {self._phase.value}", next_step="make a new one"
            )
        self._phase = _Phase.OPEN
        self._thread.start()
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

    def channel(self, monitors: Iterable[AbstractMonitor]) -> MonitorChannel:
        """Open those of `monitors` that are not open yet, and return what their job's machines publish through.

        A monitor whose `open()` raises is reported and left out from then on.

        Raises:
            Exception: what the `open()` of a monitor with `required` raised.
            UsageError: before the dispatcher was entered and after it was closed.
        """
        listeners = tuple(self._listener(monitor) for monitor in monitors)
        opened = threading.Event()
        if threading.current_thread() is self._thread:
            self._open(listeners, opened)
        else:
            self._put(("open", listeners, (opened,)))
            while not opened.wait(1.0):
                if not self._thread.is_alive():
                    raise self._refusal("channel")
        for listener in listeners:
            if listener.open_error is not None and listener.monitor.required:
                raise listener.open_error
        return MonitorChannel(tuple(one for one in listeners if one.open_error is None), self._put)

    def publish_fleet(self, state: FleetState) -> None:
        """Tell every open monitor about the fleet: ten times a second at most, the newest state, and the last one always.

        Never waits; the states in between are skipped.
        """
        with self._lock:
            if self._fleet is None:
                self._work.notify()
            self._fleet = state

    def publish_incident(self, incident: Incident) -> None:
        """Tell every open monitor of a fault that belongs to no job."""
        with self._lock:
            listeners = tuple(one for one in self._listeners if one.opened and one.overrides("__incident__"))
        if listeners:
            self._put(("__incident__", listeners, (incident,)))

    def close(self, stall_s: float = 60.0) -> None:
        """Deliver what waits, close every monitor, end the thread; again does nothing.

        Raises:
            HostError: when a monitor spends more than `stall_s` seconds in one call; its thread is then left behind.
        """
        with self._lock:
            if self._phase is _Phase.NEW:
                self._phase = _Phase.CLOSED
            if self._phase is _Phase.OPEN:
                self._phase = _Phase.CLOSING
            self._work.notify()
        if self._thread.ident is None:
            return
        while self._thread.is_alive():
            self._thread.join(min(1.0, stall_s))
            busy = self._at_work
            if busy is not None and self._thread.is_alive() and time.monotonic() - busy[2] > stall_s:
                raise HostError(
                    f"monitor {busy[0]} has been in {busy[1]} for more than {stall_s:g} s; the run cannot end in order",
                    next_step="look at what the monitor waits for: a disk, a pipe or a network that does not answer",
                )
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash

    def _put(self, call: Call) -> None:
        with self._lock:
            if self._phase is not _Phase.OPEN and threading.current_thread() is not self._thread:
                raise self._refusal(call[0])
            if len(self._calls) >= self._capacity and threading.current_thread() is not self._thread:
                self._wait_for_room(call[0])
            self._calls.append(call)
            if len(self._calls) == 1:
                self._work.notify()

    def _wait_for_room(self, method: str) -> None:
        self._blocked += 1  # `close()` waits for those who came before it
        try:
            self._room.wait_for(lambda: len(self._calls) < self._capacity or self._phase is _Phase.CLOSED)
        finally:
            self._blocked -= 1
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
            kind = type(monitor).__name__
            number = 1 + sum(type(one.monitor).__name__ == kind for one in self._listeners)
            self._listeners.append(Listener(monitor, kind if number == 1 else f"{kind}#{number}"))
            return self._listeners[-1]

    # All below runs in the monitors' thread.

    def _run(self) -> None:
        try:
            while (batch := self._take()) is not None:
                for method, listeners, args in batch:
                    if method == "open":
                        self._open(listeners, *args)
                    else:
                        self._deliver(method, listeners, args)
                    if self._fleet is not None:
                        self._deliver_fleet()
                self._deliver_fleet()
                if not self._calls:
                    self._deliver_to_open("idle")
            self._fleet_due_s = 0.0
            self._deliver_fleet()
            self._deliver_to_open("close")
        except BaseException as exc:  # noqa: BLE001 - a bug of ours or of `on_failure`: `close()` raises it
            self._crash = exc
        finally:
            with self._lock:
                self._phase = _Phase.CLOSED
                self._room.notify_all()
            for one in self._listeners:
                if one.failures:
                    _log.error("monitor %s failed: %s", one.name, _counts(one.failures))

    def _take(self) -> list[Call] | None:
        """Wait for calls, and take them all; empty when only the fleet is due, None when all is over."""
        with self._lock:
            while True:
                if self._calls:
                    batch, self._calls = self._calls, []
                    self._room.notify_all()
                    return batch
                wait_s = None if self._fleet is None else self._fleet_due_s - time.monotonic()
                if wait_s is not None and wait_s <= 0:
                    return []
                if self._phase is not _Phase.OPEN and not self._blocked:
                    return None
                self._work.wait(wait_s)

    def _open(self, listeners: Iterable[Listener], opened: threading.Event) -> None:
        try:
            for one in listeners:
                if not one.opened and one.open_error is None:
                    one.open_error = self._call(one, "open", ())
                    one.opened = one.open_error is None
                    if one.opened and self._fleet_told is not None and one.overrides("__fleet_change__"):
                        self._call(one, "__fleet_change__", (self._fleet_told,))
        finally:
            opened.set()

    def _deliver_fleet(self) -> None:
        now_s = time.monotonic()
        if self._fleet is None or now_s < self._fleet_due_s:
            return
        with self._lock:
            state, self._fleet = self._fleet, None
        self._fleet_told = state
        self._fleet_due_s = now_s + FLEET_INTERVAL_S
        self._deliver_to_open("__fleet_change__", state)

    def _deliver_to_open(self, method: str, *args: object) -> None:
        self._deliver(method, [one for one in self._listeners if one.opened and one.overrides(method)], args)

    def _deliver(self, method: str, listeners: Iterable[Listener], args: tuple[Any, ...]) -> None:
        for one in listeners:
            self._call(one, method, args)

    def _call(self, one: Listener, method: str, args: tuple[Any, ...]) -> Exception | SystemExit | None:
        self._at_work = (one.name, method, time.monotonic())
        try:
            getattr(one.monitor, method)(*args)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - a monitor is a guest in this thread
            self._report(one, method, exc)
            return exc
        finally:
            self._at_work = None
        return None

    def _report(self, one: Listener, method: str, error: Exception | SystemExit) -> None:
        one.failures[method] += 1
        if one.monitor.required and self._required_failure is None:
            self._required_failure = error
        if one.failures[method] > 1:
            return
        _log.error("monitor %s failed in %s; later failures are counted", one.name, method, exc_info=error)
        if self._on_failure is not None:
            self._on_failure(one.monitor, error)


def _counts(failures: Counter[str]) -> str:
    return ", ".join(f"{count} x in {method}" for method, count in failures.items())
