"""What the SSH libraries raise and what a hostile peer may do: everything ends on time, as one of our errors."""

from __future__ import annotations

import inspect
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import fabric.exceptions
import invoke.exceptions
import paramiko
import pytest
from paramiko import ssh_exception

from runner.deadline import Deadline
from runner.errors import (
    Fault,
    InfrastructureError,
    MachineKilled,
    ProtocolError,
    RunnerError,
    SessionLost,
    UsageError,
)
from runner.hosts.base import SshCredentials
from runner.model import TaskSet
from runner.sessions.ssh import SshSession
from runner.sessions.ssh_connection import LIBRARY_ERRORS, translate
from runner.task_loader.wire import VERSION
from runner.units import NS_PER_MS, NS_PER_S
from tests.session_contract import MS, endless, one_shot, run
from tests.ssh_endpoint import Endpoint, new_key, public_line

BUDGET_S = 1.0
#: A call may last this much longer than its deadline: the time to find out why, and to clean up.
SLACK_S = 2.0
HELLO = b"hello version=%d spin_ps=1000 cpus=1 kernel=6.1 realtime=1\n" % VERSION

# -- the libraries' errors ---------------------------------------------------------------------------------------------

#: Errors of calls that the session does not make: running commands through invoke, groups of connections, reading configuration
#: and ssh_config files, tasks and collections.
OF_OTHER_CALLS = {
    "AmbiguousEnvVar",
    "AuthFailure",
    "CollectionNotFound",
    "CommandTimedOut",
    "Exit",
    "Failure",
    "GroupException",
    "InvalidV1Env",
    "NothingToDo",
    "ParseError",
    "PlatformError",
    "ResponseNotAccepted",
    "SubprocessPipeError",
    "ThreadException",
    "UncastableEnvVar",
    "UnexpectedExit",
    "UnknownFileType",
    "UnpicklableConfigMember",
    "WatcherError",
}


def exceptions_of(*modules: object) -> list[type[BaseException]]:
    """The exception classes that are defined in these modules."""
    return [
        value
        for module in modules
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__ == getattr(module, "__name__", None)
    ]


@pytest.mark.parametrize(
    "error",
    [
        *exceptions_of(ssh_exception, fabric.exceptions, invoke.exceptions),
        *(socket.error, socket.timeout, socket.gaierror, socket.herror, ConnectionResetError, EOFError),
    ],
)
def test_every_error_of_the_libraries_has_its_place(error: type[BaseException]) -> None:
    """A new version of theirs that brings a new class fails here, until somebody has decided what it means."""
    assert issubclass(error, LIBRARY_ERRORS) != (error.__name__ in OF_OTHER_CALLS)


def test_errors_that_do_not_exist_any_more_are_not_kept() -> None:
    known = {error.__name__ for error in exceptions_of(fabric.exceptions, invoke.exceptions)}
    assert known >= OF_OTHER_CALLS


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (paramiko.AuthenticationException("no"), "does not accept the image's key"),
        (paramiko.BadAuthenticationType("no", ["password"]), "does not accept the image's key"),
        (paramiko.SSHException("odd"), "SSHException: odd"),
        (ConnectionRefusedError(111, "refused"), "ConnectionRefusedError: .*refused"),
        (TimeoutError(), "no answer in time"),
        (EOFError(), "EOFError"),
    ],
)
def test_translations_say_what_was_done_and_what_happened(error: BaseException, said: str) -> None:
    with pytest.raises(SessionLost, match=rf"qemu1: opening: .*{said}"):
        raise translate(error, "qemu1: opening")


# -- peers that do not speak SSH ---------------------------------------------------------------------------------------

Talk = Callable[[socket.socket, threading.Event], None]


@pytest.fixture
def credentials(tmp_path: Path) -> SshCredentials:
    """Keys that fit each other; the server's private one lies beside."""
    new_key(tmp_path / "client")
    host_key = new_key(tmp_path / "server")
    return SshCredentials(user="root", client_key=tmp_path / "client", host_key=public_line(host_key))


