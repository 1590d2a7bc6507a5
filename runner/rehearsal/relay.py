"""A relay between a session and its guest, whose connections can be broken in the ways in which networks break them."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 1 << 16
_POLL_S = 0.02
# Closed at once, whatever was not sent: the other side gets a reset.
_AT_ONCE = struct.pack("ii", 1, 0)


class Relay:
    """Passes on what comes to a port of its own to another one. Left as a context manager, everything of it is closed.

    Threads: one of its own passes on; the methods are for any other, and return when what they ask for is the case.

    Args:
        port: On the loopback interface, where to.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._orders: SimpleQueue[tuple[Callable[[], None], Event]] = SimpleQueue()
        # Each end of a connection -> the other one.
        self._ends: dict[socket.socket, socket.socket] = {}
        self._swallowed: set[socket.socket] = set()
        # What to make of the next message from the guest.
        self._spoilt: Callable[[bytes], bytes] | None = None
        self._hangs_up = False
        self._ended = False
        self._thread = Thread(target=self._pass_on, name="relay")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def reset(self) -> None:
        """Break every connection, without a word; later ones are as good as before."""
        self._order(self._break)

    def swallow(self) -> None:
        """From now on nothing comes out of the present connections any more, and nobody is told."""
        self._order(lambda: self._swallowed.update(self._ends))

    def spoil(self) -> None:
        """Spoil the next bytes that come from the guest."""

        def spoil() -> None:
            self._spoilt = lambda data: bytes(byte ^ 0x5A for byte in data)

        self._order(spoil)

    def tear(self) -> None:
        """Pass on half of the next message from the guest, and hang up."""

        def tear() -> None:
            self._spoilt, self._hangs_up = lambda data: data[: len(data) // 2], True

        self._order(tear)

    def _order(self, what: Callable[[], None]) -> None:
        done = Event()
        self._orders.put((what, done))
        done.wait(1.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()
        self._break()
        self._listener.close()

    def _break(self) -> None:
        for one in self._ends:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            one.close()
        self._ends.clear()
        self._swallowed.clear()

    def _pass_on(self) -> None:
        while not self._ended:
            with suppress(Empty):
                while True:
                    what, done = self._orders.get_nowait()
                    what()
                    done.set()
            with selectors.DefaultSelector() as selector:
                for one in (self._listener, *self._ends):
                    selector.register(one, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(_POLL_S)]
            for found in ready:
                if found is self._listener:
                    self._connect()
                elif isinstance(found, socket.socket) and found in self._ends:
                    self._copy(found)

    def _connect(self) -> None:
        with ExitStack() as half_open, suppress(OSError):
            near, _ = self._listener.accept()
            half_open.callback(near.close)
            far = socket.create_connection(("127.0.0.1", self._to), timeout=5.0)
            half_open.pop_all()
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[near], self._ends[far] = far, near

    def _copy(self, one: socket.socket) -> None:
        other = self._ends[one]
        with suppress(OSError):
            data = one.recv(_CHUNK_BYTES)
            if data and one in self._swallowed:
                return
            hangs_up = False
            if data and self._spoilt is not None and one.getpeername()[1] == self._to:
                data, hangs_up = self._spoilt(data), self._hangs_up
                self._spoilt, self._hangs_up = None, False
            if data:
                other.sendall(data)
                if not hangs_up:
                    return
        for end in (one, other):
            self._ends.pop(end, None)
            self._swallowed.discard(end)
            end.close()
