"""Processes that are forked from this one, which has imported all that they need: some milliseconds each."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.crash.injector import LOADED, Crash, Report, Shim, preload

#: Nothing takes so long; reaching it is a hang.
HANG_S = 120.0
#: A guest may live so much longer than its runner.
ORPHANS_S = 2.0
_PR_SET_CHILD_SUBREAPER = 36

_Case = TypeVar("_Case")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Kill:
    """SIGKILL, `after_s` seconds after the process began, unless it has ended by then."""

    after_s: float


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; -9 if it was killed; None if it hung.
        report: What the shim has counted.
        took_s: How long it lived.
        left: The programs that it has left behind, by name.
    """

    code: int | None
    report: Report
    took_s: float
    left: tuple[str, ...] = ()

    @property
    def crashed(self) -> bool:
        """Whether it died of what was planned for it."""
        return self.code == -signal.SIGKILL


def carried_out(
    work: Callable[[], int], end: Crash | Kill | None, folder: Path, output: Path, *, execs: bool = False
) -> Ended:
    """Do `work` in a process of its own, which ends with what it returns, or in the planned way.

    A process that reaches its end before a crash with loss of power loses the power then.

    Args:
        end: None: it is left alone.
        folder: Operations on files under it count.
        output: The file that takes what it prints.
        execs: Whether `work` has another program take its place, which then is what crashes.
    """
    reading, writing = os.pipe()
    began_s = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(work, end, folder, output, writing, execs=execs)
    os.close(writing)
    in_time = _wait(pid, end.after_s if isinstance(end, Kill) else HANG_S)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    took_s = time.monotonic() - began_s
    code = os.waitstatus_to_exitcode(status)
    left = _orphans_left()
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        report = Report.parse(pipe.read())
    return Ended(code if in_time or isinstance(end, Kill) else None, report, took_s, left)


def _child(
    work: Callable[[], int],
    end: Crash | Kill | None,
    folder: Path,
    output: Path,
    report_fd: int,
    *,
    execs: bool,
) -> None:
    code = 1
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(fd, standard)
        if not isinstance(end, Crash):
            os.close(report_fd)
            code = work()
        elif execs:
            os.set_inheritable(report_fd, True)
            os.environ.update(preload(Path(os.environ[LOADED]), end, folder, report_fd))
            work()
        else:
            shim = Shim()
            shim.arm(end, folder, report_fd)
            code = work()
            shim.end(power_lost=end.at > 0)
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


def adopt_orphans() -> None:
    """From now on what a process of ours leaves behind becomes our own child, so that it can be seen."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _orphans_left() -> tuple[str, ...]:
    """The programs that still live `ORPHANS_S` seconds later; they are then ended."""
    deadline_s = time.monotonic() + ORPHANS_S
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        children = _children()
        if not children:
            return ()
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.01)
    names = tuple(sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in children))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return names


def _children() -> list[int]:
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


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
                adopt_orphans()
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
