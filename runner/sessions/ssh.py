"""The session over SSH: one Fabric connection per host, and the task loader on one channel for as long as it lasts."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fabric
import paramiko

from runner.deadline import Deadline
from runner.disturbance import ClockPair
from runner.errors import (
    Fault,
    InfrastructureError,
    ProtocolError,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.events import EndEvent, Event
from runner.hosts.base import AbstractHost
from runner.model import TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.bounded_socket import BoundedSocket
from runner.sessions.ssh_connection import LIBRARY_ERRORS, connection_over, translate
from runner.task_loader import wire
from runner.task_loader.decoder import Decoder

TASK_LOADER = "exec taskloader serve"
UPLOAD_FOLDER = "/run/workloads"
_RECV_BYTES = 1 << 16
# Most take 2 ms, some 7, and with a busy computer 40 (measured); of so many one is usually near the 1 to 1.5 ms that it takes at best.
_PINGS = 8
# A dying guest hangs up, and that may be seen before whoever watches the guest has said why (measured: within 0.04 s).
_EXPLANATION_S = 0.5


class SshSession(AbstractSession):
    """Task sets over SSH.

    Guarantees: talks only to a host that shows the pinned key; every call ends by its deadline, whatever the other side does; an
    executable of the user's is uploaded once per connection, under a name derived from its content.

    Args:
        host: A started host that runs (is not paused) while the session is in use.
        command: What to run in the guest: something that speaks the task loader's protocol.
    """

    def __init__(self, host: AbstractHost, *, command: str = TASK_LOADER) -> None:
        self._host = host
        self._command = command
        self._socket: BoundedSocket | None = None
        self._connection: fabric.Connection | None = None
        self._channel: paramiko.Channel | None = None
        self._channels: list[paramiko.Channel] = []
        self._lines: Iterator[str] = iter(())
        self._deadline = Deadline.after(0.0)
        self._silent = Fault.GUEST
        self._decoder: Decoder | None = None
        self._uploaded: set[str] = set()
        self._hello: wire.Hello | None = None
        self._reason: RunnerError | None = None
        self._aborted = threading.Event()

    @property
    def facts(self) -> Mapping[str, str | int | float | None]:
        """Kernel and calibration, as the task loader tells them."""
        if self._hello is None:
            return {}
        return {
            "kernel_release": self._hello.kernel,
            "preempt_model": "PREEMPT_RT" if self._hello.realtime else "other",
            "spin_ps": self._hello.spin_ps,
        }

    def open(self, deadline: Deadline) -> None:
        """Log in, start the task loader, and read what it says of itself."""
        if self._socket is not None:
            raise self._misused("the session was opened before", "make a new session")
        with self._bounded("opening the session", deadline):
            address, credentials = self._host.ssh_address, self._host.credentials
            connected = socket.create_connection(address, timeout=deadline.remaining_s or 0.001)
            self._socket = BoundedSocket(connected)
            # Requests are small and waited for: nothing is gained by collecting them.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection_over(address, credentials, self._socket, deadline)
            if self._reason is not None:  # an abort that found no socket to shut
                raise self._reason
            self._connection.open()
            self._channel = self._new_channel(self._connection)
            self._channel.exec_command(self._command)
            self._lines = wire.lines_of(self._chunks())
            message = wire.decode(self._line(deadline))
        if not isinstance(message, wire.Hello):
            raise ProtocolError(f"{self._host.name}: the task loader began with {message!r} instead of hello")
        self._hello = message

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Upload what is missing, send the set, and wait for it to be accepted."""
        channel = self._opened()
        if self._decoder is not None:
            raise self._misused("a task set was started before the last one ended", "read its events() first")
        with self._bounded("starting a task set", deadline):
            request = wire.encode(taskset, uploads=self._upload_all(taskset))
            channel.sendall(request)
            message = wire.decode(self._line(deadline))
        if isinstance(message, wire.Refusal):
            raise wire.refused(self._host.name, taskset, message)
        if message != wire.Accepted(taskset.taskset_id):
            raise ProtocolError(
                f"{self._host.name}: {message!r} came instead of the acceptance of {taskset.taskset_id}"
            )
        self._decoder = Decoder(taskset)

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """Decode what comes until the end of the set."""
        self._opened()
        if self._decoder is None:
            raise self._misused("no task set was started", "call start() first")
        return self._decoded(self._decoder, deadline)

    def stop(self, deadline: Deadline) -> None:
        """Send `stop`; the events go on until the end."""
        channel = self._opened()
        if self._decoder is not None:
            with self._bounded("stopping a task set", deadline):
                channel.sendall(b"stop\n")

    def regain(self, deadline: Deadline) -> bool:
        """Ask the task loader to stop and to answer, and pass over all that it says before."""
        if self._reason is not None or self._channel is None or self._decoder is None:
            return False
        channel, token = self._channel, f"regain{time.monotonic_ns()}"
        awaited = {wire.Pong, wire.Ended}
        with self._bounded("bringing the session back", deadline):
            # Behind an end of line, for something may have been cut off.
            channel.sendall(b"\nstop\n" + wire.ping(token))
            self._lines = self._lines_of_any_kind()
            while awaited:
                with suppress(ProtocolError):  # more of the garbage
                    message = wire.decode(self._line(deadline))
                    if not isinstance(message, wire.Pong) or message.token == token:
                        awaited.discard(type(message))
        self._lines = wire.lines_of(self._chunks())
        self._decoder = None
        return True

    def _lines_of_any_kind(self) -> Iterator[str]:
        """What comes, cut into lines, however long or strange; of one without an end only the last bytes are kept."""
        rest = b""
        for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-wire.MAX_LINE_BYTES :]
            yield from (line.decode("ascii", "replace") for line in lines)

    def clock_pair(self, deadline: Deadline) -> ClockPair:
        """Read the guest's clock together with this computer's, between task sets: of several round trips the shortest.

        Raises:
            InfrastructureError: when the other side failed, or `deadline` passed.
            UsageError: while a task set runs, which the question would disturb.
        """
        channel = self._opened()
        if self._decoder is not None:
            raise self._misused("its clock was asked for while a task set runs", "read events() to the end")
        with self._bounded("reading the guest's clock", deadline):
            pairs = [self._ping(channel, f"clock{idx}", deadline) for idx in range(_PINGS)]
        return min(pairs, key=lambda pair: pair.uncertainty_ns)

    def close(self) -> None:
        """Hang up; the task loader ends with its input."""
        connection, self._connection, self._channel = self._connection, None, None
        self._hang_up()  # first: closing a connection must not wait for the other side
        if connection is not None:
            with suppress(*LIBRARY_ERRORS):  # it is gone either way
                connection.close()
                connection.client.close()  # Fabric leaves the client of a failed `open` alone, with its thread
        if self._socket is not None:
            self._socket.close()

    def abort(self, error: RunnerError) -> None:
        """Hang up under the owner's feet; the owner then raises `error`."""
        self._reason = self._reason or error
        self._aborted.set()
        self._hang_up()

    def _hang_up(self) -> None:
        """Have every call of the libraries fail that waits for the other side; never waits itself."""
        if self._socket is not None:
            with suppress(OSError):  # not connected any more
                self._socket.shutdown(socket.SHUT_RDWR)

    def _misused(self, what: str, next_step: str) -> UsageError:
        return UsageError(f"{self._host.name}: {what}", next_step=next_step)

    def _opened(self) -> paramiko.Channel:
        if self._reason is not None:
            raise self._reason
        if self._channel is None:
            raise SessionLost(f"{self._host.name}: the session is not open", next_step="open a new session")
        return self._channel

    def _ping(self, channel: paramiko.Channel, token: str, deadline: Deadline) -> ClockPair:
        """One round trip."""
        sent_ns = time.monotonic_ns()
        channel.sendall(wire.ping(token))
        message = wire.decode(self._line(deadline))
        received_ns = time.monotonic_ns()
        if not isinstance(message, wire.Pong) or message.token != token:
            raise ProtocolError(f"{self._host.name}: {message!r} came instead of the answer to ping {token}")
        # Up, so that the whole of the round trip lies within, however it was divided between there and back.
        half_ns = (received_ns - sent_ns + 1) // 2
        return ClockPair(guest_ns=message.t_ns, host_ns=sent_ns + half_ns, uncertainty_ns=half_ns)

    def _decoded(self, decoder: Decoder, deadline: Deadline) -> Iterator[Event]:
        ended = False
        while not ended:
            with self._translated("running a task set"):
                line = self._line(deadline, silent=Fault.TASKSET)
            event = decoder.decode(line)
            ended = isinstance(event, EndEvent)
            if ended:
                self._decoder = None
            yield event

    def _line(self, deadline: Deadline, silent: Fault = Fault.GUEST) -> str:
        """The next line; gives up once the deadline has passed, also if the other side never stops talking.

        Args:
            silent: Whose doing it is if nothing comes, or the task loader ends.
        """
        self._deadline, self._silent = deadline, silent
        if deadline.passed:
            self._give_up("waiting for the task loader", deadline)
        line = next(self._lines, None)
        self._opened()  # an abort comes before what was received meanwhile
        if line is None:
            # It hangs up when it ends, and the connection stays; when that breaks, it says nothing of the task loader.
            ended = self._connection is not None and self._connection.is_connected
            raise SessionLost(
                f"{self._host.name}: the task loader hung up",
                evidence=self._last_words(),
                fault=silent if ended else Fault.GUEST,
            )
        return line

    def _chunks(self) -> Iterator[bytes]:
        while True:
            channel = self._opened()
            # A timeout of zero would mean "do not block".
            channel.settimeout(self._deadline.remaining_s or 0.001)
            try:
                chunk = channel.recv(_RECV_BYTES)
            except TimeoutError:
                self._give_up("waiting for the task loader", self._deadline)
                raise
            if not chunk:
                return
            yield chunk

    def _last_words(self) -> str:
        """What the task loader wrote to its standard error, and how it ended."""
        channel = self._channel
        if channel is None:
            return ""
        channel.status_event.wait(_EXPLANATION_S)  # the status comes after the end of the output
        words = channel.recv_stderr(4096).decode(errors="replace") if channel.recv_stderr_ready() else ""
        ended = f"exit status {channel.exit_status}" if channel.exit_status >= 0 else ""
        return "\n".join(part for part in (words.rstrip(), ended) if part)

    def _upload_all(self, taskset: TaskSet) -> dict[str, str]:
        """Path here -> path in the guest, where every executable of the set is when this returns."""
        uploads = {}
        paths = {str(t.workload_args["path"]) for t in taskset.tasks if t.workload == "executable"}
        for path in sorted(paths):
            try:
                content = Path(path).read_bytes()
            except (OSError, ValueError) as exc:  # ValueError: a path with a null byte
                raise TaskSetError(
                    f"the workload executable {path} cannot be read: {exc}",
                    next_step="correct workload_args.path",
                ) from exc
            uploads[path] = f"{UPLOAD_FOLDER}/{hashlib.sha256(content).hexdigest()[:16]}"
            if uploads[path] not in self._uploaded:
                self._upload(content, uploads[path])
                self._uploaded.add(uploads[path])
        return uploads

    def _upload(self, content: bytes, remote: str) -> None:
        assert self._connection is not None  # noqa: S101 - `start` has asked for the channel
        channel = self._new_channel(self._connection)
        try:
            part = f"{remote}.part"
            # Names are ours (hex digits): nothing of the user's reaches the shell.
            channel.exec_command(
                f"mkdir -p {UPLOAD_FOLDER} && cat > {part} && chmod 755 {part} && mv {part} {remote}"
                f" || {{ rm -f {part}; exit 1; }}"
            )
            with suppress(OSError):  # it may have given up for want of room: its exit status says so
                channel.sendall(content)
                channel.shutdown_write()
            status = channel.recv_exit_status()
            if status > 0:
                raise TaskSetError(
                    f"the guest could not store the workload executable ({len(content)} bytes)",
                    evidence=channel.recv_stderr(4096).decode(errors="replace"),
                    next_step="give the machines more memory (machines.qemu.memory_mib)",
                )
            if status < 0:
                raise SessionLost(f"{self._host.name}: the connection broke while an executable was uploaded")
        finally:
            channel.close()
            self._channels.remove(channel)

    def _new_channel(self, connection: fabric.Connection) -> paramiko.Channel:
        channel: paramiko.Channel = connection.create_session()
        self._channels.append(channel)
        if self._socket is not None:
            self._socket.unread_bytes = self._unread_bytes
        return channel

    def _unread_bytes(self) -> int:
        return sum(len(one.in_buffer) + len(one.in_stderr_buffer) for one in self._channels)

    @contextmanager
    def _bounded(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """As `_translated`, for calls of the libraries that take no timeout, or start it anew with each byte."""
        self._silent = Fault.GUEST
        watchdog = threading.Timer(deadline.remaining_s, self._give_up, (doing, deadline))
        with self._translated(doing):
            watchdog.start()
            try:
                yield
            finally:
                watchdog.cancel()
                watchdog.join()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn what the libraries raise into our errors, and either into the reason of an abort."""
        try:
            yield
        except LIBRARY_ERRORS as exc:
            raise self._explained(translate(exc, f"{self._host.name}: {doing}")) from exc
        except InfrastructureError as exc:
            reason = self._explained(exc)
            if reason is exc:
                raise
            raise reason from exc

    def _give_up(self, doing: str, deadline: Deadline) -> None:
        self.abort(
            SessionLost(
                f"{self._host.name}: {doing}: no answer within {deadline.budget_s:g} s",
                next_step="see what the guest is doing: its console's log",
                fault=self._silent,
            )
        )

    def _explained(self, error: InfrastructureError) -> RunnerError:
        """The reason behind an error, for which it waits a moment; the error itself where nobody knows one."""
        self._aborted.wait(_EXPLANATION_S)
        return self._reason or error