@contextmanager
def listening(talk: Talk) -> Iterator[tuple[str, int]]:
    """An address at which `talk` gets each connection, and an event that says when it is to end."""
    over = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    talks: list[threading.Thread] = []

    def attend(connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError, paramiko.SSHException):
            talk(connection, over)

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = server.accept()
                connection.settimeout(None)
                talks.append(threading.Thread(target=attend, args=(connection,)))
                talks[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server.getsockname()
    finally:
        over.set()
        acceptor.join()
        server.close()
        for thread in talks:
            thread.join()


def error_of(call: Callable[[], object], *, within_s: float = BUDGET_S) -> RunnerError:
    """What it raises, which must be one of ours, and on time."""
    began_s = time.monotonic()
    with pytest.raises(InfrastructureError) as caught:
        call()
    assert time.monotonic() - began_s < within_s + SLACK_S
    return caught.value


def failure_to_open(address: tuple[str, int], credentials: SshCredentials) -> RunnerError:
    with closing(SshSession(Endpoint(address, credentials))) as session:
        return error_of(lambda: session.open(Deadline.after(BUDGET_S)))


def says_nothing(connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def hangs_up(connection: socket.socket, over: threading.Event) -> None:
    """Closes at once."""


def stops_within_its_banner(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-drop")
    over.wait()


def stops_after_its_banner(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-quiet\r\n")
    over.wait()


def dribbles(connection: socket.socket, over: threading.Event) -> None:
    """Keeps every timeout that starts anew with each byte from ever passing."""
    while not over.wait(0.05):
        connection.sendall(b"S")


def announces_for_ever(connection: socket.socket, over: threading.Event) -> None:
    while not over.wait(0.001):
        connection.sendall(b"a line before the banner\r\n")


def speaks_http(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    "talk",
    [
        says_nothing,
        hangs_up,
        stops_within_its_banner,
        stops_after_its_banner,
        dribbles,
        announces_for_ever,
        speaks_http,
    ],
)
def test_what_does_not_speak_ssh_is_given_up_in_time(talk: Talk, credentials: SshCredentials) -> None:
    with listening(talk) as address:
        error = failure_to_open(address, credentials)
    assert isinstance(error, SessionLost)
    assert error.what.startswith("endpoint1: opening the session")


def test_nobody_at_the_address(credentials: SshCredentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    assert "ConnectionRefused" in failure_to_open(address, credentials).what


@pytest.mark.parametrize("seed", range(12))
def test_nonsense_in_the_place_of_packets_is_an_error_of_ours(seed: int, credentials: SshCredentials) -> None:
    """Well-formed packets with random contents: whatever paramiko stumbles over must have been foreseen."""
    chance = random.Random(seed)

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"SSH-2.0-nonsense\r\n")
        for _ in range(5):
            kind = chance.choice([1, 2, 4, 20, 20, 20, 21, 30, 31, 51, 52])
            payload = bytes([kind]) + chance.randbytes(chance.randrange(200))
            padding = 16 - (len(payload) + 5) % 8
            connection.sendall((len(payload) + padding + 1).to_bytes(4, "big") + bytes([padding]))
            connection.sendall(payload + bytes(padding))

    with listening(talk) as address:
        assert isinstance(failure_to_open(address, credentials), SessionLost)


def test_abort_wakes_an_open_that_waits(credentials: SshCredentials) -> None:
    killed = MachineKilled("the operator killed it")
    with listening(says_nothing) as address, closing(SshSession(Endpoint(address, credentials))) as session:
        thread = threading.Timer(0.2, session.abort, (killed,))
        thread.start()
        began_s = time.monotonic()
        with pytest.raises(MachineKilled) as caught:
            session.open(Deadline.after(30.0))
        assert time.monotonic() - began_s < 2.0
        thread.join()
    assert caught.value is killed


# -- peers that speak SSH, but are no task loader ----------------------------------------------------------------------

Serve = Callable[[paramiko.Channel, threading.Event], None]


class Server(paramiko.ServerInterface):
    """Lets everybody in, and gives one channel for a command."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL  # type: ignore[attr-defined, no-any-return]

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED  # type: ignore[attr-defined, no-any-return]

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.set()
        return True


class NeverOpens(Server):
    """Lets everybody in, and then does not answer the request for a channel."""

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.asked.wait(1.5 * BUDGET_S)
        return super().check_channel_request(kind, chanid)


class NeverExecutes(Server):
    """Does not answer the request for a command."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.wait(1.5 * BUDGET_S)
        return False


class NoCommands(Server):
    """Refuses them."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return False


class NoEntry(Server):
    """Knows no key."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_FAILED  # type: ignore[attr-defined, no-any-return]


@contextmanager
def ssh_server(folder: Path, serve: Serve, kind: type[Server] = Server) -> Iterator[tuple[str, int]]:
    """An SSH server of real protocol whose only command is `serve`."""
    key = paramiko.Ed25519Key.from_private_key_file(str(folder / "server"))

    def talk(connection: socket.socket, over: threading.Event) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        try:
            server = kind()
            transport.start_server(server=server)
            channel = None
            while not over.is_set() and not (channel and server.asked.is_set()):
                channel = channel or transport.accept(0.05)
            if channel is not None:
                serve(channel, over)
        finally:
            transport.close()

    with listening(talk) as address:
        yield address


def lines_from(channel: paramiko.Channel) -> Iterator[str]:
    rest = b""
    while chunk := channel.recv(4096):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)


def stays_silent(channel: paramiko.Channel, over: threading.Event) -> None:
    over.wait()


@pytest.mark.parametrize("kind", [NeverOpens, NeverExecutes, NoCommands, NoEntry])
def test_a_server_that_withholds_something_is_given_up_in_time(
    kind: type[Server], credentials: SshCredentials, tmp_path: Path
) -> None:
    with ssh_server(tmp_path, stays_silent, kind) as address:
        assert isinstance(failure_to_open(address, credentials), SessionLost)


def ends_at_once(channel: paramiko.Channel, over: threading.Event) -> None:
    channel.send_exit_status(1)


def dribbles_text(channel: paramiko.Channel, over: threading.Event) -> None:
    while not over.wait(0.01):
        channel.sendall(b"h")


def floods_text(channel: paramiko.Channel, over: threading.Event) -> None:
    while not over.is_set():
        channel.sendall(b"x" * 1024)


def floods_standard_error(channel: paramiko.Channel, over: threading.Event) -> None:
    channel.settimeout(0.1)
    while not over.is_set():
        with suppress(TimeoutError):
            channel.sendall_stderr(b"x" * 1024)


def cuts_a_line(channel: paramiko.Channel, over: threading.Event) -> None:
    channel.sendall(HELLO[:-5])


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (stays_silent, SessionLost),
        (ends_at_once, SessionLost),
        (dribbles_text, SessionLost),
        (floods_text, ProtocolError),
        (floods_standard_error, SessionLost),
        (cuts_a_line, ProtocolError),
    ],
)
def test_a_command_that_is_no_task_loader_is_given_up_in_time(
    serve: Serve, error: type[RunnerError], credentials: SshCredentials, tmp_path: Path
) -> None:
    with ssh_server(tmp_path, serve) as address:
        assert isinstance(failure_to_open(address, credentials), error)


def task_loader(*after_start: bytes, pause_s: float = 0.0, repeat: bool = False) -> Serve:
    """A command that accepts any set, says that it has started, and then what it was told to."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        for line in lines_from(channel):
            if line.startswith("taskset "):
                name = line.split(" id=")[1].split()[0].encode()
                channel.sendall(b"accepted id=" + name + b"\nstart id=" + name + b" t0_ns=0\n")
                while not over.is_set():
                    for data in after_start:
                        channel.sendall(data.replace(b"NAME", name))
                        over.wait(pause_s)
                    if not repeat:
                        break
                if b"end" not in after_start[-1][:4]:
                    over.wait()

    return serve


JOB = b"job 0 0 0 5 10 5 EXIT 0 0 0 0 0\n"
END = b"end id=NAME t_ns=20 reason=completed jobs=1 lost=0\n"
WHOLE = JOB + b"task_done task=0 t_ns=10\n" + END
SMALL = TaskSet((one_shot(1),))


def test_a_stream_in_single_bytes_is_a_stream(credentials: SshCredentials, tmp_path: Path) -> None:
    single = [bytes([byte]) for byte in WHOLE.removesuffix(END)]
    with (
        ssh_server(tmp_path, task_loader(*single, END)) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(10.0))
        assert len(run(session, SMALL).jobs) == 1


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (task_loader(b"\n"), ProtocolError),
        (task_loader(b"job 0 0\n"), ProtocolError),
        (task_loader(b"job 0 1 0 5 10 5 EXIT 0 0 0 0 0\n"), ProtocolError),
        (task_loader(JOB, JOB), ProtocolError),
        (task_loader(END), ProtocolError),
        (task_loader(b"error code=syntax detail=-\n"), ProtocolError),
        (task_loader(b"pong token=1 t_ns=1\n"), ProtocolError),
        (task_loader(b"j", pause_s=0.05, repeat=True), SessionLost),
    ],
)
def test_events_that_cannot_be_are_an_error_in_time(
    serve: Serve, error: type[RunnerError], credentials: SshCredentials, tmp_path: Path
) -> None:
    with (
        ssh_server(tmp_path, serve) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(10.0))
        session.start(SMALL, Deadline.after(10.0))
        assert isinstance(error_of(lambda: list(session.events(Deadline.after(BUDGET_S)))), error)


def test_a_flood_of_valid_events_ends_at_the_deadline(credentials: SshCredentials, tmp_path: Path) -> None:
    """There is always something to read, so no read ever times out."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        for line in lines_from(channel):
            if line == "run":
                name = endless().taskset_id
                channel.sendall(f"accepted id={name}\nstart id={name} t0_ns=0\n".encode())
                for first in range(0, 10_000_000, 100):
                    jobs = (f"job 0 {k} {k * MS} - - - EXIT 0 0 0 0 0\n" for k in range(first, first + 100))
                    channel.sendall("".join(jobs).encode())

    with (
        ssh_server(tmp_path, serve) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(10.0))
        session.start(endless(), Deadline.after(10.0))
        error = error_of(lambda: deque(session.events(Deadline.after(BUDGET_S)), maxlen=1))
        assert isinstance(error, SessionLost)
        assert "no answer within 1 s" in error.what


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (b"error code=range detail=too%20large\n", "TaskSetError", "range: too large"),
        (b"error code=set_up detail=no%20memory\n", "InfrastructureError", "could not set up .*no memory"),
        (b"error code=unknown_key detail=x\n", "ProtocolError", "did not understand .*unknown_key"),
        (b"accepted id=other\n", "ProtocolError", "instead of the acceptance"),
    ],
)
def test_a_refusal_is_blamed_on_whom_it_speaks_of(
    reply: bytes, error: str, said: str, credentials: SshCredentials, tmp_path: Path
) -> None:
    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        for line in lines_from(channel):
            if line == "run":
                channel.sendall(reply)

    with (
        ssh_server(tmp_path, serve) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(10.0))
        with pytest.raises(RunnerError, match=said) as caught:
            session.start(SMALL, Deadline.after(10.0))
    assert type(caught.value).__name__ == error


