"""One exchange over Genode's protocol, to the byte: replayed in pieces, and spoilt at each of its steps."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import Fault, InfrastructureError, ProtocolError, SessionLost
from runner.events import EndEvent, ExitType
from runner.genode import encode_descriptions
from runner.hosts.board import BoardHost
from runner.model import OverrunPolicy, Task, TaskSet
from runner.sessions.genode import GenodeSession
from runner.specs import BoardSpec
from tests.genode_peer import (
    AVAILABLE,
    CLEAR,
    GARBAGE,
    GO_SEND,
    OPTIMIZE,
    SEND_BINARIES,
    SEND_DESCS,
    START,
    STOP,
    profile,
    word,
)
from tests.session_contract import MS, run

PATIENCE_S = 20.0
GOAL = b"<goal><fairness>1</fairness></goal>"
PROGRAMS = {"first": b"\x7fELF one", "second": b"\x7fELF the other"}
#: The second task comes first, and the first one 30 ms behind it.
DOCUMENT = (
    b"<taskset>"
    b"<periodictask><id>1</id><priority>128</priority><deadline>40</deadline><period>50</period><criticaltime>5</criticaltime>"
    b"<numberofjobs>1</numberofjobs><quota>64K</quota><caps>235</caps><cores>0</cores><coreoffset>0</coreoffset>"
    b"<pkg>pi</pkg><offset>10</offset><config><arg1>8192</arg1></config></periodictask>"
    b"<periodictask><id>0</id><priority>3</priority><deadline>0</deadline><period>20</period><criticaltime>0</criticaltime>"
    b"<numberofjobs>2</numberofjobs><quota>100M</quota><caps>235</caps><cores>0</cores><coreoffset>0</coreoffset>"
    b"<pkg>first</pkg><offset>30</offset><config><arg1>a&lt;b</arg1><arg2></arg2></config></periodictask>"
    b"<periodictask><id>2</id><priority>0</priority><deadline>0</deadline><period>0</period><criticaltime>0</criticaltime>"
    b"<numberofjobs>1</numberofjobs><quota>100M</quota><caps>235</caps><cores>0</cores><coreoffset>0</coreoffset>"
    b"<pkg>second</pkg><offset>0</offset><config></config></periodictask>"
    b"</taskset>\0"
)
PROFILES = profile((2, "START", 140), (2, "EXIT", 141), (2, "JOBS_DONE", 141), garbage=GARBAGE) + profile(
    *((1, "START", 110), (1, "EXIT_CRITICAL", 115), (1, "JOBS_DONE", 120)),
    *(
        (0, "START", 141),
        (0, "EXIT", 142),
        (0, "START", 160),
        (0, "OUT_OF_QUOTA", 161),
        (0, "JOBS_DONE", 170),
    ),
    garbage=b"",
)


def program(name: str) -> bytes:
    return name.encode().ljust(16, b"\0") + word(len(PROGRAMS[name])) + PROGRAMS[name]


#: What the client says, and then the server.
EXCHANGE = (
    (word(AVAILABLE), word(AVAILABLE)),
    (word(CLEAR) + word(AVAILABLE), word(AVAILABLE)),
    (
        word(OPTIMIZE)
        + word(len(GOAL))
        + GOAL
        + word(SEND_DESCS)
        + word(len(DOCUMENT))
        + DOCUMENT
        + word(SEND_BINARIES)
        + word(2),
        word(GO_SEND),
    ),
    (program("first"), word(GO_SEND)),
    (program("second") + word(START), PROFILES),
    (word(STOP) + word(CLEAR), b""),
)
#: The step from which on a task set runs.
RUNNING = 4


class Spoilt(Enum):
    """What becomes of the server's words of one step, and of the connection."""

    SILENT = "nothing is said"
    HALF = "half of it is said"
    CLOSED = "the connection is closed instead"
    HALF_CLOSED = "the connection is closed after half of it"
    RESET = "the connection is reset"
    ZERO = "a size of 0 instead"
    HUGE = "a size of 4 GiB instead"


