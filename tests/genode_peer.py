"""A task loader that speaks Genode's protocol, on a simulated processor; written from the protocol, not from `runner.genode`."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from xml.etree import ElementTree

from runner.events import EndEvent, Event, ExitType, JobEvent, TaskDoneEvent
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.simulator import Simulation
from runner.units import NS_PER_MS

SEND_DESCS, CLEAR, SEND_BINARIES = 0xDE5, 0xDE6, 0x0DE5F11E
START, STOP, OPTIMIZE, AVAILABLE, REBOOT, GO_SEND = 0x514DE5, 0x514DE6, 0x6F7074, 0xAAAAA, 0x159D3, 0x90
GARBAGE = b"</profile>\n\0\0left over from before</profile>\0"


def word(number: int) -> bytes:
    return struct.pack("<I", number)


def profile(*events: tuple[int, str, int], garbage: bytes = b"\0") -> bytes:
    """A profile message of (task id, type, milliseconds)."""
    rows = "".join(f'<event task-id="{i}" type="{k}" time-stamp="{t}"/>' for i, k, t in events)
    content = f"<profile><events>{rows}</events></profile>".encode() + garbage
    return word(len(content)) + content


class Hung(Exception):
    """The client hung up."""


@dataclass
class Peer:
    """Serves one client after the other.

    Attributes:
        answer: Instead of simulating, is called with the connection after START.
        listen: Where; port 0 is a free one.
        heard: Tags, in order, and what came with them.
    """

    answer: Callable[[socket.socket], None] | None = None
    listen: tuple[str, int] = ("127.0.0.1", 0)
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    binaries: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(self.listen)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._stop = threading.Event()
        self._sender: threading.Thread | None = None
        self._line: socket.socket | None = None
        self._descriptions = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        for end in (self._line, self._listener):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._thread.join(10.0)

    @property
    def tags(self) -> list[int]:
        return [tag for tag, _ in self.heard]

    def _serve(self) -> None:
        while True:
            try:
                self._line, _ = self._listener.accept()
            except OSError:
                return
            with suppress(Hung, OSError):
                while True:
                    self._one(self._line)
            self._halt()
            self._line.close()

    def _take(self, line: socket.socket, n_bytes: int) -> bytes:
        content = b""
        while len(content) < n_bytes:
            piece = line.recv(n_bytes - len(content))
            if not piece:
                raise Hung
            content += piece
        return content

    def _number(self, line: socket.socket) -> int:
        return int(struct.unpack("<I", self._take(line, 4))[0])

    def _one(self, line: socket.socket) -> None:
        tag, content = self._number(line), b""
        if tag in (SEND_DESCS, OPTIMIZE):
            content = self._take(line, self._number(line))
        self.heard.append((tag, content))
        if tag == SEND_DESCS:
            self._descriptions = content
        elif tag == SEND_BINARIES:
            for _ in range(self._number(line)):
                line.sendall(word(GO_SEND))
                name = self._take(line, 16)
                assert name[-1] == 0
                self.binaries[name.rstrip(b"\0").decode()] = self._take(line, self._number(line))
        elif tag == START:
            self._stop.clear()
            target = self.answer or self._run
            self._sender = threading.Thread(target=self._guarded, args=(target, line), daemon=True)
            self._sender.start()
        elif tag in (STOP, CLEAR):
            self._halt()
        elif tag == AVAILABLE:
            line.sendall(word(AVAILABLE))
        elif tag != OPTIMIZE:
            assert tag == REBOOT, hex(tag)
            raise Hung

    def _guarded(self, target: Callable[[socket.socket], None], line: socket.socket) -> None:
        with suppress(OSError):
            target(line)

    def _halt(self) -> None:
        self._stop.set()
        if self._sender is not None:
            self._sender.join(10.0)

    def _run(self, line: socket.socket) -> None:
        batch: list[tuple[int, str, int]] = []
        simulation = Simulation(task_set(self._descriptions))
        stopping = False
        for event in simulation.events():
            if self._stop.is_set() and not stopping:
                stopping = True
                simulation.stop()
            batch += rows_of(event, stopping)
            if len(batch) >= 200 or isinstance(event, EndEvent):
                line.sendall(profile(*batch, garbage=GARBAGE))
                batch = []


def rows_of(event: Event, stopping: bool) -> Iterator[tuple[int, str, int]]:
    """What a profile says of a simulated event."""
    if isinstance(event, TaskDoneEvent):
        if not stopping:
            yield event.task_idx, "JOBS_DONE", event.t_ns // NS_PER_MS
    elif isinstance(event, JobEvent):
        job = event.job
        if job.exit_type is ExitType.NOT_SCHEDULED:
            yield job.task_idx, "NOT_SCHEDULED", 0
        elif job.exit_type is not ExitType.SKIPPED and job.finish_ns is not None and job.start_ns is not None:
            yield job.task_idx, "START", job.start_ns // NS_PER_MS
            yield job.task_idx, job.exit_type.value, job.finish_ns // NS_PER_MS


def task_set(document: bytes) -> TaskSet:
    """The task set that the descriptions describe, its ids being its indices."""
    tasks: dict[int, Task] = {}
    offset_ms = 0
    for node in ElementTree.fromstring(document.rstrip(b"\0")):
        text = {child.tag: child.text or "" for child in node}
        offset_ms += int(text["offset"])
        edf = int(text["priority"]) == 128
        cost = node.findtext("config/arg1")
        tasks[int(text["id"])] = Task(
            period_ns=int(text["period"]) * NS_PER_MS or None,
            deadline_ns=int(text["deadline"]) * NS_PER_MS or None,
            wcet_ns=int(cost) if cost else NS_PER_MS,
            dl_runtime_ns=int(cost) if edf and cost else None,
            priority_rank=0 if edf else int(text["priority"]),
            policy=Policy.DEADLINE if edf else Policy.FIFO,
            offset_ns=offset_ms * NS_PER_MS,
            n_jobs=int(text["numberofjobs"]),
            kill_after_start_ns=int(text["criticaltime"]) * NS_PER_MS or None,
        )
    return TaskSet(tuple(tasks[idx] for idx in range(len(tasks))), overrun_policy=OverrunPolicy.KILL_AND_SKIP)


def main() -> None:
    """A program for a network namespace: serve at an address and port until the input ends."""
    peer = Peer(listen=(sys.argv[1], int(sys.argv[2])))
    print("listening", flush=True)
    sys.stdin.read()
    peer.close()


if __name__ == "__main__":
    main()
