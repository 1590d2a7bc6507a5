"""The monitor, against servers that behave and servers that do not."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import socket
import threading
import time
import warnings

import pytest

from runner.deadline import Deadline
from runner.errors import ProtocolError, SessionLost
from runner.qemu import qmp
from runner.qemu.qmp import QmpMonitor
from tests.fleet_samples import HANG_S
from tests.qemu_guests import eventually

GREETING = {
    "QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 2}, "package": ""}, "capabilities": []}
}


class Peer:
    """The QEMU side of a socket pair, which answers as a script tells it."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.ours.setblocking(False)
        self._theirs.settimeout(10)
        self._heard = ""

    def say(self, *messages: object) -> None:
        text = "".join(m if isinstance(m, str) else json.dumps(m) + "\r\n" for m in messages)
        self._theirs.sendall(text.encode())

    def say_bytes(self, data: bytes) -> None:
        self._theirs.sendall(data)

    def hear(self) -> dict[str, object]:
        # The client ends its messages with nothing but their own last brace.
        while True:
            with contextlib.suppress(ValueError):
                message, end = json.JSONDecoder().raw_decode(self._heard)
                self._heard = self._heard[end:].lstrip()
                return dict(message)
            data = self._theirs.recv(4096)
            assert data, "the client hung up"
            self._heard += data.decode()

    def greet(self) -> None:
        self.say(GREETING)
        assert self.hear()["execute"] == "qmp_capabilities"
        self.say({"return": {}})

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)
        self._theirs.close()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.hang_up()


class Owner:
    """Notes what the monitor tells."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.lost = threading.Event()

    def on_event(self, name, data):
        self.events.append((name, dict(data)))


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def monitor(peer, owner):
    monitor = QmpMonitor("qemu1", peer.ours, owner.on_event, owner.lost.set)
    yield monitor
    monitor.close()
    monitor.close()


@pytest.fixture
def connected(peer, monitor):
    peer.greet()
    assert monitor.wait_ready(Deadline.after(10)) == "9.1.2"
    return monitor


def answering(peer: Peer, *answers: dict[str, object]) -> threading.Thread:
    """A thread that answers the next command."""

    def reply() -> None:
        message = peer.hear()
        peer.say(*({**answer, "id": message["id"]} for answer in answers))

    thread = threading.Thread(target=reply)
    thread.start()
    return thread


def test_commands_return_and_arguments_get_their_hyphens(peer, connected):
    heard = []

    def answer():
        heard.append(peer.hear())
        peer.say({"return": [1, 2], "id": heard[0]["id"]})

    thread = threading.Thread(target=answer)
    thread.start()
    assert connected.execute("sum", Deadline.after(10), command_line="x") == [1, 2]
    thread.join()
    assert heard[0]["arguments"] == {"command-line": "x"}


def test_a_refusal_carries_qemus_reason(peer, connected):
    thread = answering(peer, {"error": {"class": "GenericError", "desc": "no such thing"}})
    with pytest.raises(ProtocolError, match="no such thing") as caught:
        connected.execute("frob", Deadline.after(10))
    assert "frob" in caught.value.where
    thread.join()


def test_silence_has_a_deadline_and_later_commands_work(peer, connected):
    with pytest.raises(SessionLost, match=r"within 0.05 s"):
        connected.execute("stop", Deadline.after(0.05))
    peer.hear()
    thread = answering(peer, {"return": "fine"})
    assert connected.execute("cont", Deadline.after(10)) == "fine"
    thread.join()


def test_events_arrive_in_order_also_those_just_before_the_end(peer, connected, owner):
    peer.say(
        *({"event": "E", "data": {"n": n}, "timestamp": {"seconds": 0, "microseconds": 0}} for n in range(50))
    )
    peer.hang_up()
    assert owner.lost.wait(10)
    assert owner.events == [("E", {"n": n}) for n in range(50)]


def test_hanging_up_frees_whoever_waits(peer, connected, owner):
    def hang_up():
        peer.hear()
        peer.hang_up()

    thread = threading.Thread(target=hang_up)
    thread.start()
    began_s = time.monotonic()
    with pytest.raises(SessionLost, match="ended"):
        connected.execute("stop", Deadline.after(30))
    assert time.monotonic() - began_s < 5
    thread.join()
    assert owner.lost.wait(10)
    with pytest.raises(SessionLost, match="closed"):
        connected.execute("stop", Deadline.after(30))


@pytest.mark.parametrize(
    "greeting",
    [
        "no json\r\n",
        '{"QMP": 3}\r\n',
        '{"event": "X"}\r\n',
        "[" * 100_000 + "\r\n",
        '{"QMP": {"version": {"qemu": {}}, "capabilities": []}}\r\n{"return": {}, "id": "__qmp#00000"}\r\n',
        '{"QMP": {"version": {"qemu": 7, "package": 7}, "capabilities": []}}\r\n{"return": {}, "id": "__qmp#00000"}\r\n',
    ],
)
def test_a_greeting_that_is_none_is_told(peer, monitor, greeting):
    peer.say(greeting)
    with pytest.raises(SessionLost):
        monitor.wait_ready(Deadline.after(10))


def test_no_greeting_has_a_deadline(monitor):
    with pytest.raises(SessionLost, match=r"within 0.05 s"):
        monitor.wait_ready(Deadline.after(0.05))


def test_garbage_in_the_middle_ends_the_connection(peer, connected, owner):
    peer.say("}{ garbage\r\n")
    assert owner.lost.wait(10)


def test_bytes_that_are_no_text_end_the_connection_without_a_traceback(peer, connected, owner, capfd):
    peer.say_bytes(b'{"event": "\xff"}\r\n')
    assert owner.lost.wait(10)
    with pytest.raises(SessionLost):
        connected.execute("stop", Deadline.after(10))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("answer", [{"error": {}}, {"error": 7}, {"error": {"class": 7, "desc": []}}])
def test_an_answer_that_is_none_is_told(peer, connected, answer):
    thread = answering(peer, answer)
    with pytest.raises((ProtocolError, SessionLost)):
        connected.execute("stop", Deadline.after(10))
    thread.join()


def test_close_is_no_loss(peer, connected, owner):
    connected.close()
    assert not owner.lost.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "qmp-qemu1"]


def test_close_just_when_the_connection_ends_leaves_nothing_open(peer, owner, monkeypatch):
    """Told to end in the very step in which it ends by itself: the connection is closed all the same."""
    monkeypatch.setattr(qmp, "LOOK_INTERVAL_S", 0.01)
    closers: list[threading.Thread] = []
    known = threading.Event()

    def look() -> None:
        known.wait(HANG_S)
        closer = threading.Thread(target=watching.close)
        closer.start()
        closers.append(closer)
        assert eventually(lambda: watching._closing)
        raise RuntimeError("it ends by itself")

    watching = QmpMonitor("qemu1", peer.ours, owner.on_event, owner.lost.set, look)
    known.set()
    peer.greet()
    assert eventually(lambda: bool(closers))
    closers[0].join()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gc.collect()
    assert not [str(one.message) for one in told]


def test_close_while_the_greeting_fails_says_nothing(owner, caplog):
    """QEMU hangs up, and in some step of what the library does about it we close: it is no bug of theirs to be told of."""
    for step in range(100):
        peer = Peer()
        watching = QmpMonitor("qemu1", peer.ours, owner.on_event, owner.lost.set)
        assert eventually(lambda: watching._session is not None)  # noqa: B023 - called at once
        peer.hang_up()
        time.sleep(step * 1e-5)
        watching.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
