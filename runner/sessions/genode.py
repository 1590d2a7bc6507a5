"""The session over TCP to a task loader that speaks Genode's protocol: QEMU guests, boards, and our own guests on port 3001."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from runner.deadline import Deadline
from runner.errors import (
    SHORTAGES,
    Fault,
    InfrastructureError,
    ProtocolError,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.events import Event
from runner.genode import (
    Binary,
    GoSend,
    Matcher,
    MessageDecoder,
    Pong,
    Profile,
    ServerMessage,
    Tag,
    check_binary,
    check_goal,
    encode_binary,
    encode_descriptions,
    encode_sized,
    encode_tag,
    packages,
    parse_profile,
)
from runner.hosts.base import AbstractHost
from runner.model import TaskSet
from runner.sessions.base import AbstractSession
from runner.specs import Reach
from runner.units import NS_PER_S

_RECV_BYTES = 1 << 16
# QEMU's user network takes a connection before its guest does: one that is not answered by then is made anew.
_ANSWER_S = 5.0
_RETRY_S = 0.25
# Profiles come at most a tenth of a second after what they tell.
_QUIET_S = 0.5


class GenodeSession(AbstractSession):
    """Task sets over Genode's task-loader protocol.

    Guarantees: every call ends by its deadline, whatever the other side does; a program is sent once per connection, and again only
    when it has changed. Times are the host's, in whole milliseconds; releases and CPU times are not known.

    Session parameters: one text, the admission control's goal in XML.

    Args:
        host: A started host that runs and has an `address`.
        binaries: Folder with one file per workload (`hey`, `pi`, …), to be sent when needed; None: the host knows them.
    """

    reach: ClassVar[Reach] = Reach.GENODE

    def __init__(self, host: AbstractHost, *, binaries: str | None = None) -> None:
        self._host = host
        self._folder = None if binaries is None else Path(binaries)
        if self._folder is not None and not self._folder.is_dir():
            raise UsageError(
                f"there is no folder {binaries}",
                where="binaries",
                next_step="name the folder with the programs",
            )
        self._goal = b""
        self._goal_told = True
        self._socket: socket.socket | None = None
        self._decoder = MessageDecoder()
        self._matcher: Matcher | None = None
        self._stop_at_s: float | None = None
        self._stopping = False
        # Whether a question was sent that is not answered yet.
        self._asked = False
        self._sent: dict[str, bytes] = {}
        self._closed = False
        self._reason: RunnerError | None = None
        self._aborted = threading.Event()

    def open(self, deadline: Deadline) -> None:
        """Connect and have the task loader answer; a guest that has no address yet is waited for."""
        if self._socket is not None or self._closed:
            raise UsageError(
                f"{self._host.name}: the session was opened before", next_step="make a new session"
            )
        while True:
            try:
                self._connect(deadline.at_most(_ANSWER_S))
            except SessionLost as exc:
                self._hang_up(forget=True)
                self._check()
                if deadline.passed or exc.fault is Fault.HOST:
                    raise
                self._aborted.wait(min(_RETRY_S, deadline.remaining_s))
                self._check()
            else:
                return

    def configure(self, parameters: tuple[Any, ...]) -> None:
        """Take over the admission control's goal; without parameters there is none."""
        if len(parameters) > 1:
            raise UsageError(
                f"a GenodeSession takes one session parameter, add_job() was given {len(parameters)}",
                next_step="give the goal of the admission control, in XML, or nothing",
            )
        goal = check_goal(parameters[0]) if parameters else b""
        self._goal_told = self._goal_told and goal == self._goal
        self._goal = goal

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Clear the host, send goal, descriptions and the programs that it has not got, and start."""
        self._opened()
        if self._matcher is not None:
            raise UsageError(
                f"{self._host.name}: a task set was started before the last one ended",
                next_step="read its events() first",
            )
        descriptions = encode_descriptions(taskset, vcpus=self._host.facts.vcpus or None)
        missing = self._missing(taskset)
        with self._translated("starting a task set"):
            self._send(encode_tag(Tag.CLEAR), deadline)
            self._ping(deadline)
            if not self._goal_told:
                self._send(encode_sized(Tag.OPTIMIZE, self._goal), deadline)
                self._goal_told = True
            self._send(encode_sized(Tag.SEND_DESCS, descriptions), deadline)
            self._send_all(missing, deadline)
            self._send(encode_tag(Tag.START), deadline)
        self._matcher, self._stopping = Matcher(taskset), False
        self._stop_at_s = None if taskset.stop_ns is None else time.monotonic() + taskset.stop_ns / NS_PER_S

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """What the profiles tell, until every task has run all its jobs, or the set was stopped."""
        self._opened()
        if self._matcher is None:
            raise UsageError(f"{self._host.name}: no task set was started", next_step="call start() first")
        return self._matched(self._matcher, deadline)

    def stop(self, deadline: Deadline) -> None:
        """Have the tasks stopped; what is known of them by then still comes."""
        self._opened()
        if self._matcher is not None and not self._stopping:
            self._stopping = self._asked = True
            with self._translated("stopping a task set"):
                # Behind it a question, whose answer comes when the tasks are stopped.
                self._send(encode_tag(Tag.STOP) + encode_tag(Tag.AVAILABLE), deadline)

    def regain(self, deadline: Deadline) -> bool:
        """Stop and clear the host, and pass over what it says before it answers; not where the line is out of step."""
        if self._reason is not None or self._socket is None or self._decoder.broken:
            return False
        with self._translated("bringing the session back"):
            self._send(encode_tag(Tag.STOP) + encode_tag(Tag.CLEAR), deadline)
            self._ping(deadline)
        self._matcher = None
        return True

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._hang_up(forget=True)

    def abort(self, error: RunnerError) -> None:
        """Hang up under the owner's feet, who then raises `error`."""
        self._reason = self._reason or error
        self._aborted.set()
        self._hang_up(forget=False)

    def _connect(self, deadline: Deadline) -> None:
        with self._translated("opening the session"):
            self._decoder, self._asked = MessageDecoder(), False
            self._socket = socket.create_connection(self._host.address, timeout=deadline.remaining_s or 0.001)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._check()  # an abort that found no socket to shut
            self._ping(deadline)

    def _matched(self, matcher: Matcher, deadline: Deadline) -> Iterator[Event]:
        while not matcher.done:
            if self._stop_at_s is not None and time.monotonic() >= self._stop_at_s:
                self.stop(deadline)
            settled = self._stopping and not self._asked
            with self._translated("running a task set"):
                message = self._message(self._patience(deadline, settled=settled))
            if message is None and settled:
                break  # nothing more comes of a set that was stopped
            if message is None and deadline.passed:
                raise self._late(deadline, Fault.TASKSET)
            match message:
                case Pong() if self._asked:
                    self._asked = False
                case Profile(content):
                    yield from matcher.take(parse_profile(content))
                case Pong() | GoSend():
                    raise ProtocolError(f"{self._host.name}: {message!r} came while a task set runs")
        yield from self._ended(matcher, deadline)

    def _ended(self, matcher: Matcher, deadline: Deadline) -> Iterator[Event]:
        """Leave the host empty, then tell the end: who hears of it may start the next set at once."""
        with self._translated("ending a task set"):
            self._send(encode_tag(Tag.STOP) + encode_tag(Tag.CLEAR), deadline)
        self._matcher = None
        yield from matcher.end()

    def _patience(self, deadline: Deadline, *, settled: bool) -> Deadline:
        """Until when to wait for the next message before looking around."""
        if settled:
            return deadline.at_most(_QUIET_S)
        if self._stop_at_s is not None and not self._stopping:
            return deadline.at_most(max(0.0, self._stop_at_s - time.monotonic()))
        return deadline

    def _missing(self, taskset: TaskSet) -> list[tuple[Binary, bytes]]:
        """The programs that the host has not got, or not as they are now."""
        missing = []
        for binary in packages(taskset, self._folder):
            try:
                content = binary.path.read_bytes()
            except (OSError, ValueError) as exc:  # ValueError: a path with a null byte
                raise TaskSetError(
                    f"the program {binary.path} cannot be read: {exc}",
                    next_step="correct workload_args.path, or machines.session.binaries",
                ) from exc
            check_binary(binary, content)
            if self._sent.get(binary.name) != hashlib.sha256(content).digest():
                missing.append((binary, content))
        return missing

    def _send_all(self, missing: list[tuple[Binary, bytes]], deadline: Deadline) -> None:
        if not missing:
            return
        self._send(encode_tag(Tag.SEND_BINARIES, len(missing)), deadline)
        for binary, content in missing:
            self._decoder.expects_go_send = True
            while not isinstance(message := self._awaited(deadline), GoSend):
                if not isinstance(message, Profile):  # of the set before
                    raise ProtocolError(f"{self._host.name}: {message!r} came instead of GO_SEND")
            self._decoder.expects_go_send = False
            self._sent.pop(binary.name, None)
            self._send(encode_binary(binary.name, content), deadline)
            self._sent[binary.name] = hashlib.sha256(content).digest()

    def _ping(self, deadline: Deadline) -> None:
        """Ask whether it answers, and pass over what it says before it does."""
        n_awaited = 2 if self._asked else 1
        self._send(encode_tag(Tag.AVAILABLE), deadline)
        while n_awaited:
            n_awaited -= isinstance(self._awaited(deadline), Pong)
        self._asked = False

    def _awaited(self, deadline: Deadline) -> ServerMessage:
        message = self._message(deadline)
        if message is None:
            raise self._late(deadline, Fault.GUEST)
        return message

    def _message(self, deadline: Deadline) -> ServerMessage | None:
        """The next message; None when the deadline has passed."""
        while (message := self._decoder.next_message()) is None:
            if deadline.passed:  # also for a peer that never stops talking
                return None
            connected = self._opened()
            connected.settimeout(deadline.remaining_s or 0.001)
            try:
                piece = connected.recv(_RECV_BYTES)
            except TimeoutError:
                return None
            self._check()  # an abort comes before what was received meanwhile
            if not piece:
                fault = Fault.TASKSET if self._matcher is not None else Fault.GUEST
                raise SessionLost(
                    f"{self._host.name}: the task loader hung up", evidence=self._host.evidence(), fault=fault
                )
            self._decoder.feed(piece)
        self._check()
        return message

    def _send(self, content: bytes, deadline: Deadline) -> None:
        connected = self._opened()
        connected.settimeout(deadline.remaining_s or 0.001)
        connected.sendall(content)  # a time-out is for the whole of it

    def _late(self, deadline: Deadline, fault: Fault) -> SessionLost:
        return SessionLost(
            f"{self._host.name}: the task loader was not done within {deadline.budget_s:g} s",
            evidence=self._host.evidence(),
            fault=fault,
        )

    def _opened(self) -> socket.socket:
        self._check()
        if self._socket is None:
            raise SessionLost(f"{self._host.name}: the session is not open", next_step="open a new session")
        return self._socket

    def _check(self) -> None:
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

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """What the operating system says, in our words; an abort's reason before all else."""
        try:
            yield
        except OSError as exc:
            self._check()
            fault = Fault.HOST if exc.errno in SHORTAGES else Fault.GUEST
            what = "no answer in time" if isinstance(exc, TimeoutError) else f"{type(exc).__name__}: {exc}"
            raise SessionLost(f"{self._host.name}: {doing}: {what}", fault=fault) from exc
        except InfrastructureError:
            self._check()
            raise