def test_a_peer_that_never_reads_does_not_hold_a_start_up(
    credentials: SshCredentials, tmp_path: Path
) -> None:
    """The request is larger than the channel's window, so sending it waits for a reader."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        over.wait()

    large = TaskSet(tuple(one_shot(1) for _ in range(64)))
    with (
        ssh_server(tmp_path, serve) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(10.0))
        error = error_of(lambda: session.start(large, Deadline.after(BUDGET_S)))
    assert "no answer within 1 s" in error.what


def test_a_failed_session_leaves_no_thread_behind(credentials: SshCredentials, tmp_path: Path) -> None:
    """Fabric forgets the connection whose opening failed; its thread must end all the same."""
    with ssh_server(tmp_path, stays_silent, NoEntry) as address:
        failure_to_open(address, credentials)
    left = [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)]
    for thread in left:
        thread.join(2.0)
    assert not [thread for thread in left if thread.is_alive()]


# -- two clocks --------------------------------------------------------------------------------------------------------

#: By how much the peers' clocks are ahead of ours.
AHEAD_NS = 1_000 * NS_PER_S


def clock(*, before_s: tuple[float, ...] = (0.0,), after_s: float = 0.0) -> Serve:
    """A command that answers pings, and waits before and after it reads the clock."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        for line, wait_s in zip(lines_from(channel), cycle(before_s), strict=False):
            over.wait(wait_s)
            t_ns = time.monotonic_ns() + AHEAD_NS
            over.wait(after_s)
            channel.sendall(f"pong {line.removeprefix('ping ')} t_ns={t_ns}\n".encode())

    return serve


