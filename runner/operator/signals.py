"""The operator's signals: what Ctrl-C and SIGTERM mean to a run."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_END = b"\0"  # no signal has this number
_log = logging.getLogger("runner.signals")


class OperatorSignals:
    """Take SIGINT and SIGTERM from the main thread, keep them, and follow them; a context manager of the main thread.

    Those that come before `follow()` wait for it. The calls come from a thread of their own: a signal can hit the main thread
    anywhere, also while it holds the very lock that the call would need. What they raise is logged, and later signals are
    still heard.

    Raises:
        ValueError: from `with`, outside the main thread: only there can Python take signals.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._fd_before = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # Python's own handlers run once the main thread wakes up, and a signal that comes while it is on its way into a long
        # sleep does not wake it. What is written here is written at once.
        try:
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
            self._reader.close()
            self._writer.close()
            raise
        for number in self._before:
            signal.signal(number, _noted)
        return self

    def follow(self, *, drain: Callable[[], None], kill: Callable[[], None]) -> None:
        """Call `drain` at the first SIGINT and at SIGTERM, `kill` at the second SIGINT; to be called once."""
        self._thread = threading.Thread(target=self._act, args=(drain, kill), name="signals")
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        if self._thread is not None:
            self._writer.setblocking(True)
            self._writer.sendall(_END)
            self._thread.join()
        self._reader.close()
        self._writer.close()

    def _act(self, drain: Callable[[], None], kill: Callable[[], None]) -> None:
        interrupts = 0
        while (byte := self._reader.recv(1)) != _END:
            if byte[0] not in self._before:  # somebody else's signal
                continue
            interrupts += byte[0] == signal.SIGINT
            try:
                (kill if interrupts >= 2 else drain)()
            except Exception as exc:  # noqa: BLE001 - the thread's top: the next Ctrl-C must still work
                name = signal.Signals(byte[0]).name
                _log.error("%s could not be followed: %s", name, exc, exc_info=exc)


def _noted(number: int, frame: FrameType | None) -> None:
    """Has Python catch the signal; the work is done by the thread."""
