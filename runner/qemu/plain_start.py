"""Start a process the plain way: load the program's file, and have a thread keep the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from runner.errors import HostError
from runner.qemu.bounded_log import open_log
from runner.qemu.confinement import Confinement
from runner.qemu.process import Launch, Process

# Has the kernel kill it when the runner dies, confines it, and becomes QEMU; in 14 ms of CPU time (measured).
_BECOME = (sys.executable, "-I", "-S", str(Path(__file__).with_name("become.py")))


def start_plainly(launch: Launch, shim: Path | None) -> Process:
    """Start a process and the thread that keeps it.

    Args:
        shim: The shared object that QEMU needs to keep exact time (host_setup/host/turns.c); None: it need not.

    The keeper thread forks the process and then waits for it, for two reasons: the kernel ties the death signal to
    the *thread* that forked, so that thread has to live as long as the process; and its end is seen without polling.

    Raises:
        HostError: when it could not be started.
    """
    started: Future[Process] = Future()
    keeper = threading.Thread(
        target=_keep, args=(launch, shim, started), name=f"keeper-{Path(launch.command[0]).name}"
    )
    keeper.start()
    try:
        return started.result()
    except OSError as exc:
        keeper.join()
        raise HostError.because(
            exc,
            "QEMU could not be started",
            next_step="see what this computer lacks: python -m host_setup check",
        ) from exc


def _keep(launch: Launch, shim: Path | None, started: Future[Process]) -> None:
    try:
        if launch.cpu is not None:
            os.sched_setaffinity(0, {launch.cpu})  # of this thread, whose child inherits it
        with os.fdopen(open_log(launch.stderr_path), "ab") as stderr, _opened(shim) as shim_fds:
            child = subprocess.Popen(
                [
                    *(*_BECOME, str(os.getpid()), _word(launch.confinement), *map(str, shim_fds or [-1])),
                    *launch.command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(*launch.pass_fds, *shim_fds),
                # Ctrl-C in the terminal is for the runner, which ends its guests in order.
                start_new_session=True,
            )
    except OSError as exc:
        started.set_exception(exc)
        return
    process = Process(child.pid, os.pidfd_open(child.pid), release=threading.current_thread().join)
    started.set_result(process)
    process.ended(child.wait())


@contextmanager
def _opened(path: Path | None) -> Iterator[list[int]]:
    """Its descriptor, as long as the block runs; none where there is no file."""
    if path is None:
        yield []
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield [fd]
    finally:
        os.close(fd)


def _word(confinement: Confinement) -> str:
    """A confinement as one argument of `become`; -1 where nothing is bounded or changed."""
    account = confinement.account
    numbers = (
        None if account is None else account.uid,
        None if account is None else account.gid,
        confinement.group,
        confinement.n_open,
        confinement.file_bytes,
        confinement.memory_bytes,
    )
    return ",".join("-1" if number is None else str(number) for number in numbers)
