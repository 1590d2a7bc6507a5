"""The line to a task loader that speaks Genode's protocol: one TCP connection, messages in and out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runner.deadline import Deadline
from runner.errors import SHORTAGES, Fault, InfrastructureError, RunnerError, SessionLost, UsageError
from runner.genode import MessageDecoder, Pong, ServerMessage, Tag, encode_tag
from runner.hosts.base import AbstractHost

_RECV_BYTES = 1 << 16
# QEMU's user network takes a connection before its guest does: one that is not answered by then is made anew.
_ANSWER_S = 5.0
_RETRY_S = 0.25


class GenodeLine:
    """Connected once, hung up once.

    Guarantees: every call ends by its deadline, whatever the other side does. After `abort`, every call but `close` raises its error.
    Threads: `abort` is for any thread, everything else for the owner's.

    Attributes:
        asked: Whether a question was sent that is not answered yet; whoever reads its answer takes that back.
        owes: Whether programs were announced that are not all sent yet: until then, the other side takes whatever comes for these.
    """

    def __init__(self, host: AbstractHost) -> None:
        self._host = host
        self._socket: socket.socket | None = None
        self._decoder = MessageDecoder()
        self._closed = False
        self._reason: RunnerError | None = None
        self._aborted = threading.Event()
        self._cut = False
        self.asked = False
        self.owes = False

    @property
    def usable(self) -> bool:
        """Whether it is up, and both ends agree on where a message begins."""
        up = self._reason is None and self._socket is not None
        return up and not (self._decoder.broken or self._cut or self.owes)

    def open(self, deadline: Deadline) -> None:
        """Connect and have the task loader answer; a guest that has no address yet is waited for.

        Raises:
            UsageError: it was opened before.
            SessionLost: nobody has answered by then, or this computer is short of something.
        """
        if self._socket is not None or self._closed:
            raise UsageError(
                f"{self._host.name}: the session was opened before", next_step="make a new session"
            )
        while True:
            try:
                self._connect(deadline.at_most(_ANSWER_S))
            except SessionLost as exc:
                self._hang_up(forget=True)
                self._raise_reason()
                if deadline.passed or exc.fault is Fault.HOST:
                    raise
                self._aborted.wait(min(_RETRY_S, deadline.remaining_s))
                self._raise_reason()
            else:
                return

    def send(self, content: bytes, deadline: Deadline) -> None:
        """All of it; after an error nobody knows how much, and the line is of no further use.

        Raises:
            OSError: as the system says it, a time-out included; `during` makes a `SessionLost` of it.
        """
        connected = self.check()
        connected.settimeout(deadline.remaining_s or 0.001)
        self._cut = True
        connected.sendall(content)  # a time-out is for the whole of it
        self._cut = False

    def ask(self, content: bytes, deadline: Deadline) -> None:
        """Send something, and behind it a question, whose answer comes when the task loader has dealt with it."""
        self.asked = True
        self.send(content + encode_tag(Tag.AVAILABLE), deadline)

    def ping(self, deadline: Deadline) -> None:
        """Ask whether it answers, and pass over what it says before it does."""
        n_awaited = 2 if self.asked else 1
        self.send(encode_tag(Tag.AVAILABLE), deadline)
        while n_awaited:
            n_awaited -= isinstance(self.awaited(deadline), Pong)
        self.asked = False

    def message(self, deadline: Deadline, blamed: Fault = Fault.GUEST) -> ServerMessage | None:
        """The next message; None when the deadline has passed.

        Args:
            blamed: Whose fault it is when the other side hangs up.

        Raises:
            SessionLost: it has.
            ProtocolError: what came cannot be.
            OSError: as of `send`.
        """
        while (message := self._decoder.next_message()) is None:
            if deadline.passed:  # also for a peer that never stops talking
                return None
            connected = self.check()
            connected.settimeout(deadline.remaining_s or 0.001)
            try:
                piece = connected.recv(_RECV_BYTES)
            except TimeoutError:
                return None
            self._raise_reason()  # an abort comes before what was received meanwhile
            if not piece:
                raise SessionLost(
                    f"{self._host.name}: the task loader hung up",
                    evidence=self._host.evidence(),
                    fault=blamed,
                )
            self._decoder.feed(piece)
        self._raise_reason()
        return message

    def awaited(self, deadline: Deadline, *, go_send: bool = False) -> ServerMessage:
        """The next message, which has to come.

        Args:
            go_send: Whether that may be a GO_SEND: its tag is also the size of a small profile.

        Raises:
            SessionLost: it did not, by the deadline.
            As `message`.
        """
        self._decoder.expects_go_send = go_send
        message = self.message(deadline)
        self._decoder.expects_go_send = False
        if message is None:
            raise self.late(deadline, Fault.GUEST)
        return message

    def late(self, deadline: Deadline, fault: Fault) -> SessionLost:
        """The error for a deadline that has passed."""
        return SessionLost(
            f"{self._host.name}: the task loader was not done within {deadline.budget_s:g} s",
            evidence=self._host.evidence(),
            fault=fault,
        )

    def check(self) -> socket.socket:
        """The connection.

        Raises:
            SessionLost: there is none.
            The reason of an abort.
        """
        self._raise_reason()
        if self._socket is None:
            raise SessionLost(f"{self._host.name}: the session is not open", next_step="open a new session")
        return self._socket

    def close(self) -> None:
        """Hang up for good."""
        self._closed = True
        self._hang_up(forget=True)

    def abort(self, error: RunnerError) -> None:
        """Hang up under the owner's feet, who then raises `error`."""
        self._reason = self._reason or error
        self._aborted.set()
        self._hang_up(forget=False)

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """What the operating system says, in our words; an abort's reason before all else."""
        try:
            yield
        except OSError as exc:
            self._raise_reason()
            fault = Fault.HOST if exc.errno in SHORTAGES else Fault.GUEST
            what = "no answer in time" if isinstance(exc, TimeoutError) else f"{type(exc).__name__}: {exc}"
            raise SessionLost(f"{self._host.name}: {doing}: {what}", fault=fault) from exc
        except InfrastructureError:
            self._raise_reason()
            raise

    def _connect(self, deadline: Deadline) -> None:
        with self.during("opening the session"):
            self._decoder, self.asked = MessageDecoder(), False
            self._socket = socket.create_connection(self._host.address, timeout=deadline.remaining_s or 0.001)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._raise_reason()  # an abort that found no socket to shut
            self.ping(deadline)

    def _raise_reason(self) -> None:
        if self._reason is not None:
            raise self._reason

    def _hang_up(self, *, forget: bool) -> None:
        """Have every call fail that waits for the other side; only the owner may forget the connection."""
        connected = self._socket
        if connected is not None:
            with suppress(OSError):  # not connected any more
                connected.shutdown(socket.SHUT_RDWR)
            if forget:
                self._socket = None
                connected.close()
