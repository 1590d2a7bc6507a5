"""Memory that the runner shares with emulators: no name in the file system, gone with its last user."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from runner.errors import HostShortage

# Whoever maps memory that another one makes shorter is ended by SIGBUS when he looks at it.
_FIXED_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_FIXED_CONTENT = _FIXED_SIZE | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Memory:
    """Memory of a fixed size, full of zeros, that takes up no more than what was written. Left as a context manager, the
    runner's hold on it is released.

    An emulator opens it anew, by number, which neither its user nor the folders on the way can forbid: the kernel
    lets anybody who has it open such memory.

    Attributes:
        fd: What QEMU has to inherit, under the same number.
    """

    def __init__(self, name: str, size_bytes: int) -> None:
        """
        Args:
            name: For messages, and for what the kernel shows of it.

        Raises:
            HostShortage: there is no memory, or no file descriptor, for it.
        """
        try:
            self.fd = os.memfd_create(f"rtfleet-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(self.fd, size_bytes)
                fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _FIXED_SIZE)
            except BaseException:
                os.close(self.fd)
                raise
        except OSError as exc:
            raise _shortage(name, exc) from exc

    @property
    def path(self) -> Path:
        """By which the process that inherited `fd` opens it."""
        return Path(f"/proc/self/fd/{self.fd}")

    def write_to(self, path: Path) -> None:
        """Put the content into a new file of the user's own, as short as it can be on disk.

        Raises:
            OSError: the file cannot be written, or is there already.
        """
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy(self.fd, file)
            os.ftruncate(file, os.fstat(self.fd).st_size)
        finally:
            os.close(file)

    def close(self) -> None:
        """Release it."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MailboxMemory(Memory):
    """One guest's mailbox.

    Attributes:
        region: The memory itself.
    """

    def __init__(self, name: str, size_bytes: int) -> None:
        """
        Raises:
            HostShortage: as of `Memory`.
        """
        super().__init__(name, size_bytes)
        try:
            self.region = mmap.mmap(self.fd, size_bytes)
        except OSError as exc:
            super().close()
            raise _shortage(name, exc) from exc

    def content(self) -> bytes:
        """What a guest that was just booted has written: at the beginning, and less than a MiB."""
        return self.region[: 1 << 20].rstrip(b"\0")

    def refill(self, content: bytes) -> None:
        """Bring that back."""
        self.region[: len(content)] = content

    def close(self) -> None:
        self.region.close()
        super().close()


class SealedCopy(Memory):
    """A file's content, which from now on nobody can change: neither who has the file nor who has this."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: the file cannot be read.
            HostShortage: as of `Memory`.
        """
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            super().__init__(path.name, os.fstat(file).st_size)
            try:
                _copy(file, self.fd)
                fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _FIXED_CONTENT)
            except BaseException as exc:
                self.close()
                if isinstance(exc, OSError) and exc.errno in (errno.ENOMEM, errno.ENOSPC):
                    raise _shortage(path.name, exc) from exc
                raise
        finally:
            os.close(file)


class CopyShelf:
    """Sealed copies of files that never change, one of each, shared by all emulators of this process.

    Guarantees: whoever asks for a file while another one copies it waits for that copy. Those not asked for any more
    go, but for the last few; emulators that have them keep them for as long as they live.
    Threads: every method is for any thread.
    """

    def __init__(self, n_kept: int) -> None:
        """
        Args:
            n_kept: How many stay though nobody holds them.
        """
        self._n_kept = n_kept
        self._lock = Lock()
        self._copies: OrderedDict[tuple[object, ...], SealedCopy] = OrderedDict()
        self._held: list[SealedCopy] = []

    @contextmanager
    def copy_of(self, path: Path) -> Iterator[SealedCopy]:
        """The copy of a file, held while the block runs.

        Raises:
            OSError: the file cannot be read.
            HostShortage: there is no memory for it.
        """
        with self._lock:
            status = path.stat()
            key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            copy = self._copies.get(key)
            if copy is None:
                copy = self._copies[key] = SealedCopy(path)
            self._copies.move_to_end(key)
            self._held.append(copy)
        try:
            yield copy
        finally:
            with self._lock:
                self._held.remove(copy)
                self._clear_away()

    def _clear_away(self) -> None:
        for key, copy in list(self._copies.items())[: -self._n_kept]:
            if copy not in self._held:
                del self._copies[key]
                copy.close()


#: Of this process: what all guests of a run start from is one snapshot, or one kernel and its RAM disk.
COPIES = CopyShelf(n_kept=2)


def _copy(source: int, target: int) -> None:
    """Copy what the source holds to the same places of the target; its holes are left out."""
    at = 0
    end = os.fstat(source).st_size
    while at < end:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        hole = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < hole:
            n_bytes = os.sendfile(target, source, at, hole - at)
            if n_bytes == 0:  # it was cut off meanwhile
                return
            at += n_bytes


def _shortage(name: str, exc: OSError) -> HostShortage:
    return HostShortage(
        f"{name}: no memory for what is shared with QEMU: {exc}",
        next_step="lower machines.qemu.mailbox_mib, machines.qemu.memory_mib or machines.count, or free some memory",
    )
