"""How each process of QEMU is started: from a stem where that works, and plainly where it does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from runner.qemu.plain_start import start_plainly
from runner.qemu.process import Launch, Process
from runner.qemu.stem import Stem, StemLostError, StemUnusableError, shim_path

_log = logging.getLogger("runner.qemu.launcher")


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

    def start(self, launch: Launch) -> Process:
        """Start a process.

        Raises:
            HostError: when it could not be started.
        """
        program = Path(launch.command[0])
        changed_ns = program.stat().st_mtime_ns if program.exists() else 0
        kind = _Kind(program, changed_ns, self._shim())
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
        return start_plainly(launch)

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


#: Of this process, which has one command line and one cache.
LAUNCHER = Launcher()
