"""The stem: a program that is loaded and linked once, and from which its processes are forked."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread

from runner.errors import HostError
from runner.qemu.bounded_log import open_log
from runner.qemu.confinement import UNCONFINED, Confinement
from runner.qemu.image import cache_root
from runner.qemu.process import Launch, Process

# What follows is as in host_setup/host/stem.c.
PROTOCOL = 3
_VARIABLE = "RTFLEET_STEM"
_DESCRIPTORS_MAX = 16
_REQUEST = struct.Struct(f"=iI3iIQQ{_DESCRIPTORS_MAX}i")
_UNCHANGED, _UNBOUNDED = -1, (1 << 64) - 1
_ANSWER = struct.Struct("=3i")
_READY, _STARTED, _REFUSED, _ENDED = 1, 2, 3, 4

# A stem of QEMU is ready after 20 ms and answers within 2 (measured); a host that swaps may take long.
_READY_S = 10.0
_ANSWER_S = 30.0
_END_S = 5.0


class StemUnusableError(Exception):
    """No stem can be made of this program; says why."""


class StemLostError(Exception):
    """The stem has ended, and all its processes with it."""


def shim_path() -> Path:
    """The shared object that makes a program a stem, where `python -m host_setup` puts it."""
    return cache_root() / "stem" / "current.so"


@dataclass(frozen=True)
class _Asked:
    """A process that the stem is asked for."""

    release: Callable[[], None]
    process: Future[Process] = field(default_factory=Future)


class Stem:
    """One program, stopped before its `main()`, in a process of its own that forks on request.

    What is forked differs from what is plainly started in nothing that a guest could see: it has the environment
    and working folder that the runner had when the stem was made, and shares an address layout with its like.

    Guarantees: the stem ends with the runner, and its processes with the stem: the kernel sees to both. The end of each
    is told at once, without polling. One thread keeps them all; to it the kernel ties the stem's life.
    Threads: `start` is for any thread; `close` too, but for that one.
    """

    def __init__(self, program: Path, shim: Path) -> None:
        """Load the program; takes as long as linking it does.

        Raises:
            StemUnusableError: it does not become a stem: the shim is missing or of another version; the program is
                a script or linked statically; one of its libraries does what a fork would undo.
        """
        self._program = program
        self._shim = shim
        self._ready: Future[None] = Future()
        self._lock = Lock()
        self._asked: _Asked | None = None
        self._running: dict[int, Process] = {}
        self._watched = select.poll()
        self._lost = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._watched.register(self._channel, select.POLLIN)
        self._keeper = Thread(target=self._keep, args=(theirs,), name=f"keeper-stem-{program.name}")
        self._keeper.start()
        try:
            self._ready.result(_READY_S)
        except TimeoutError as exc:
            self.close()
            raise StemUnusableError(f"it was not ready within {_READY_S:g} s") from exc
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether it has ended."""
        return self._lost

    def start(self, launch: Launch, release: Callable[[], None]) -> Process:
        """Fork a process of this program.

        Args:
            release: Called when the process is joined.

        Raises:
            HostError: it could not be started.
            StemLostError: the stem is gone.
        """
        try:
            with os.fdopen(open_log(launch.stderr_path), "ab") as stderr:
                # stdin and stdout are the stem's own: /dev/null.
                numbers = [2, *sorted(set(launch.pass_fds))]
                message = encode_request(launch.command, numbers, launch.cpu, launch.confinement)
                return self._ask(message, [stderr.fileno(), *numbers[1:]], _Asked(release))
        except OSError as exc:
            raise HostError.because(
                exc,
                "QEMU could not be started",
                next_step="see what this computer lacks: python -m host_setup check",
            ) from exc

    def close(self) -> None:
        """End it, and whatever of it still runs; again does nothing."""
        self._hang_up()
        self._keeper.join()
        self._channel.close()

    def _ask(self, message: bytes, fds: Sequence[int], asked: _Asked) -> Process:
        with self._lock:
            if self._lost:
                raise StemLostError
            self._asked = asked
            try:
                socket.send_fds(self._channel, [message], fds, socket.MSG_NOSIGNAL)
                return asked.process.result(_ANSWER_S)
            except TimeoutError as exc:
                self._hang_up()
                raise StemLostError from exc
            except (BrokenPipeError, ConnectionResetError) as exc:
                raise StemLostError from exc
            finally:
                self._asked = None

    def _hang_up(self) -> None:
        """Have the stem end, and the keeper take note of it."""
        self._lost = True
        if self._channel.fileno() >= 0:
            self._channel.shutdown(socket.SHUT_RDWR)

    def _keep(self, theirs: socket.socket) -> None:
        try:
            with theirs, os.fdopen(os.memfd_create("stderr-of-a-stem"), "w+b") as stderr:
                stem = self._load(theirs, stderr.fileno())
                theirs.close()
                self._keep_loaded(stem)
                stderr.seek(0)
                words = stderr.read().decode(errors="replace").strip()
        except OSError as exc:
            words = str(exc)
        if not self._ready.done():
            reason = words or "it is a script or linked statically, or it was loaded with other rights"
            self._ready.set_exception(StemUnusableError(reason))

    def _keep_loaded(self, stem: subprocess.Popen[bytes]) -> None:
        while self._hear(stem):
            pass
        try:
            stem.wait(_END_S)
        except subprocess.TimeoutExpired:
            stem.kill()
            stem.wait()
        self._lost = True
        if (asked := self._asked) is not None and not asked.process.done():
            asked.process.set_exception(StemLostError())
        for process in self._running.values():
            # The kernel has killed it, or is about to.
            ending = select.poll()
            ending.register(process, select.POLLIN)
            ending.poll()
            process.ended(-signal.SIGKILL)

    def _load(self, theirs: socket.socket, stderr: int) -> subprocess.Popen[bytes]:
        shim = os.open(self._shim, os.O_RDONLY)
        try:
            # By descriptor: a path that holds a space or a colon would be two to the dynamic linker.
            preload = [f"/proc/self/fd/{shim}", *filter(None, [os.environ.get("LD_PRELOAD")])]
            return subprocess.Popen(
                # What cannot be a stem says its version and ends.
                [str(self._program), "--version"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(theirs.fileno(), shim),
                env={**os.environ, "LD_PRELOAD": ":".join(preload), _VARIABLE: f"{theirs.fileno()},{shim}"},
                # Ctrl-C in the terminal is for the runner.
                start_new_session=True,
            )
        finally:
            os.close(shim)

    def _hear(self, stem: subprocess.Popen[bytes]) -> bool:
        """Take one message; whether there will be more."""
        if self._channel.fileno() not in dict(self._watched.poll()):
            # A process has ended; a stem that does not say so soon has been stopped, or is out of its mind.
            saying = select.poll()
            saying.register(self._channel, select.POLLIN)
            if not saying.poll(_END_S * 1e3):
                stem.kill()
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, _ANSWER.size, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        if not data:
            return False
        kind, pid, value = _ANSWER.unpack(data)
        if kind == _READY:
            self._welcome(stem.pid, value)
        elif kind == _STARTED:
            self._adopt(pid, fds)
        elif kind == _REFUSED and self._asked is not None:
            self._asked.process.set_exception(OSError(value, os.strerror(value)))
        elif kind == _ENDED and (process := self._running.pop(pid, None)) is not None:
            self._watched.unregister(process)
            process.ended(os.waitstatus_to_exitcode(value))
        return True

    def _welcome(self, pid: int, protocol: int) -> None:
        try:
            loaded = Path(f"/proc/{pid}/exe").readlink()
        except OSError as exc:
            reason = str(exc)
        else:
            if protocol == PROTOCOL and loaded == self._program.resolve():
                self._ready.set_result(None)
                return
            reason = (
                f"it is a script for {loaded}" if protocol == PROTOCOL else f"{self._shim} is out of date"
            )
        self._ready.set_exception(StemUnusableError(reason))
        self._hang_up()

    def _adopt(self, pid: int, pidfds: Sequence[int]) -> None:
        asked = self._asked
        if asked is None:  # nobody waits any more: the stem was told to end, and takes the process along
            for pidfd in pidfds:
                os.close(pidfd)
        elif pidfds:
            self._running[pid] = process = Process(pid, pidfds[0], asked.release)
            self._watched.register(process, select.POLLIN)
            asked.process.set_result(process)
        else:
            # The kernel dropped the pidfd. The number is still this process's own: millions come before it comes again.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            asked.process.set_exception(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))


def encode_request(
    command: Sequence[str],
    numbers: Sequence[int],
    cpu: int | None,
    confinement: Confinement = UNCONFINED,
) -> bytes:
    """What the stem is sent, beside the descriptors themselves.

    Args:
        numbers: By which the process is to see them, ascending.

    Raises:
        ValueError: an argument holds a NUL, or there are too many descriptors.
    """
    words = [os.fsencode(word) for word in command]
    if any(b"\0" in word for word in words) or len(numbers) > _DESCRIPTORS_MAX:
        raise ValueError(f"no process can be started with {command!r} and {len(numbers)} descriptors")
    account, bounds = confinement.account, (confinement.file_bytes, confinement.memory_bytes)
    head = _REQUEST.pack(
        _UNCHANGED if cpu is None else cpu,
        len(numbers),
        _UNCHANGED if account is None else account.uid,
        _UNCHANGED if account is None else account.gid,
        _UNCHANGED if confinement.group is None else confinement.group,
        confinement.n_open,
        *(_UNBOUNDED if bound is None else bound for bound in bounds),
        *numbers,
        *[0] * (_DESCRIPTORS_MAX - len(numbers)),
    )
    return head + b"".join(word + b"\0" for word in words)
