"""The session over SSH: one Fabric connection per host, and the task loader on one channel for as long as it lasts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fabric
import paramiko
from invoke.exceptions import UnexpectedExit

from runner import wire
from runner.deadline import Deadline
from runner.errors import HostError, ProtocolError, RunnerError, SessionLost, TaskSetError, UsageError
from runner.events import Event
from runner.hosts import AbstractHost, SshCredentials
from runner.model import TaskSet
from runner.sessions.base import AbstractSession

TASK_LOADER = "exec taskloader serve"
UPLOAD_FOLDER = "/run/workloads"
_RECV_BYTES = 1 << 16


class SshSession(AbstractSession):
    """Task sets over SSH.

    Guarantees: talks only to a host that shows the pinned key; every remote call ends by its deadline; an executable of the
    user's is uploaded once per connection, under a name derived from its content.

    Args:
        host: A started host that runs (is not paused) while the session is in use.
    """

    def __init__(self, host: AbstractHost) -> None:
        self._host = host
        self._connection: fabric.Connection | None = None
        self._channel: paramiko.Channel | None = None
        self._lines: Iterator[str] = iter(())
        self._deadline = Deadline.after(0.0)
        self._decoder: wire.Decoder | None = None
        self._uploaded: dict[str, str] = {}
        self._hello: wire.Hello | None = None
        self._reason: RunnerError | None = None

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
        with self._translated("opening the connection"):
            self._connection = _connect(self._host.ssh_address, self._host.credentials, deadline)
            self._channel = self._connection.create_session()
            self._channel.exec_command(TASK_LOADER)
            self._lines = wire.lines_of(self._chunks())
            message = wire.decode(self._line(deadline))
        if not isinstance(message, wire.Hello):
            raise ProtocolError(f"{self._host.name}: the task loader began with {message!r} instead of hello")
        self._hello = message

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Upload what is missing, send the set, and wait for it to be accepted."""
        if self._decoder is not None:
            raise UsageError(
                f"{self._host.name}: a task set was started before the last one ended",
                next_step="read events() to the end, or close the session",
            )
        with self._translated("starting a task set"):
            uploads = self._upload_all(taskset, deadline)
            self._channel_to(deadline).sendall(wire.encode(taskset, uploads=uploads))
            message = wire.decode(self._line(deadline))
        if isinstance(message, wire.Refusal):
            raise TaskSetError(
                f"the task loader refused task set {taskset.name!r} ({taskset.taskset_id}): {message.code}: {message.detail}"
            )
        if message != wire.Accepted(taskset.taskset_id):
            raise ProtocolError(
                f"{self._host.name}: {message!r} came instead of the acceptance of {taskset.taskset_id}"
            )
        self._decoder = wire.Decoder(taskset)

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """Decode what comes until the end of the set."""
        if self._decoder is None:
            raise UsageError(f"{self._host.name}: no task set was started", next_step="call start() first")
        while not self._decoder.ended:
            with self._translated("running a task set"):
                line = self._line(deadline)
                if line.startswith("error "):
                    raise ProtocolError(
                        f"{self._host.name}: the task loader failed while a task set ran", evidence=line
                    )
                event = self._decoder.decode(line)
            yield event
        self._decoder = None

    def stop(self, deadline: Deadline) -> None:
        """Send `stop`; the events go on until the end."""
        if self._decoder is not None:
            with self._translated("stopping a task set"):
                self._channel_to(deadline).sendall(b"stop\n")

    def close(self) -> None:
        """Hang up; the task loader ends with its input."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(*LIBRARY_ERRORS):  # it is gone either way
                connection.close()

    def abort(self, error: RunnerError) -> None:
        """Hang up under the owner's feet; the owner then raises `error`."""
        self._reason = self._reason or error
        channel, connection = self._channel, self._connection
        if channel is not None:
            channel.close()
        transport = connection.transport if connection is not None else None
        if transport is not None:
            transport.close()

    def _chunks(self) -> Iterator[bytes]:
        while True:
            chunk = self._channel_to(self._deadline).recv(_RECV_BYTES)
            if not chunk:
                return
            yield chunk

    def _line(self, deadline: Deadline) -> str:
        self._deadline = deadline
        line = next(self._lines, None)
        if line is None:
            raise SessionLost(f"{self._host.name}: the task loader hung up")
        return line

    def _channel_to(self, deadline: Deadline) -> paramiko.Channel:
        if self._reason is not None:
            raise self._reason
        if self._channel is None:
            raise SessionLost(f"{self._host.name}: the session is closed", next_step="open a new session")
        # A timeout of zero would mean "do not block".
        self._channel.settimeout(max(0.001, deadline.remaining_s))
        return self._channel

    def _upload_all(self, taskset: TaskSet, deadline: Deadline) -> dict[str, str]:
        paths = {str(t.workload_args["path"]) for t in taskset.tasks if t.workload == "executable"}
        return {path: self._upload(path, deadline) for path in sorted(paths)}

    def _upload(self, path: str, deadline: Deadline) -> str:
        try:
            content = Path(path).read_bytes()
        except OSError as exc:
            raise TaskSetError(
                f"the workload executable {path} cannot be read: {exc.strerror}",
                next_step="correct workload_args.path",
            ) from exc
        remote = f"{UPLOAD_FOLDER}/{hashlib.sha256(content).hexdigest()[:16]}"
        if path not in self._uploaded or self._uploaded[path] != remote:
            self._send_file(content, remote, deadline)
            self._uploaded[path] = remote
        return remote

    def _send_file(self, content: bytes, remote: str, deadline: Deadline) -> None:
        if self._connection is None:
            raise SessionLost(f"{self._host.name}: the session is closed", next_step="open a new session")
        channel = self._connection.create_session()
        try:
            channel.settimeout(max(0.001, deadline.remaining_s))
            # Names are ours (hex digits): nothing of the user's reaches the shell.
            channel.exec_command(
                f"mkdir -p {UPLOAD_FOLDER} && cat > {remote}.part && chmod 755 {remote}.part && mv {remote}.part {remote}"
            )
            channel.sendall(content)
            channel.shutdown_write()
            if not channel.status_event.wait(deadline.remaining_s):
                raise TimeoutError
            if channel.exit_status != 0:
                raise TaskSetError(
                    f"the guest could not store the workload executable ({len(content)} bytes)",
                    evidence=channel.recv_stderr(4096).decode(errors="replace"),
                    next_step="give the machines more memory (machines.qemu.memory_mib)",
                )
        finally:
            channel.close()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn what the libraries raise into our errors; an `abort` explains whatever came after it."""
        try:
            yield
        except RunnerError:
            if self._reason is not None:
                raise self._reason from None
            raise
        except LIBRARY_ERRORS as exc:
            if self._reason is not None:
                raise self._reason from exc
            raise translate(exc, f"{self._host.name}: {doing}") from exc


#: Everything that Fabric, paramiko and the sockets below them raise for reasons outside this program.
LIBRARY_ERRORS = (paramiko.SSHException, UnexpectedExit, OSError, EOFError)


def translate(exc: BaseException, doing: str) -> RunnerError:
    """Our error for one of `LIBRARY_ERRORS`, most specific first."""
    if isinstance(exc, paramiko.BadHostKeyException):
        return SessionLost(f"{doing}: the guest shows another host key than its image has", evidence=str(exc))
    if isinstance(exc, paramiko.AuthenticationException):
        return SessionLost(f"{doing}: the guest does not accept the image's key", evidence=str(exc))
    if isinstance(exc, TimeoutError):
        return SessionLost(f"{doing}: no answer in time")
    return SessionLost(f"{doing}: {type(exc).__name__}: {exc}")


def _connect(address: tuple[str, int], credentials: SshCredentials, deadline: Deadline) -> fabric.Connection:
    budget_s = max(0.001, deadline.remaining_s)
    host, port = address
    try:
        key = paramiko.Ed25519Key.from_private_key_file(str(credentials.client_key))
        name, blob = credentials.host_key.split()[:2]
        host_key = paramiko.PKey.from_type_string(name, base64.b64decode(blob, validate=True))
    except (OSError, ValueError, paramiko.SSHException) as exc:
        raise HostError(
            f"the image's keys cannot be used: {exc}",
            where=str(credentials.client_key.parent),
            next_step="build the image again: python -m host_setup image",
        ) from exc
    connection = fabric.Connection(
        host,
        user=credentials.user,
        port=port,
        config=fabric.Config(overrides={"load_ssh_configs": False}),
        connect_timeout=budget_s,
        connect_kwargs={
            "pkey": key,
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": budget_s,
            "auth_timeout": budget_s,
            "channel_timeout": budget_s,
        },
    )
    # Fabric accepts any host by default; ours must show the one key that its image holds.
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    entry = host if port == 22 else f"[{host}]:{port}"
    connection.client.get_host_keys().add(entry, name, host_key)
    connection.open()
    return connection