@contextmanager
def opened(folder: Path, credentials: SshCredentials, serve: Serve) -> Iterator[SshSession]:
    """A session to a server whose only command is `serve`."""
    with ssh_server(folder, serve) as address, closing(SshSession(Endpoint(address, credentials))) as session:
        session.open(Deadline.after(10.0))
        yield session


@pytest.mark.parametrize(
    "serve", [clock(), clock(before_s=(0.03,)), clock(after_s=0.03)], ids=["prompt", "before", "after"]
)
def test_a_clock_pair_is_right_within_its_uncertainty(
    serve: Serve, credentials: SshCredentials, tmp_path: Path
) -> None:
    """Both clocks are really one here, so that the truth is known: also when all of the round trip's time was spent on one way."""
    with opened(tmp_path, credentials, serve) as session:
        for _ in range(3):
            began_ns = time.monotonic_ns()
            pair = session.clock_pair(Deadline.after(10.0))
            assert began_ns < pair.host_ns < time.monotonic_ns()
            assert abs(pair.guest_ns - AHEAD_NS - pair.host_ns) <= pair.uncertainty_ns


def test_of_several_round_trips_the_shortest_tells(credentials: SshCredentials, tmp_path: Path) -> None:
    slow = clock(before_s=(0.4, 0.4, 0.0, 0.4, 0.4))
    with opened(tmp_path, credentials, slow) as session:
        assert session.clock_pair(Deadline.after(30.0)).uncertainty_ns < 200 * NS_PER_MS


