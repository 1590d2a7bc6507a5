"""Between a terminal and the console of a machine, from guest to guest."""

from __future__ import annotations

import errno
import os
import select
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.errors import HostError, UsageError
from runner.qemu.console_link import LINK_NAME, ConsoleLink, read_link
from runner.text.terminal_filter import TerminalFilter

#: Ctrl-], as in telnet: nothing that a shell or an editor would want.
LEAVE = b"\x1d"
#: A machine that has had no guest for so long has ended: between two guests there are milliseconds.
NEXT_GUEST_S = 2.0
# How often to look whether the machine has another guest.
_LOOK_S = 0.1
# What a terminal that stands still may miss.
_PENDING_MAX_BYTES = 1 << 16


def attach(folder: Path, keyboard_fd: int, screen_fd: int, *, runner_fd: int | None = None) -> bool:
    """Copy between a machine's console and a terminal, until Ctrl-] is typed (True), or the machine or the input ends (False).

    A guest can write on the terminal, but not control it, and never waits for it: what a terminal does not take is dropped.

    Args:
        folder: The machine's.
        runner_fd: Readable when the runner has ended: until then the machine may get another guest at any time, and Ctrl-] is a
            key like any other. None: a machine that has had no guest for `NEXT_GUEST_S` has ended.

    Raises:
        HostError: the console cannot be opened.
    """
    with _raw(keyboard_fd), _Display(screen_fd) as display, _Consoles(folder) as consoles:
        while consoles.look() or runner_fd is not None:
            sources = [fd for fd in (keyboard_fd, consoles.fileno(), runner_fd) if fd not in (None, -1)]
            sinks = [one for one in (display, consoles) if one.pending and one.fileno() >= 0]
            readable, writable, _ = select.select(sources, sinks, [], _LOOK_S)
            for sink in writable:
                sink.flush()
            if runner_fd in readable:
                return False
            if consoles.fileno() in readable:
                display.show(*consoles.read())
            if keyboard_fd in readable:
                data = _read(keyboard_fd)
                typed, leave, _ = data.partition(LEAVE) if runner_fd is None else (data, b"", b"")
                consoles.take(typed)
                if leave or not data:
                    consoles.flush()
                    return bool(leave)
    return False


class _Display:
    """What a terminal is yet to show: bounded, so that one who stops it (Ctrl-S, screen's copy mode) does not stop the guest."""

    def __init__(self, screen_fd: int) -> None:
        # Opened once more: not to wait is a property that whoever else has the terminal must not inherit.
        tty_path = os.ttyname(screen_fd) if os.isatty(screen_fd) else None
        self._fd = (
            os.dup(screen_fd)
            if tty_path is None
            else os.open(tty_path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        )
        self._filter = TerminalFilter()
        self.pending = b""
        self._used = False

    def fileno(self) -> int:
        return self._fd

    def show(self, data: bytes, is_new: bool) -> None:
        """Show what a guest says; of a guest that `is_new`, that it is another one than what is there already came from."""
        line = b"\r\n-- a new guest --\r\n" if is_new and self._used else b""
        self._used = self._used or bool(data)
        # The oldest goes where there is too much.
        self.pending = (self.pending + line + self._filter.feed(data))[-_PENDING_MAX_BYTES:]

    def flush(self) -> None:
        """Hand on what the terminal takes."""
        self.pending = _written(self._fd, self.pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pending and select.select([], [self._fd], [], 0)[1]:
            self.flush()
        os.close(self._fd)


class _Consoles:
    """The consoles of one machine's guests, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._seen: tuple[int, int] | None = None
        self._is_new = False
        self._there_s = time.monotonic()
        #: Keys that it has not taken yet.
        self.pending = b""

    def fileno(self) -> int:
        return -1 if self._fd is None else self._fd

    def look(self) -> bool:
        """Go to the present guest's, if it is another one; whether there was one within `NEXT_GUEST_S`."""
        with suppress(OSError, UsageError):  # there is none now
            status = (self._folder / LINK_NAME).stat()
            seen = (status.st_ino, status.st_mtime_ns)
            # A link that was written anew is another guest's, whatever it says: names of terminals and processes come again.
            if seen != self._seen:
                self._go_to(read_link(self._folder))
                self._seen = seen
        if self._fd is not None:
            self._there_s = time.monotonic()
        return time.monotonic() - self._there_s <= NEXT_GUEST_S

    def _go_to(self, link: ConsoleLink) -> None:
        fd = _open(link)
        if fd is not None:
            self._leave()
            self._fd, self._is_new = fd, True

    def _leave(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self) -> tuple[bytes, bool]:
        """What the guest says, and whether that is the first; one that has ended says nothing, and is left."""
        data, is_new = _read(self.fileno()), self._is_new
        if not data:
            self._leave()
            return b"", False
        self._is_new = False
        return data, is_new

    def take(self, keys: bytes) -> None:
        """Keep keys for the guest, as many as there is room for."""
        self.pending = (self.pending + keys)[:_PENDING_MAX_BYTES]

    def flush(self) -> None:
        """Hand on what the guest takes."""
        if self._fd is not None:
            self.pending = _written(self._fd, self.pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()


def _open(link: ConsoleLink) -> int | None:
    """Its console; None if the guest has ended since its link was read."""
    try:
        return os.open(link.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.EIO, errno.ENXIO):
            return None
        raise HostError(
            f"the console cannot be opened: {exc.strerror}",
            where=link.pty,
            next_step="attach as the user who started the run",
        ) from exc


def _read(fd: int) -> bytes:
    """What there is to read; nothing at the end, which a pseudo-terminal whose other side is gone shows as EIO."""
    with suppress(OSError):
        return os.read(fd, 4096)
    return b""


def _written(fd: int, data: bytes) -> bytes:
    """What is left of it; nothing where the other side is gone."""
    try:
        return data[os.write(fd, data[:4096]) :]
    except BlockingIOError:
        return data
    except OSError:
        return b""


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Hand every key on, as long as the block runs; of no effect on what is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    # Not TCSAFLUSH, the default: what was typed already counts.
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
