"""Processes that are forked from this one, which has imported all that they need: some milliseconds each."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.crash.injector import Crash, Report, Shim

#: Nothing takes so long; reaching it is a hang.
HANG_S = 120.0

_Case = TypeVar("_Case")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; -9 if it was killed; None if it hung.
        report: What the shim has counted.
        output: What it has printed.
    """

    code: int | None
    report: Report
    output: str


def crashed(
    work: Callable[[], int], crash: Crash, folder: Path, output: Path, *, kill_after_s: float | None = None
) -> Ended:
    """Do `work` in a process of its own, which ends with what it returns, or crashes.

    A process that reaches its end before a crash with loss of power loses the power then.

    Args:
        folder: Operations on files under it count.
        output: The file that takes what it prints.
        kill_after_s: SIGKILL it then, if it still lives.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _child(work, crash, folder, output, writing)
    os.close(writing)
    code: int | None
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        ended = _wait(pid, HANG_S if kill_after_s is None else kill_after_s)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if not ended and kill_after_s is None:
            code = None
        report = Report.parse(pipe.read())
    return Ended(code, report, output.read_text(errors="replace"))


def _child(work: Callable[[], int], crash: Crash, folder: Path, output: Path, report_fd: int) -> None:
    code = 1
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(fd, standard)
        shim = Shim()
        shim.arm(crash, folder, report_fd)
        code = work()
        shim.end(power_lost=crash.at > 0)
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, within_s: float) -> bool:
    """Whether it ended in time."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))
    finally:
        os.close(fd)


class Pool(Generic[_Case, _Found]):
    """Examines cases, each in a process of its own, several at a time.

    Args:
        examine: Called in the case's process; what it returns is pickled.
    """

    def __init__(self, examine: Callable[[_Case], _Found], n_at_once: int) -> None:
        self._examine = examine
        self._n_at_once = n_at_once
        self._running: dict[int, tuple[_Case, int]] = {}

    def results(self, cases: Iterable[_Case]) -> Iterator[tuple[_Case, _Found | str]]:
        """Each case and what was found, in the order in which they end; a text is the traceback of a failure to examine.

        The next case is asked for only when there is room for it.
        """
        for case in cases:
            while len(self._running) >= self._n_at_once:
                yield self._next()
            self._start(case)
        while self._running:
            yield self._next()

    def _start(self, case: _Case) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            found: _Found | str
            try:
                for fd in self._running:
                    os.close(fd)
                found = self._examine(case)
            except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
                found = traceback.format_exc()
            with open(writing, "wb") as pipe:
                pickle.dump(found, pipe)
            os._exit(0)
        os.close(writing)
        self._running[reading] = (case, pid)

    def _next(self) -> tuple[_Case, _Found | str]:
        ready, _, _ = select.select(list(self._running), [], [])
        case, pid = self._running.pop(ready[0])
        with open(ready[0], "rb") as pipe:
            found = pickle.load(pipe)
        os.waitpid(pid, 0)
        return case, found