def answers(*replies: bytes) -> Serve:
    """A command that answers any line so."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        for line in lines_from(channel):
            for reply in replies:
                channel.sendall(reply.replace(b"TOKEN", line.removeprefix("ping token=").encode()))

    return serve


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (answers(b"pong token=other t_ns=1\n"), ProtocolError),
        (answers(b"pong token=TOKEN t_ns=1\n", b"pong token=TOKEN t_ns=2\n"), ProtocolError),
        (answers(b"pong token=TOKEN\n"), ProtocolError),
        (answers(b"pong token=TOKEN t_ns=soon\n"), ProtocolError),
        (answers(b"accepted id=TOKEN\n"), ProtocolError),
        (answers(b"error code=unknown_verb detail=ping\n"), ProtocolError),
        (answers(b"pong token=TOKEN"), SessionLost),
        (answers(), SessionLost),
    ],
)
def test_what_is_no_answer_to_a_ping_is_an_error_in_time(
    serve: Serve, error: type[RunnerError], credentials: SshCredentials, tmp_path: Path
) -> None:
    with opened(tmp_path, credentials, serve) as session:
        assert isinstance(error_of(lambda: session.clock_pair(Deadline.after(BUDGET_S))), error)


def test_the_clock_is_asked_for_between_task_sets_only(credentials: SshCredentials, tmp_path: Path) -> None:
    with opened(tmp_path, credentials, task_loader(WHOLE)) as session:
        session.start(SMALL, Deadline.after(10.0))
        with pytest.raises(UsageError, match="clock was asked for while a task set runs") as caught:
            session.clock_pair(Deadline.after(10.0))
        assert "events()" in caught.value.next_step
        events = list(session.events(Deadline.after(10.0)))
        assert len(events) == 4, "the set was not disturbed"
        session.close()
        with pytest.raises(SessionLost, match="not open"):
            session.clock_pair(Deadline.after(10.0))


# -- whose doing it is, and back again ---------------------------------------------------------------------------------


def ends_when_started(channel: paramiko.Channel, over: threading.Event) -> None:
    """The task loader dies with the set; the connection stays."""
    channel.sendall(HELLO)
    for line in lines_from(channel):
        if line.startswith("taskset "):
            name = line.split(" id=")[1].split()[0].encode()
            channel.sendall(b"accepted id=" + name + b"\nstart id=" + name + b" t0_ns=0\n")
            channel.close()
            over.wait()


def hangs_up_when_started(channel: paramiko.Channel, over: threading.Event) -> None:
    """With the set, the whole connection is gone."""
    channel.sendall(HELLO)
    for line in lines_from(channel):
        if line.startswith("taskset "):
            name = line.split(" id=")[1].split()[0].encode()
            channel.sendall(b"accepted id=" + name + b"\nstart id=" + name + b" t0_ns=0\n")
            channel.get_transport().sock.shutdown(socket.SHUT_RDWR)
            over.wait()


@pytest.mark.parametrize(
    ("serve", "fault"),
    [
        (task_loader(b""), Fault.TASKSET),
        (ends_when_started, Fault.TASKSET),
        (hangs_up_when_started, Fault.GUEST),
        (task_loader(b"garbage\n"), Fault.GUEST),
    ],
    ids=["silent", "ended", "hung up", "garbage"],
)
def test_a_set_is_suspected_of_silence_and_not_of_noise(
    serve: Serve, fault: Fault, credentials: SshCredentials, tmp_path: Path
) -> None:
    with opened(tmp_path, credentials, serve) as session:
        session.start(SMALL, Deadline.after(10.0))
        error = error_of(lambda: list(session.events(Deadline.after(BUDGET_S))))
    assert isinstance(error, InfrastructureError)
    assert error.fault is fault


def test_a_set_that_never_ran_is_suspected_of_nothing(credentials: SshCredentials, tmp_path: Path) -> None:
    def deaf(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        over.wait()

    with opened(tmp_path, credentials, deaf) as session:
        error = error_of(lambda: session.start(SMALL, Deadline.after(BUDGET_S)))
    assert isinstance(error, InfrastructureError)
    assert error.fault is Fault.GUEST


def noisy(*after_stop: bytes) -> Serve:
    """A task loader that answers the first set with garbage, and `stop` as it was told to; every other set is well."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        name, n_sets, token = b"", 0, b""
        for line in lines_from(channel):
            if line.startswith("taskset "):
                name, n_sets = line.split(" id=")[1].split()[0].encode(), n_sets + 1
                channel.sendall(b"accepted id=" + name + b"\nstart id=" + name + b" t0_ns=0\n")
                channel.sendall(b"garb\xff\xffage\n" if n_sets == 1 else WHOLE.replace(b"NAME", name))
            if line.startswith("ping "):
                token = line.removeprefix("ping token=").encode()
                for data in after_stop:
                    channel.sendall(data.replace(b"NAME", name).replace(b"TOKEN", token))

    return serve


