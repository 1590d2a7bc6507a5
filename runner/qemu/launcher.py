"""How each process of QEMU is started: from a stem where that works, and plainly where it does not."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from runner.errors import HostError
from runner.qemu.become import TURNS_VARIABLE, preloading
from runner.qemu.command import sandboxed
from runner.qemu.plain_start import start_plainly
from runner.qemu.process import Launch, Process
from runner.qemu.stem import Stem, StemLostError, StemUnusableError, shim_path

_log = logging.getLogger("runner.qemu.launcher")

_VERSION_TIMEOUT_S = 30.0

# The option of a QEMU whose time is counted.
_COUNTS = "-icount"


@dataclass(frozen=True)
class _Kind:
    """Processes that one stem serves.

    Attributes:
        program: Their program's file.
        changed_ns: When the file was changed last: a new QEMU is a new program.
        shim: What makes a stem of it.
    """

    program: Path
    changed_ns: int
    shim: Path


class Launcher:
    """Starts processes, with one stem for each program.

    A fleet makes the next guest ready before it lets go of the last: its stem lives as long as it does.

    Guarantees: a stem lives until the last of its processes was joined, and no longer; one that died is replaced.
    Threads: every method is for any thread.
    """

    def __init__(self, shim: Callable[[], Path] = shim_path) -> None:
        """
        Args:
            shim: Where the shared object is that makes a stem of a program.
        """
        self._shim = shim
        self._lock = Lock()
        self._stems: dict[_Kind, Stem] = {}
        self._n_tenants: Counter[Stem] = Counter()
        self._unusable: set[_Kind] = set()
        self._sandboxed: dict[tuple[Path, int], bool] = {}
        self._sound: dict[tuple[Path, int], bool] = {}

    def start_qemu(self, launch: Launch, *, anew: bool = False) -> Process:
        """Start a QEMU, in its sandbox where it has one; that one has none is said once.

        Args:
            anew: Load it from its file rather than fork it from its stem, which is not trusted any more.

        Raises:
            HostError: when it could not be started.
        """
        program = Path(launch.command[0])
        key = (program, _changed_ns(program))
        with self._lock:
            if key not in self._sandboxed:
                self._sandboxed[key] = has_sandbox(program)
                if not self._sandboxed[key]:
                    _log.warning("%s runs without its sandbox: it was built without seccomp", program.name)
                if launch.confinement.account is None and os.geteuid() == 0:
                    _log.warning("%s runs as root: there is no other user that it could become", program.name)
            sandbox = self._sandboxed[key]
        if sandbox:
            launch = replace(launch, command=tuple(sandboxed(launch.command)))
        if not anew:
            return self.start(launch)
        self.renew(program)
        return start_plainly(launch, self._turns(launch))

    def renew(self, program: Path) -> None:
        """Have the next process of this program come from a new stem; the present one goes with its last."""
        with self._lock:
            self._stems = {kind: stem for kind, stem in self._stems.items() if kind.program != program}

    def start(self, launch: Launch) -> Process:
        """Start a process.

        Raises:
            HostError: when it could not be started.
        """
        program = Path(launch.command[0])
        kind = _Kind(program, _changed_ns(program), self._shim())
        for _ in range(2):
            stem = self._enter(kind)
            if stem is None:
                break
            leave = partial(self._leave, kind, stem)
            try:
                return stem.start(launch, release=leave)
            except StemLostError:
                _log.info("the stem of %s has ended: a new one is made", program.name)
                leave()
            except BaseException:
                leave()
                raise
        return start_plainly(launch, self._turns(launch))

    def _turns(self, launch: Launch) -> Path | None:
        """The shared object without which this process would not keep exact time; None where it need not, or there is none."""
        if _COUNTS not in launch.command:
            return None
        shim = self._shim()
        key = (shim, _changed_ns(shim))
        with self._lock:
            if key not in self._sound:
                self._sound[key] = _can_be_preloaded(shim)
                if not self._sound[key]:
                    _log.warning(
                        "on a busy host not every measurement repeats exactly: %s is missing, damaged or old;"
                        " next: python -m host_setup stem",
                        shim,
                    )
            return shim if self._sound[key] else None

    def _enter(self, kind: _Kind) -> Stem | None:
        """The stem, with one process more; None where there can be none."""
        with self._lock:
            stem = self._stems.get(kind)
            if stem is None or stem.lost:
                if kind in self._unusable:
                    return None
                try:
                    stem = self._stems[kind] = Stem(kind.program, kind.shim)
                except StemUnusableError as exc:
                    self._unusable.add(kind)
                    _log.info("each %s is loaded anew, which takes longer: %s", kind.program.name, exc)
                    return None
            self._n_tenants[stem] += 1
            return stem

    def _leave(self, kind: _Kind, stem: Stem) -> None:
        with self._lock:
            self._n_tenants[stem] -= 1
            if self._n_tenants[stem] > 0:
                return
            del self._n_tenants[stem]
            if self._stems.get(kind) is stem:
                del self._stems[kind]
        stem.close()


def has_sandbox(binary: Path) -> bool:
    """Whether a QEMU was built with seccomp; takes as long as linking it does.

    Raises:
        HostError: it does not even start.
    """
    try:
        # Options are read one after the other: an unknown one ends it before it comes to tell its version.
        done = subprocess.run(
            [*sandboxed([str(binary)]), "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise HostError(f"QEMU does not start: {exc}", where=str(binary)) from exc
    # Whatever else is wrong with it will be told when it is started, in its sandbox.
    return done.returncode == 0 or b"sandbox" not in done.stderr


def _can_be_preloaded(shim: Path) -> bool:
    """Whether it knows of turns, and a program that it is loaded into works."""
    try:
        with shim.open("rb") as file:
            if TURNS_VARIABLE.encode() not in file.read():  # one of an earlier version
                return False
            done = subprocess.run(
                ["true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=(file.fileno(),),
                env={"PATH": os.defpath, **preloading(file.fileno(), {})},
                timeout=_VERSION_TIMEOUT_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return False
    # The dynamic linker passes over what it cannot load, and says so.
    return done.returncode == 0 and not done.stderr


def _changed_ns(program: Path) -> int:
    return program.stat().st_mtime_ns if program.exists() else 0


#: Of this process, which has one command line and one cache.
LAUNCHER = Launcher()
