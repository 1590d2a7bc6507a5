"""One call at a set time, from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Alarm:
    """Calls `ring` at the time that was set last.

    Threads: `set` is for one thread at a time; `close` too, but `ring` may be at work meanwhile.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at_s: float | None = None
        self._timer: threading.Timer | None = None
        self._cancelled: list[threading.Timer] = []

    def set(self, at_s: float | None) -> None:
        """Ring at this time of the monotonic clock, and at no other; None: not at all."""
        if at_s == self._at_s:
            return
        self._cancel()
        self._at_s = at_s
        if at_s is not None:
            self._timer = threading.Timer(max(0.0, at_s - time.monotonic()), self._fire)
            self._timer.name = "alarm"
            self._timer.start()

    def _fire(self) -> None:
        self._at_s = None  # should it turn out to be too early, it can be set to the same again
        self._ring()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._cancelled = [*(one for one in self._cancelled if one.is_alive()), self._timer]
            self._timer = None

    def close(self) -> None:
        """Never ring again; returns when nobody is at it any more. Not from `ring`."""
        self._cancel()
        for timer in self._cancelled:
            timer.join()