PONG = b"pong token=TOKEN t_ns=1\n"
STOPPED = b"end id=NAME t_ns=20 reason=stopped jobs=0 lost=0\n"


@pytest.mark.parametrize(
    "after_stop",
    [
        (PONG, STOPPED),
        (STOPPED, PONG),
        (b"\xff\n" * 50, JOB, PONG, b"x" * 5000 + b"\n", STOPPED),
        (b"pong token=other t_ns=1\n", STOPPED, PONG),
    ],
    ids=["pong first", "end first", "more garbage", "another pong"],
)
def test_a_task_loader_that_stops_and_answers_takes_sets_again(
    after_stop: tuple[bytes, ...], credentials: SshCredentials, tmp_path: Path
) -> None:
    with opened(tmp_path, credentials, noisy(*after_stop)) as session:
        session.start(SMALL, Deadline.after(10.0))
        assert isinstance(error_of(lambda: list(session.events(Deadline.after(10.0)))), ProtocolError)
        assert session.regain(Deadline.after(10.0))
        assert len(run(session, SMALL).jobs) == 1


@pytest.mark.parametrize("after_stop", [(), (PONG,), (STOPPED,), (b"pong token=other t_ns=1\n",)])
def test_a_task_loader_that_does_not_is_given_up_in_time(
    after_stop: tuple[bytes, ...], credentials: SshCredentials, tmp_path: Path
) -> None:
    with opened(tmp_path, credentials, noisy(*after_stop)) as session:
        session.start(SMALL, Deadline.after(10.0))
        error_of(lambda: list(session.events(Deadline.after(10.0))), within_s=10.0)
        error = error_of(lambda: session.regain(Deadline.after(BUDGET_S)))
        assert isinstance(error, SessionLost)
        assert not session.regain(Deadline.after(BUDGET_S)), "now it is broken"


