"""How many machines all runs of this computer may have together: a file for each that there may be, locked by who has it."""

from __future__ import annotations

import fcntl
import os
import platform
import threading
from pathlib import Path

from runner.qemu.image import cache_root


class Seats:
    """Seats for machines, shared by all runs of a user on this computer.

    Each run says how many there are. One that says more takes those first that the others do not know, so that of the runs
    that say `n` no more than `n` machines are ever there.

    Guarantees: a seat has one holder; the kernel takes it back the moment its holder ends, however it ends.
    Threads: any.

    Args:
        limit: How many seats there are.
        folder: Where their files are; by default one of this computer's in the cache, which several may share.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit = limit
        self._folder = folder or cache_root() / "seats" / platform.node()
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}

    @property
    def held(self) -> int:
        """How many are this object's."""
        return len(self._held)

    def hold(self, n: int) -> int:
        """Take or give back until there are `n`, or as many as the others leave; returns how many.

        Raises:
            OSError: their files cannot be written.
        """
        with self._lock:
            while len(self._held) > n:
                os.close(self._held.popitem()[1])
            if len(self._held) < n:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(self.limit, 0, -1):
                if len(self._held) >= n:
                    break
                if number not in self._held and (fd := self._take(number)) is not None:
                    self._held[number] = fd
            return len(self._held)

    def _take(self, number: int) -> int | None:
        """A seat's descriptor, which is closed in children; None: somebody has it."""
        fd = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd
