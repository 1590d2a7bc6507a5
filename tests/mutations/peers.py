"""Peers at the other end of a connection: QEMU's monitor, and a task loader behind SSH."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import paramiko

from runner.deadline import Deadline
from runner.errors import InfrastructureError, TaskSetError
from runner.hosts.base import SshCredentials
from runner.qemu.qmp import Command, QmpMonitor
from runner.sessions.ssh import SshSession
from tests.mutations.kind import Kind
from tests.mutations.messages import SETS, mutated_speech, pieces, spoken
from tests.mutations.mutators import as_json, bombs, changed_bytes, changed_tokens, changed_value
from tests.ssh_endpoint import Endpoint, new_key, public_line

_GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian 7.2"},
        "capabilities": ["oob"],
    }
}
_EVENT = {
    "event": "GUEST_PANICKED",
    "data": {"action": "pause"},
    "timestamp": {"seconds": 1, "microseconds": 2},
}
_ERROR = {"error": {"class": "GenericError", "desc": "no such thing"}, "id": "__qmp#00000"}
#: What is said at first, after the first command, after the second …
_CONVERSATION: list[list[dict[str, Any]]] = [
    [_GREETING],
    [{"return": {}}, _EVENT],
    [{"return": {"status": "running", "running": True}, "id": "__qmp#00000"}, {**_EVENT, "event": "STOP"}],
    [{"return": {}, "id": "__qmp#00001"}],
    [_EVENT, {"return": [], "id": "__qmp#00002"}],
]
_APART = b"\x1d\x1d"
_WORDS = (
    "QMP",
    "return",
    "error",
    "event",
    "id",
    "data",
    "null",
    "true",
    "1e999",
    "-1",
    '"',
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
)


class QmpPeer(Kind):
    """A monitor of QEMU's that says anything, at once or in pieces, and then hangs up, or not."""

    name = "qmp"
    share = 40
    refusals = (InfrastructureError,)

    def make(self, chance: Random) -> bytes:
        turns = [[as_json(message) for message in turn] for turn in _CONVERSATION]
        if chance.random() < 0.3:
            turns[2][0] = as_json(_ERROR)
        for _ in range(chance.choice((1, 1, 2))):
            turn = chance.randrange(len(turns))
            at = chance.randrange(len(turns[turn]))
            said = turns[turn][at]
            match chance.randrange(6):
                case 0 | 1 | 2:
                    turns[turn][at] = as_json(
                        changed_value(json.loads(json.dumps(_CONVERSATION[turn][at])), chance)
                    )
                case 3:
                    turns[turn][at] = changed_tokens(said.decode("utf-8", "replace"), chance, _WORDS).encode(
                        "utf-8", "replace"
                    )
                case 4:
                    turns[turn][at] = changed_bytes(said, chance, turns[turn])
                case _:
                    turns[turn][at] = bombs(chance)
        end = chance.choice((b"\r\n", b"\r\n", b"\n"))
        said = _APART.join(end.join([*turn, b""]) for turn in turns)
        return bytes([chance.choice((0, 0, 1, 100)), chance.randrange(2)]) + said

    def feed(self, data: bytes) -> str:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(self.limit_s / 2)
        over = threading.Event()

        def talk() -> None:
            with theirs, suppress(OSError):
                for turn in data[2:].split(_APART):
                    for piece in pieces(turn, data[0] if len(turn) < 10_000 else 0):
                        theirs.sendall(piece)
                    if not theirs.recv(4096):
                        return
                if data[1]:
                    over.wait(self.limit_s)

        heard: list[str] = []
        lost = threading.Event()

        def on_event(name: str, told: Mapping[str, object]) -> None:
            heard.append(f"{name} {told!r:.100}")

        peer = threading.Thread(target=talk)
        monitor = QmpMonitor("qemu1", ours, on_event, lost.set)
        peer.start()
        try:
            monitor.wait_ready(Deadline.after(0.5))
            monitor.execute("query-status", Deadline.after(0.2))
            monitor.execute_all([Command("stop"), Command("cont")], Deadline.after(0.2))
        finally:
            over.set()
            monitor.close()
            peer.join()
        return "accepted"


class _Server(paramiko.ServerInterface):
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


class SshPeer(Kind):
    """A task loader behind a real SSH server that says anything, in any pieces, and then hangs up, falls silent, or never ends."""

    name = "ssh"
    share = 5
    refusals = (InfrastructureError, TaskSetError)
    limit_s = 60.0
    # Of address space, of which the C library sets 64 MiB aside for each thread: here some threads of paramiko's and the peer's.
    memory_mib = 1024
    budget_s: ClassVar[float] = 2.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        new_key(scratch / "client")
        self._key = new_key(scratch / "server")
        self._credentials = SshCredentials(
            user="root", client_key=scratch / "client", host_key=public_line(self._key)
        )
        self._speeches = [spoken(taskset) for taskset in SETS]

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(SETS))
        speech = self._speeches[which]
        if chance.random() < 0.9:
            greeting, _, rest = speech.partition(b"\n")
            speech = greeting + b"\n" + mutated_speech(chance, rest)
        else:
            speech = mutated_speech(chance, speech)
        return bytes([which, chance.choice((0, 1, 7, 255)), chance.choice((0, 0, 0, 1, 2))]) + speech[:20_000]

    def feed(self, data: bytes) -> str:
        taskset, speech, ending = SETS[data[0]], data[3:], data[2]
        over = threading.Event()

        def talk(channel: paramiko.Channel) -> None:
            for piece in pieces(speech, data[1]):
                channel.sendall(piece)
            while ending == 2 and not over.is_set():  # for ever the same
                channel.sendall(speech[-100:] or b"\n")
            if ending == 1:
                over.wait(self.limit_s)

        with ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=self._serve, args=(server, talk, over))
            thread.start()
            stack.callback(thread.join)
            stack.callback(over.set)
            session = stack.enter_context(
                closing(SshSession(Endpoint(server.getsockname(), self._credentials)))
            )
            session.open(Deadline.after(self.limit_s / 3))
            session.start(taskset, Deadline.after(self.budget_s))
            for _ in session.events(Deadline.after(self.budget_s)):
                pass
        return "accepted"

    def _serve(self, server: socket.socket, talk: Any, over: threading.Event) -> None:
        connection, _ = server.accept()
        transport = paramiko.Transport(connection)
        transport.add_server_key(self._key)
        with suppress(OSError, EOFError, paramiko.SSHException):
            interface = _Server()
            transport.start_server(server=interface)
            channel = transport.accept(self.limit_s / 3)
            if channel is not None and interface.asked.wait(self.limit_s / 3):
                talk(channel)
                channel.close()
                over.wait(self.budget_s)
        transport.close()
        connection.close()
