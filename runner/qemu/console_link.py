"""The file in a machine's folder that tells where its console can be attached to while it runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.errors import ProtocolError, UsageError
from runner.files.durable import read_json, replace_text

LINK_NAME = "console.json"

# Whoever attaches opens it for writing: it must be nothing else.
_TERMINAL = re.compile(r"/dev/pts/\d{1,10}", re.A)


@dataclass(frozen=True)
class ConsoleLink:
    """A pseudo-terminal, and the process that it belongs to.

    Attributes:
        pty: Path of its terminal side: `/dev/pts/5`.
        pid: The process that answers on it.
        started_ticks: When that process started (field 22 of /proc/PID/stat): tells it from a later one with the same
            number, and this terminal from one that somebody else was given since.
    """

    pty: str
    pid: int
    started_ticks: int

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return started_ticks(self.pid) == self.started_ticks


def write_link(folder: Path, pty: str, pid: int, *, take_over: bool = True) -> Callable[[], None]:
    """Write the file for a running process; the returned function removes it, unless it is another one's by then.

    Args:
        take_over: Also where the file is that of another one that runs: while a machine's guest runs, the next is made ready.

    Raises:
        OSError: the folder cannot be written.
        ProtocolError: `pty`, of which QEMU has told, is no terminal.
    """
    if not _TERMINAL.fullmatch(pty):
        raise ProtocolError(f"QEMU names {pty!r:.80} as the terminal of its console", where=str(folder))
    path = folder / LINK_NAME
    link = ConsoleLink(pty, pid, started_ticks(pid) or 0)
    with _locked(folder):
        before = _found(path)
        if before != link and (take_over or before is None or not before.alive):
            replace_text(path, json.dumps(asdict(link)) + "\n")

    def remove() -> None:
        with suppress(OSError), _locked(folder):
            found = _found(path)
            if found is None or found == link or not found.alive:
                path.unlink(missing_ok=True)

    return remove


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Of a machine's guests one looks at the file and changes it at a time."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _found(path: Path) -> ConsoleLink | None:
    with suppress(OSError, ValueError):
        match read_json(path):
            case {"pty": str(pty), "pid": int(pid), "started_ticks": int(ticks)}:
                return ConsoleLink(pty, pid, ticks)
    return None


def read_link(folder: Path) -> ConsoleLink:
    """The console of the machine whose folder this is.

    Raises:
        UsageError: it does not run; says what can be read instead.
    """
    link = _found(folder / LINK_NAME)
    if link is None or not _TERMINAL.fullmatch(link.pty) or not link.alive:
        raise UsageError(
            f"{folder.name} does not run",
            where=str(folder),
            next_step=f"what its console showed last is in {folder / 'console.log'}",
        )
    return link


def started_ticks(pid: int) -> int | None:
    """When a process started; None if it is not there, or only its entry is, which nobody collected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name, in parentheses that it may contain itself.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