@dataclass
class Server:
    """Takes one client, speaks when it has heard as much as the exchange says, and keeps what it hears.

    Attributes:
        exchange: What the client says, and then the server.
        piece: How many bytes are said at once.
        spoilt: At this step it happens, and nothing is said after it.
    """

    exchange: Sequence[tuple[bytes, bytes]] = EXCHANGE
    piece: int = 1 << 16
    spoilt: tuple[int, Spoilt] | None = None
    heard: bytearray = field(default_factory=bytearray)

    def __enter__(self) -> Server:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # It may be in accept(), which only this ends.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._listener.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def join(self) -> None:
        """Until the exchange is over."""
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        with suppress(OSError):
            line, _ = self._listener.accept()
            line.settimeout(PATIENCE_S)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with line:
                self._replay(line)

    def _replay(self, line: socket.socket) -> None:
        for step, (hears, says) in enumerate(self.exchange):
            left = len(hears)
            while left:
                got = line.recv(left)
                if not got:
                    return
                self.heard += got
                left -= len(got)
            if self.spoilt is not None and self.spoilt[0] == step:
                self._spoil(line, self.spoilt[1], says)
                return
            for at in range(0, len(says), self.piece):
                line.sendall(says[at : at + self.piece])
        self.heard += line.recv(100)  # the end, or what should not be there

    def _spoil(self, line: socket.socket, how: Spoilt, says: bytes) -> None:
        match how:
            case Spoilt.HALF | Spoilt.HALF_CLOSED:
                line.sendall(says[: len(says) // 2])
            case Spoilt.ZERO:
                line.sendall(word(0))
            case Spoilt.HUGE:
                line.sendall(word(0xFFFFFFFF))
            case Spoilt.RESET:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how not in (Spoilt.CLOSED, Spoilt.HALF_CLOSED, Spoilt.RESET):
            self._over.wait(PATIENCE_S)


@pytest.fixture
def owner() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def taskset(tmp_path: Path) -> TaskSet:
    for name, content in PROGRAMS.items():
        (tmp_path / name).write_bytes(content)

    def own(name: str, *argv: str) -> dict[str, str | tuple[str, ...]]:
        return {"path": str(tmp_path / name), "argv": argv}

    tasks = (
        Task(
            period_ns=20 * MS,
            n_jobs=2,
            offset_ns=40 * MS,
            priority_rank=3,
            workload="executable",
            workload_args=own("first", "a<b", ""),
        ),
        Task(
            period_ns=50 * MS,
            deadline_ns=40 * MS,
            offset_ns=10 * MS,
            policy="deadline",  # type: ignore[arg-type]
            wcet_ns=5 * MS,
            workload="pi",
            workload_args={"arg1": 8192},
            kill_after_start_ns=5 * MS,
            mem_limit_bytes=64 << 10,
        ),
        Task(period_ns=None, offset_ns=40 * MS, workload="executable", workload_args=own("second")),
    )
    return TaskSet(tasks, overrun_policy=OverrunPolicy.KILL_AND_SKIP)


def session_to(server: Server, owner: ExitStack, folder: Path) -> GenodeSession:
    host = owner.enter_context(BoardHost(BoardSpec(addresses=(server.address,)), "board1", folder))
    host.start(Deadline.after(PATIENCE_S))
    session = GenodeSession(host)
    owner.callback(session.close)
    return session


@pytest.mark.parametrize("piece", [1, 3, 1 << 16])
def test_the_whole_exchange_to_the_byte(
    owner: ExitStack, tmp_path: Path, taskset: TaskSet, piece: int
) -> None:
    server = owner.enter_context(Server(piece=piece))
    session = session_to(server, owner, tmp_path)
    session.open(Deadline.after(PATIENCE_S))
    session.configure((GOAL.decode(),))
    transcript = run(session, taskset)
    session.close()
    server.join()
    assert bytes(server.heard) == b"".join(hears for hears, _ in EXCHANGE)
    assert transcript.exits(0) == [ExitType.EXIT, ExitType.OUT_OF_QUOTA]
    assert transcript.exits(1) == [ExitType.EXIT_CRITICAL]
    assert [(job.start_ns, job.finish_ns) for job in transcript.jobs] == [
        (start * MS, finish * MS) for start, finish in ((140, 141), (110, 115), (141, 142), (160, 161))
    ]
    assert transcript.end == EndEvent(170 * MS, stopped=False)


@pytest.mark.parametrize("how", Spoilt)
@pytest.mark.parametrize("step", range(RUNNING + 1))
def test_whatever_happens_at_any_step_ends_in_time(
    owner: ExitStack, tmp_path: Path, taskset: TaskSet, step: int, how: Spoilt
) -> None:
    """With an error that says whose doing it was; and what was sent up to then is the exchange's."""
    server = owner.enter_context(Server(spoilt=(step, how)))
    session = session_to(server, owner, tmp_path)
    wrong = how in (Spoilt.ZERO, Spoilt.HUGE)
    # Silence is waited for; a word that cannot be is not.
    budget_s = PATIENCE_S if wrong and step > 0 else 0.25

    def converse() -> None:
        session.open(Deadline.after(PATIENCE_S if step > 0 else budget_s))
        session.configure((GOAL.decode(),))
        session.start(taskset, Deadline.after(PATIENCE_S if step == RUNNING else budget_s))
        list(session.events(Deadline.after(budget_s)))

    with pytest.raises(InfrastructureError) as caught:
        converse()
    assert isinstance(caught.value, ProtocolError if wrong else SessionLost)
    reset = how is Spoilt.RESET  # is told by the system, which does not know what ran
    assert caught.value.fault is (
        Fault.TASKSET if step == RUNNING and not reset and not wrong else Fault.GUEST
    )
    # Nobody tries to go on where the other side may take it for something else.
    if wrong or how in (Spoilt.CLOSED, Spoilt.HALF_CLOSED, Spoilt.RESET) or step in (2, 3):
        with suppress(InfrastructureError):
            assert not session.regain(Deadline.after(PATIENCE_S))
    assert b"".join(hears for hears, _ in EXCHANGE).startswith(bytes(server.heard))


@pytest.mark.parametrize("said", [word(AVAILABLE), profile(), word(GO_SEND + 1)])
def test_something_else_in_the_place_of_go_send(
    owner: ExitStack, tmp_path: Path, taskset: TaskSet, said: bytes
) -> None:
    server = owner.enter_context(Server([*EXCHANGE[:2], (EXCHANGE[2][0], said), (b"never", b"")]))
    session = session_to(server, owner, tmp_path)
    session.open(Deadline.after(PATIENCE_S))
    session.configure((GOAL.decode(),))
    with pytest.raises(InfrastructureError):
        session.start(taskset, Deadline.after(0.25))
    assert not session.regain(Deadline.after(PATIENCE_S)), "programs are owed"


def test_a_program_that_is_not_taken_is_given_up_in_time(
    owner: ExitStack, tmp_path: Path, taskset: TaskSet
) -> None:
    """More than the buffers between the two hold, and nobody reads it."""
    (tmp_path / "first").write_bytes(bytes(16 << 20))
    alone = replace(taskset, tasks=taskset.tasks[:1])
    document = encode_descriptions(alone)
    described = word(SEND_DESCS) + word(len(document)) + document + word(SEND_BINARIES) + word(1)
    steps = [*EXCHANGE[:2], (described, word(GO_SEND)), (b"", b"")]
    server = owner.enter_context(Server(steps, spoilt=(3, Spoilt.SILENT)))
    session = session_to(server, owner, tmp_path)
    session.open(Deadline.after(PATIENCE_S))
    with pytest.raises(SessionLost, match="no answer in time"):
        session.start(alone, Deadline.after(2.0))
    assert not session.regain(Deadline.after(PATIENCE_S))
