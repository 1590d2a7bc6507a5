"""A monitor and the thread that tells it everything, so that one that hangs holds up no other."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from runner.deadline import Deadline
from runner.fleet import FleetState
from runner.monitors.base import AbstractMonitor

FLEET_INTERVAL_S = 0.1
#: How long a monitor may stay in one call before it counts as stuck.
STUCK_S = 10.0
#: How often a blocked monitor is asked to try again.
RETRY_S = 1.0
#: How long one that is still blocked at the end is asked to, before it is closed all the same.
LAST_TRIES_S = 10.0
_log = logging.getLogger("runner.monitors.dispatcher")


class MonitorThread(threading.Thread):
    """Tells one monitor everything. What it publishes itself never waits: two that wait for each other would for ever."""


class Desk:
    """What the threads of one dispatcher share: a lock, and who is told of what.

    Attributes:
        room: Notified whenever a listener has taken what waited for it, or will take no more.
        rest: Notified whenever a listener has nothing to do.
    """

    def __init__(
        self,
        *,
        on_failure: Callable[[AbstractMonitor, BaseException], None],
        on_trouble: Callable[[], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            on_failure: Told of a monitor's first error in each method.
            on_trouble: Called when a listener's `trouble()` may answer something else.
            on_crash: Told of what no monitor may raise, and of what the two above raise.
        """
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.rest = threading.Condition(self.lock)
        self.on_failure = on_failure
        self.on_trouble = on_trouble
        self.on_crash = on_crash


