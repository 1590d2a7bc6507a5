"""The session over Genode's protocol: the contract as far as the protocol can keep it, the exchange itself, and peers that misbehave."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.deadline import Deadline
from runner.errors import InfrastructureError, ProtocolError, SessionLost, TaskSetError, UsageError
from runner.events import EndEvent, ExitType
from runner.hosts.board import BoardHost
from runner.model import OverrunPolicy, Task, TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.genode import GenodeSession
from runner.specs import BoardSpec
from tests import genode_peer as peers
from tests.genode_contract import AnyOverrun, GenodeContract
from tests.genode_peer import GARBAGE, Peer, profile, word
from tests.session_contract import MS, Transcript, periodic, run

SET = TaskSet((periodic(2, 20, 0, 2),), overrun_policy=OverrunPolicy.KILL_AND_SKIP)
WHOLE = ((0, "START", 5), (0, "EXIT", 7), (0, "START", 25), (0, "EXIT", 27), (0, "JOBS_DONE", 40))


def connected(
    owner: ExitStack, address: tuple[str, int], kind: type[GenodeSession] = GenodeSession, **more: Any
) -> GenodeSession:
    """An open session."""
    host = owner.enter_context(BoardHost(BoardSpec(addresses=(f"127.0.0.1:{address[1]}",)), "board1", Path()))
    host.start(Deadline.after(5.0))
    session = kind(host, **more)
    owner.callback(session.close)
    session.open(Deadline.after(10.0))
    return session


@pytest.fixture
def owner() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(owner: ExitStack) -> Callable[..., Peer]:
    def make(answer: Callable[[socket.socket], None] | None = None) -> Peer:
        peer = Peer(answer)
        owner.callback(peer.close)
        return peer

    return make


class TestContract(GenodeContract):
    @pytest.fixture
    def session(self, owner: ExitStack, serve: Callable[..., Peer]) -> AbstractSession:
        return connected(owner, serve().address, AnyOverrun)


def test_the_exchange_is_the_documented_one(
    owner: ExitStack, serve: Callable[..., Peer], tmp_path: Path
) -> None:
    def answer(line: socket.socket) -> None:
        for byte in profile(*WHOLE, garbage=GARBAGE):
            line.sendall(bytes([byte]))

    program = tmp_path / "own"
    program.write_bytes(b"\x7fELF program")
    task = Task(
        period_ns=20 * MS,
        n_jobs=2,
        workload="executable",
        workload_args={"path": str(program), "argv": ("a<b",)},
    )
    taskset = replace(SET, tasks=(task,))
    peer = serve(answer)
    session = connected(owner, peer.address)
    session.configure(("<goal><fairness>1</fairness></goal>",))
    peer.heard.clear()
    transcript = run(session, taskset)
    assert [(j.start_ns, j.finish_ns, j.exit_type) for j in transcript.jobs] == [
        (5 * MS, 7 * MS, ExitType.EXIT),
        (25 * MS, 27 * MS, ExitType.EXIT),
    ]
    assert transcript.end == EndEvent(40 * MS, stopped=False)
    run(session, taskset)
    first = [peers.CLEAR, peers.AVAILABLE, peers.OPTIMIZE, peers.SEND_DESCS, peers.SEND_BINARIES, peers.START]
    again = [peers.STOP, peers.CLEAR, peers.CLEAR, peers.AVAILABLE, peers.SEND_DESCS, peers.START]
    assert peer.tags[:12] == first + again, "a program is sent once"
    assert peer.binaries == {"own": b"\x7fELF program"}
    document = peer.heard[3][1]
    assert b"<pkg>own</pkg><offset>0</offset><config><arg1>a&lt;b</arg1></config>" in document


BOMB = b'<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><profile>&b;</profile>'
DEEP = b"<profile>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</profile>"


def sized(content: bytes) -> bytes:
    return word(len(content)) + content


@pytest.mark.parametrize(
    "lie",
    [
        word(0),
        word(1 << 30),
        struct.pack("<i", -1),
        word(peers.AVAILABLE),
        sized(BOMB),
        sized(DEEP),
        sized(b"<profile><events>"),
        sized(b"<other></other></profile>"),
        sized(b"\xff\xfe</profile>"),
        profile((0, "EXIT", 7)),
        profile((1, "START", 7)),
        profile((0, "WHAT", 7)),
        profile((0, "START", 7), (0, "START", 8)),
        profile((0, "START", 7), (0, "EXIT", 6)),
        profile((0, "START", 7), (0, "JOBS_DONE", 8)),
        profile(*WHOLE[:4], (0, "START", 41)),
        profile((0, "START", -1)),
        profile((0, "START", 10**18)),
    ],
)
def test_a_peer_that_lies_is_found_out(owner: ExitStack, serve: Callable[..., Peer], lie: bytes) -> None:
    session = connected(owner, serve(lambda line: line.sendall(lie)).address)
    with pytest.raises(ProtocolError):
        run(session, SET, budget_s=20.0)


def test_after_a_wrong_profile_the_session_is_regained(owner: ExitStack, serve: Callable[..., Peer]) -> None:
    lies = iter([profile((0, "EXIT", 7)), profile(*WHOLE)])
    session = connected(owner, serve(lambda line: line.sendall(next(lies))).address)
    with pytest.raises(ProtocolError):
        run(session, SET, budget_s=20.0)
    assert session.regain(Deadline.after(10.0))
    assert len(run(session, SET).jobs) == 2


@pytest.mark.parametrize("said", [b"", word(100), profile((0, "START", 5))])
def test_a_peer_that_stalls_is_given_up_in_time(
    owner: ExitStack, serve: Callable[..., Peer], said: bytes
) -> None:
    session = connected(owner, serve(lambda line: line.sendall(said)).address)
    with pytest.raises(SessionLost):
        run(session, SET, budget_s=0.3)


def test_a_peer_that_never_stops_talking_is_given_up_in_time(
    owner: ExitStack, serve: Callable[..., Peer]
) -> None:
    def answer(line: socket.socket) -> None:
        while True:
            line.sendall(profile())

    session = connected(owner, serve(answer).address)
    with pytest.raises(InfrastructureError):
        run(session, SET, budget_s=0.5)


def test_a_peer_that_closes_is_lost(owner: ExitStack, serve: Callable[..., Peer]) -> None:
    session = connected(owner, serve(lambda line: line.shutdown(socket.SHUT_RDWR)).address)
    with pytest.raises(SessionLost, match="hung up"):
        run(session, SET, budget_s=20.0)


def test_open_waits_for_a_guest_without_an_address_yet(owner: ExitStack) -> None:
    """Nobody listens at first, then somebody who hangs up at once, as QEMU's network does, and then the peer."""
    with socket.create_server(("127.0.0.1", 0)) as early:
        address = early.getsockname()

        def hang_up() -> None:
            for _ in range(2):
                early.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        began_s = time.monotonic()
        host = owner.enter_context(BoardHost(BoardSpec(addresses=(f"127.0.0.1:{address[1]}",)), "b1", Path()))
        with pytest.raises(SessionLost):
            GenodeSession(host).open(Deadline.after(1.5))
        thread.join()
        assert time.monotonic() - began_s < 20.0


