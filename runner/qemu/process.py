"""A process on this computer: its end is noticed at once, by whoever keeps it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from runner.deadline import Deadline
from runner.qemu.confinement import UNCONFINED, Confinement


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A process to be started, which cannot outlive the runner and which Ctrl-C in the terminal does not reach.

    Attributes:
        command: The program's file and its arguments, which arrive as they are.
        pass_fds: File descriptors that it inherits under the same numbers, and no others; they stay the caller's to close.
        stderr_path: File that receives what it says on stderr, after what it holds already.
        cpu: The only CPU of this computer that it may use; None leaves it all that the runner may use.
        confinement: What else it may do.
    """

    command: tuple[str, ...]
    pass_fds: tuple[int, ...]
    stderr_path: Path
    cpu: int | None = None
    confinement: Confinement = UNCONFINED


class Process:
    """A process that was started. Somebody keeps it, who tells of its end by `ended`.

    Threads: every method may be called from any thread.

    Attributes:
        pid: The process id; the process's own while it runs.
        returncode: None while it runs; negative: the signal that ended it.
    """

    def __init__(self, pid: int, pidfd: int, release: Callable[[], None]) -> None:
        """
        Args:
            pidfd: Refers to it; closed by `join`.
            release: Called at the end of `join`.
        """
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._release = release
        self._exited = Event()

    def wait(self, deadline: Deadline) -> bool:
        """Wait for its end; whether it came before the deadline."""
        return self._exited.wait(deadline.remaining_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            # Unlike a process id, this never means another process that was given the number of one that ended.
            signal.pidfd_send_signal(self._pidfd, number)

    def fileno(self) -> int:
        """A descriptor that is readable once it has ended."""
        return self._pidfd

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it (SIGSTOP, a debugger), so that it neither runs nor ends."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            return False
        return stat.rpartition(")")[2].split()[0] in ("T", "t")

    def join(self) -> None:
        """Release what is left once it has ended; waits for that, and no call may follow."""
        self._exited.wait()
        os.close(self._pidfd)
        self._release()

    def ended(self, returncode: int) -> None:
        """For the keeper, once: it is gone."""
        self.returncode = returncode
        self._exited.set()