class Listener:
    """A monitor, its thread, what waits to be told to it, and how it fared.

    Threads: `trouble`, `stuck_for` and `overrides` are for any; `put`, `tell_fleet` and `end` for whoever holds the desk's
    lock; all else is for the monitor's own.

    Attributes:
        opened: Set when `open()` has returned or raised.
        waiting: Calls that wait: method and arguments.
        resting: Whether nothing waits, and the monitor was told so by `idle()`.
        over: Whether the thread takes no calls any more: the monitor could not be opened, or was closed.
        failures: How many calls failed, by method.
    """

    def __init__(self, monitor: AbstractMonitor, name: str, desk: Desk) -> None:
        self.monitor = monitor
        self.name = name
        self.opened = threading.Event()
        self.open_error: Exception | SystemExit | None = None
        self.waiting: list[tuple[str, tuple[Any, ...]]] = []
        self.resting = False
        self.over = False
        self.failures: Counter[str] = Counter()
        self._desk = desk
        self._work = threading.Condition(desk.lock)
        self._ending = False
        self._blocked = ""
        self._fleet: FleetState | None = None
        self._fleet_due_s = 0.0
        self._retry_s = 0.0
        #: Method and instant of the call that the monitor is in.
        self._at_work: tuple[str, float] | None = None
        self.thread = MonitorThread(target=self._run, name=f"monitor-{name}")

    def overrides(self, method: str) -> bool:
        """Whether the monitor does anything in `method`; calls to the base class's empty one are never queued."""
        own = getattr(self.monitor, method)
        return getattr(own, "__func__", None) is not getattr(AbstractMonitor, method)

    def put(self, method: str, args: tuple[Any, ...]) -> None:
        """Queue a call."""
        self.waiting.append((method, args))
        self.resting = False
        if len(self.waiting) == 1:
            self._work.notify()

    def tell_fleet(self, state: FleetState) -> None:
        """Tell the monitor about the fleet when it is time; a later state takes the place of this one."""
        if self._fleet is None:
            self._work.notify()
        self._fleet = state

    def end(self) -> None:
        """Have the thread end once nothing waits any more."""
        self._ending = True
        self._work.notify()

    def stuck_for(self, least_s: float) -> str:
        """In which call the monitor has been for that long, and since when; empty if it is in none."""
        busy = self._at_work
        if busy is None or time.monotonic() - busy[1] <= least_s:
            return ""
        since_utc = datetime.now(UTC) - timedelta(seconds=time.monotonic() - busy[1])
        return f"{busy[0]} since {since_utc:%H:%M:%S} UTC"

    def trouble(self) -> str:
        """Why the monitor does not keep up; empty if it does."""
        if stuck := self.stuck_for(STUCK_S):
            return f"monitor {self.name} is stuck in {stuck}"
        return self._blocked and f"monitor {self.name} is blocked: {self._blocked}"

    @property
    def blocked(self) -> bool:
        """Whether what the monitor was told waits in memory."""
        return bool(self._blocked)

    # All below runs in the monitor's thread.

    def _run(self) -> None:
        try:
            self._open()
            if self.open_error is None:
                self._serve()
        except BaseException as exc:  # noqa: BLE001 - a bug of ours, or of whoever is told of failures
            self._desk.on_crash(exc)
        finally:
            self.opened.set()
            with self._desk.lock:
                self.waiting.clear()
                self.resting = self.over = True
                self._desk.room.notify_all()
                self._desk.rest.notify_all()
            if self.failures:
                counts = ", ".join(f"{count} x in {method}" for method, count in self.failures.items())
                _log.error("monitor %s failed: %s", self.name, counts)

    def _open(self) -> None:
        try:
            self.open_error = self._call("open", ())
        finally:
            self.opened.set()

    def _serve(self) -> None:
        while (batch := self._take()) is not None:
            for method, args in batch:
                self._call(method, args)
                if self._fleet is not None:
                    self._deliver_fleet()
            self._deliver_fleet()
            if not self.waiting:
                self._idle()
        self._try_last()
        self._fleet_due_s = 0.0
        self._deliver_fleet()
        self._call("close", ())

    def _take(self) -> list[tuple[str, tuple[Any, ...]]] | None:
        """Wait for calls, and take them all; empty when only the fleet or another try is due, None when all is over."""
        with self._desk.lock:
            while True:
                if self.waiting:
                    batch, self.waiting = self.waiting, []
                    self._desk.room.notify_all()
                    return batch
                due_s = [self._fleet_due_s] if self._fleet is not None else []
                due_s += [self._retry_s] if self._blocked else []
                wait_s = min(due_s) - time.monotonic() if due_s else None
                if self._ending:
                    return None
                if wait_s is not None and wait_s <= 0:
                    return []
                self.resting = True
                self._desk.rest.notify_all()
                self._work.wait(wait_s)
                self.resting = False

    def _idle(self) -> None:
        self._retry_s = time.monotonic() + RETRY_S
        if self.overrides("idle"):
            self._call("idle", ())

    def _try_last(self) -> None:
        """Ask a monitor that is blocked to write what waits, for a bounded time."""
        deadline = Deadline.after(LAST_TRIES_S)
        while self._blocked and not deadline.passed:
            time.sleep(min(RETRY_S, deadline.remaining_s))
            self._idle()

    def _deliver_fleet(self) -> None:
        now_s = time.monotonic()
        if self._fleet is None or now_s < self._fleet_due_s:
            return
        with self._desk.lock:
            state, self._fleet = self._fleet, None
        self._fleet_due_s = now_s + FLEET_INTERVAL_S
        self._call("__fleet_change__", (state,))

    def _call(self, method: str, args: tuple[Any, ...]) -> Exception | SystemExit | None:
        began_s = time.monotonic()
        self._at_work = (method, began_s)
        error: Exception | SystemExit | None = None
        blocked = ""
        try:
            getattr(self.monitor, method)(*args)
            blocked = self.monitor.blocked
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - a monitor is a guest in this thread
            error, blocked = exc, self._blocked
        finally:
            self._at_work = None
        changed = blocked != self._blocked
        self._blocked = blocked
        if error is not None:
            self._report(method, error)
        if changed or time.monotonic() - began_s > STUCK_S:
            self._desk.on_trouble()
        return error

    def _report(self, method: str, error: Exception | SystemExit) -> None:
        self.failures[method] += 1
        if self.failures[method] > 1:
            return
        _log.error("monitor %s failed in %s; later failures are counted", self.name, method, exc_info=error)
        self._desk.on_failure(self.monitor, error)