def test_goals_are_checked(owner: ExitStack, serve: Callable[..., Peer]) -> None:
    session = connected(owner, serve().address)
    for goal in ("<goal>", "<!DOCTYPE goal []><goal/>", "<goal>ä</goal>", 7):
        with pytest.raises(UsageError):
            session.configure((goal,))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"period_ns": MS + 1}, "period_ns"),
        ({"offset_ns": 5}, "offset_ns"),
        ({"kill_after_start_ns": 500}, "kill_after_start_ns"),
        ({"deadline_ns": 10 * MS}, "deadline_ns"),
        ({"policy": "other"}, "policy"),
        ({"cpu_affinity": (1,)}, "cpu_affinity"),
        (
            {"workload": "executable", "workload_args": {"path": "/bin/a-name-of-sixteen"}, "wcet_ns": None},
            "path",
        ),
    ],
)
def test_what_cannot_be_expressed_is_named(
    owner: ExitStack, serve: Callable[..., Peer], change: dict[str, Any], names: str
) -> None:
    session = connected(owner, serve().address)
    with pytest.raises(TaskSetError, match=names):
        session.start(replace(SET, tasks=(replace(SET.tasks[0], **change),)), Deadline.after(5.0))
    assert len(Transcript(run(session, SET).events).jobs) == 2


def test_another_overrun_policy_is_refused(owner: ExitStack, serve: Callable[..., Peer]) -> None:
    session = connected(owner, serve().address)
    with pytest.raises(TaskSetError, match="overrun_policy"):
        session.start(replace(SET, overrun_policy=OverrunPolicy.CONTINUE), Deadline.after(5.0))
