"""One runner per run folder: the lock that says so, and what a runner that was killed has left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.errors import HostError, UsageError
from runner.paths import RunPaths
from runner.qemu.console_link import LINK_NAME, read_link

_MAX_OWNER_CHARS = 200
# As `tempfile` names them, so that an editor's own files beside the control file (`.control.yaml.swp`) stay.
_TEMPORARY = re.compile(r"\.(control\.yaml|status\.json|manifest\.json|multirun\.yaml|\.hydra)\.[a-z0-9_]{8}")
_TEMPORARY_LINK = re.compile(rf"\.{re.escape(LINK_NAME)}\.[a-z0-9_]{{8}}")


class RunLock:
    """Holds the run folder for this process; a context manager.

    Guarantees: one holder at a time, also among processes of several computers where the file system carries flock; the kernel
    lets go of it the moment its owner ends, however it ends. The descriptor is closed in children. The file is gone afterwards,
    unless the owner was killed; then the next one takes it over.

    Args:
        folder: The run folder; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._path = RunPaths(folder).lock
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            UsageError: somebody else holds it; says who.
            HostError: the file system has no locks.
            OSError: the folder cannot be written.
        """
        while self._fd < 0:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(fd)
                if self._is_current(fd):
                    self._fd = fd
            finally:
                if self._fd != fd:
                    os.close(fd)
        owner = f"process {os.getpid()} on {platform.node()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{owner}\n".encode(), 0)
        return self

    def _is_current(self, fd: int) -> bool:
        """Whether the path still leads to this file: its last owner may have removed it after we had opened it."""
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, _MAX_OWNER_CHARS, 0).decode(errors="replace").strip()
            raise UsageError(
                f"another runner works in {self._path.parent}: {owner or 'it has just begun'}",
                where=str(self._path),
                next_step="wait for its end, or end it (SIGTERM drains), and start again",
            ) from None
        except OSError as exc:
            if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise HostError(
                f"the file system of {self._path.parent} has no locks: {exc.strerror}",
                where="hydra.run.dir",
                next_step="choose another place: hydra.run.dir=/path",
            ) from exc

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def clear_leftovers(folder: Path) -> None:
    """Remove what a runner that was killed has left in a run folder: its half-written files, consoles of guests that are gone.

    Looks at the places where such files can be, and at names that only this program gives; call it with the lock held.

    Raises:
        OSError: something cannot be removed.
    """
    paths = RunPaths(folder)
    for path in _children(folder):
        if _TEMPORARY.fullmatch(path.name):
            _remove(path)
    if paths.jobs.is_dir():
        _remove(paths.jobs)
    for path in _children(paths.parquet):
        if path.name.startswith(".partial-"):
            _remove(path)
    for machine in _children(paths.machines):
        for path in _children(machine):
            if _TEMPORARY_LINK.fullmatch(path.name) or (path.name == LINK_NAME and not _runs(machine)):
                _remove(path)


def _children(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from list(folder.iterdir())


def _runs(machine: Path) -> bool:
    try:
        read_link(machine)
    except UsageError:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
