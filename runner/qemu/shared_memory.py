"""Memory that a guest and the runner share: no name in the file system, gone with its last user."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.errors import HostError


class MailboxMemory:
    """One guest's mailbox. Left as a context manager, the runner's side of it is released.

    Attributes:
        region: The memory itself; takes up no more than what was written.
        fd: What QEMU has to inherit, under the same number.
    """

    def __init__(self, name: str, size_bytes: int) -> None:
        """
        Raises:
            HostShortage: there is no memory, or no file descriptor, for it.
        """
        try:
            self.fd = os.memfd_create(f"rtfleet-{name}", os.MFD_CLOEXEC)
            try:
                os.ftruncate(self.fd, size_bytes)
                self.region = mmap.mmap(self.fd, size_bytes)
            except BaseException:
                os.close(self.fd)
                raise
        except OSError as exc:
            raise HostError.because(
                exc,
                f"{name}: no memory for its mailbox",
                next_step="lower machines.qemu.mailbox_mib or machines.count, or free some memory",
            ) from exc

    @property
    def path(self) -> Path:
        """By which the process that inherited `fd` opens it."""
        return Path(f"/proc/self/fd/{self.fd}")

    def content(self) -> bytes:
        """What a guest that was just booted has written: at the beginning, and less than a MiB."""
        return self.region[: 1 << 20].rstrip(b"\0")

    def refill(self, content: bytes) -> None:
        """Bring that back."""
        self.region[: len(content)] = content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.region.close()
        os.close(self.fd)
