"""What the rehearsal knows of processes: those that descend from it, a stem among them, and where an emulator's console is."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on, what loses its parent becomes a child of this process, if it descends from it: nothing gets out of sight."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> dict[int, str]:
    """Process id -> command line of all that descends from a process and has not ended."""
    children: dict[int, list[int]] = {}
    alive = set()
    for one, parent, state in _table():
        children.setdefault(parent, []).append(one)
        if state not in "ZX":
            alive.add(one)
    found, left = {}, list(children.get(pid, ()))
    while left:
        one = left.pop()
        left += children.get(one, ())
        if one in alive:
            found[one] = command_of(one)
    return found


def bury() -> None:
    """Collect the orphans that have ended; whoever calls this waits for no child of its own meanwhile."""
    for one, parent, state in _table():
        if parent == os.getpid() and state == "Z":
            with suppress(ChildProcessError):
                os.waitpid(one, os.WNOHANG)


def stem_of(runner_pid: int) -> int | None:
    """The stem of a runner's emulators, if it has one: loaded as if to tell its version."""
    for one, command in descendants(runner_pid).items():
        words = command.split()
        if words and "qemu" in Path(words[0]).name and "--version" in words:
            return one
    return None


def console_of(host_pid: int) -> Path | None:
    """The terminal side of the pseudo-terminal that a process has opened; None if it has none, or that may not be known."""
    with suppress(OSError):
        for one in Path(f"/proc/{host_pid}/fd").iterdir():
            with suppress(OSError):
                if not os.readlink(one).endswith("ptmx"):
                    continue
                for line in Path(f"/proc/{host_pid}/fdinfo/{one.name}").read_text().splitlines():
                    if line.startswith("tty-index:"):
                        return Path(f"/dev/pts/{int(line.split()[1])}")
    return None


def command_of(pid: int) -> str:
    """A process's command line; empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _table() -> Iterator[tuple[int, int, str]]:
    """Of each process its number, its parent's, and its state."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            yield int(path.parent.name), int(parent), state
