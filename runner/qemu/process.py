"""The QEMU process: cannot outlive the runner, and its end is noticed at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from runner.deadline import Deadline
from runner.errors import HostError

# `setpriv` has the kernel send SIGKILL when the runner dies; the shell then leaves if it died before that was in
# force, for then its parent is another one. Together 1.2 ms, measured; a Python launcher takes 12 ms.
_TIED_TO_PARENT = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "/bin/sh",
    "-c",
    'test "$PPID" = "$0" && exec "$@"',
)


class QemuProcess:
    """One process and the thread that keeps it.

    The keeper thread forks the process and then waits for it, for two reasons: the kernel ties the death signal to
    the *thread* that forked, so that thread has to live as long as the process; and its end is seen without polling.

    Threads: every method may be called from any thread.

    Attributes:
        pid: The process id; the process's own while it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int],
        stderr_path: Path,
        on_exit: Callable[[int], None],
        cpu: int | None = None,
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            pass_fds: File descriptors that it inherits under the same numbers; they stay the caller's to close.
            stderr_path: File that receives what it says on stderr, after what it holds already.
            on_exit: Called with the return code (negative: the signal that ended it) from the keeper thread.
            cpu: The only CPU of this computer that it may use; None leaves it all that the runner may use.

        Raises:
            HostError: when it could not be started.
        """
        self._command = [*_TIED_TO_PARENT, str(os.getpid()), *command]
        self._pass_fds = tuple(pass_fds)
        self._stderr_path = stderr_path
        self._on_exit = on_exit
        self._cpu = cpu
        self._forked: Future[int] = Future()
        self._exited = Event()
        self.pid = 0
        self._keeper = Thread(target=self._keep, name=f"keeper-{Path(command[0]).name}")
        self._keeper.start()
        try:
            self._pidfd = self._forked.result()
        except OSError as exc:
            self._keeper.join()
            raise HostError(
                f"QEMU could not be started: {exc}",
                next_step="see what this computer lacks: python -m host_setup check",
            ) from exc

    def wait(self, deadline: Deadline) -> bool:
        """Wait for its end; whether it came before the deadline."""
        return self._exited.wait(deadline.remaining_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            # Unlike a process id, this never means another process that was given the number of one that ended.
            signal.pidfd_send_signal(self._pidfd, number)

    def join(self) -> None:
        """Release what is left once `wait` was true; not from `on_exit`, and no call may follow."""
        self._keeper.join()
        os.close(self._pidfd)

    def _keep(self) -> None:
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})  # of this thread, whose child inherits it
            with self._stderr_path.open("ab") as stderr:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=self._pass_fds,
                    # Ctrl-C in the terminal is for the runner, which ends its guests in order.
                    start_new_session=True,
                )
        except OSError as exc:
            self._forked.set_exception(exc)
            return
        self.pid = process.pid
        self._forked.set_result(os.pidfd_open(process.pid))
        returncode = process.wait()
        self._exited.set()
        self._on_exit(returncode)