def test_where_nobody_knows_whether_a_set_runs_nobody_asks(
    credentials: SshCredentials, tmp_path: Path
) -> None:
    with opened(tmp_path, credentials, answers(b"garbage\n")) as session:
        error_of(lambda: session.start(SMALL, Deadline.after(10.0)))
        assert not session.regain(Deadline.after(10.0))


# -- peers that send more than anybody keeps ---------------------------------------------------------------------------

#: Far more than the bounds and all buffers on the way, far less than what a flood brings in the time that a call has.
KEPT_BYTES_MAX = 64 << 20


def flood(connection: socket.socket, over: threading.Event) -> int:
    """Send until nobody takes it any more, or for long enough; how much it was."""
    connection.settimeout(1.0)
    n_bytes = 0
    with suppress(OSError):
        while not over.is_set() and n_bytes < 4 * KEPT_BYTES_MAX:
            n_bytes += connection.send(b"x" * (1 << 16))
    return n_bytes


@pytest.mark.parametrize(
    "beginning",
    [
        b"",  # a banner without end
        b"SSH-2.0-large\r\n" + struct.pack(">I", (1 << 30) + 4),  # a packet of a GiB
    ],
)
def test_a_flood_before_the_log_in_is_not_kept(beginning: bytes, credentials: SshCredentials) -> None:
    taken: list[int] = []

    def floods(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(beginning)
        taken.append(flood(connection, over))

    with listening(floods) as address, closing(SshSession(Endpoint(address, credentials))) as session:
        error = error_of(lambda: session.open(Deadline.after(20.0)))
    assert isinstance(error, SessionLost)
    assert taken[0] < KEPT_BYTES_MAX


@pytest.mark.parametrize("kind", [94, 95])  # SSH_MSG_CHANNEL_DATA, SSH_MSG_CHANNEL_EXTENDED_DATA
def test_a_flood_beyond_the_window_is_not_kept(
    kind: int, credentials: SshCredentials, tmp_path: Path
) -> None:
    """The library tells the peer how much it may send, and does not see to it."""
    taken: list[int] = []

    def floods(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        message = paramiko.Message()
        message.add_byte(bytes([kind]))
        message.add_int(channel.remote_chanid)
        if kind == 95:
            message.add_int(1)
        message.add_string(b"x" * (1 << 15))
        n_bytes = 0
        transport: Any = channel.transport
        try:
            while n_bytes < 4 * KEPT_BYTES_MAX and transport.is_active():
                transport._send_user_message(message)
                n_bytes += 1 << 15
        finally:
            taken.append(n_bytes)

    with (
        ssh_server(tmp_path, floods) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(20.0))
        end_s = time.monotonic() + 60.0
        while not taken and time.monotonic() < end_s:
            time.sleep(0.01)
    assert taken[0] < KEPT_BYTES_MAX


def test_a_peer_has_the_library_write_no_log(
    credentials: SshCredentials, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would have a line for every packet that it does not know."""

    def serve(channel: paramiko.Channel, over: threading.Event) -> None:
        channel.sendall(HELLO)
        transport: Any = channel.transport
        for code in range(100):
            message = paramiko.Message()
            message.add_byte(bytes([95]))
            message.add_int(channel.remote_chanid)
            message.add_int(7 + code)
            message.add_string(b"\x1b[2J")
            transport._send_user_message(message)
        channel.sendall(b"".join([b"x" * 10, b"\n"]))
        over.wait()

    with (
        ssh_server(tmp_path, serve) as address,
        closing(SshSession(Endpoint(address, credentials))) as session,
    ):
        session.open(Deadline.after(20.0))
        assert isinstance(error_of(lambda: session.clock_pair(Deadline.after(20.0))), ProtocolError)
    assert "extended_data" not in caplog.text
