"""The operator's signals: what Ctrl-C and SIGTERM mean to a run."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class OperatorSignals:
    """Call `drain` at the first SIGINT and at SIGTERM, `kill` at the second SIGINT; a context manager of the main thread.

    The calls come from a thread of their own: a signal can hit the main thread anywhere, also while it holds the very lock that
    the call would need.
    """

    def __init__(self, *, drain: Callable[[], None], kill: Callable[[], None]) -> None:
        self._drain = drain
        self._kill = kill
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._act, name="signals")
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> Self:
        self._thread.start()
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._signals.put(None)
        self._thread.join()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.put(number)  # reentrant, unlike queue.Queue.put

    def _act(self) -> None:
        interrupts = 0
        while (number := self._signals.get()) is not None:
            interrupts += number == signal.SIGINT
            if interrupts >= 2:
                self._kill()
            else:
                self._drain()
