"""The process of a run that was started from Python: `python -m runner.notebook.child LINE PARENT ARGUMENT…`.

LINE is the descriptor of a socket whose other end its starter has, PARENT that process; the rest is the command line's. The run
ends with either: in order, and within a second at once.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from runner.__main__ import leave

# What one task set more may take when nobody is there any more who asked for it.
PATIENCE_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """The exit code of the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    line, parent, *rest = arguments
    with socket.socket(fileno=int(line)) as starter, Attendance(starter, int(parent)):
        starter.set_inheritable(False)  # no guest is to keep it open
        # late import: a signal meanwhile must end it in order
        from runner.notebook.attended import run_attended

        return run_attended(rest, lambda message: _tell(starter, message))


def _tell(line: socket.socket, message: bytes) -> None:
    with suppress(OSError):  # nobody is there any more, which is noticed elsewhere
        line.sendall(message)


class Attendance:
    """Interrupts this process, and what belongs to it, when its starter has gone; a context manager of the main thread.

    That is so when the starter's process has ended, or let go of the line: what its own children hold does not count.
    """

    def __init__(self, line: socket.socket, parent: int) -> None:
        self._line = line
        self._parent = parent
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="attendance")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over
        self._over.set()
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RD)  # wakes the thread
        self._thread.join()

    def _watch(self) -> None:
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(self._line, selectors.EVENT_READ)
            with suppress(OSError):  # no such process any more; a kernel older than 5.3
                process = os.pidfd_open(self._parent)
                stack.callback(os.close, process)
                selector.register(process, selectors.EVENT_READ)
            if os.getppid() == self._parent:
                selector.select()
        if self._over.is_set():
            return
        # As a terminal would: to whatever runs for it, but for the guests, which it ends itself.
        os.killpg(os.getpgrp(), signal.SIGINT)
        while not self._over.wait(PATIENCE_S):  # the second kills the machines, a third the report
            os.killpg(os.getpgrp(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
