"""A client of the Genode protocol, written from its description alone: what the tests of `taskloader genode` share."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.deadline import Deadline

GO_SEND = 0x00000090
SEND_DESCS = 0x00000DE5
CLEAR = 0x00000DE6
SEND_BINARIES = 0x0DE5F11E
START = 0x00514DE5
STOP = 0x00514DE6
OPTIMIZE = 0x006F7074
AVAILABLE = 0x000AAAAA
REBOOT = 0x000159D3


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def task(idx: int, pkg: str = "hey", *args: object, **changes: object) -> str:
    """A `periodictask`: one job of `pkg` at the highest priority, but for `changes`."""
    fields: dict[str, object] = {
        "id": idx,
        "priority": 0,
        "deadline": 0,
        "period": 500,
        "criticaltime": 0,
        "offset": 0,
        "numberofjobs": 1,
        "quota": "10M",
        "caps": 235,
        "cores": 0,
        "coreoffset": 0,
        "pkg": pkg,
    }
    config = "".join(f"<arg{n}>{arg}</arg{n}>" for n, arg in enumerate(args, 1))
    elements = "".join(f"<{key}>{value}</{key}>" for key, value in (fields | changes).items())
    return f"<periodictask>{elements}<config>{config}</config></periodictask>"


def document(*tasks: str) -> bytes:
    return f"<taskset>{''.join(tasks)}</taskset>".encode()


def sized(tag: int, text: bytes) -> bytes:
    return word(tag) + word(len(text)) + text


@dataclass(frozen=True)
class Event:
    """One `event` of a profile."""

    task: int
    type: str
    ms: int


@dataclass
class GenodeClient:
    """One connection; leaving the context closes it."""

    address: tuple[str, int]
    _buffer: bytes = b""
    events: list[Event] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.socket = socket.create_connection(self.address, timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def describe(self, *tasks: str) -> None:
        self.send(sized(SEND_DESCS, document(*tasks)))

    def start(self, *tasks: str) -> None:
        self.send(word(CLEAR), sized(SEND_DESCS, document(*tasks)), word(START))

    def send_binaries(self, files: Mapping[str, bytes]) -> None:
        self.send(word(SEND_BINARIES), word(len(files)))
        for name, content in files.items():
            assert self._word() == GO_SEND
            self.send(name.encode().ljust(16, b"\0"), word(len(content)), content)

    def ask_available(self) -> None:
        """Returns when the loader has dealt with all that was sent; profiles that come before are kept."""
        self.send(word(AVAILABLE))
        while (size := self._word()) != AVAILABLE:
            self._profile(size)

    def await_done(self, tasks: Iterable[int]) -> list[Event]:
        """The events up to each task's JOBS_DONE."""
        left = set(tasks)
        left -= {event.task for event in self.events if event.type == "JOBS_DONE"}
        while left:
            left -= {event.task for event in self._profile(self._word()) if event.type == "JOBS_DONE"}
        events, self.events = self.events, []
        return events

    def await_event(self, task: int, type_: str) -> Event:
        while True:
            for event in self.events:
                if (event.task, event.type) == (task, type_):
                    return event
            self._profile(self._word())

    def is_dropped(self, timeout_s: float = 20) -> bool:
        """Whether the loader closes the connection."""
        deadline = Deadline.after(timeout_s)
        while not deadline.passed:
            if select.select([self.socket], [], [], deadline.remaining_s)[0]:
                try:
                    if not self.socket.recv(65536):
                        return True
                except ConnectionResetError:
                    return True
        return False

    def _word(self) -> int:
        (value,) = struct.unpack("<I", self._take(4))
        assert isinstance(value, int)
        return value

    def _profile(self, size: int) -> list[Event]:
        assert size < 65536
        text = self._take(size)
        assert text.endswith(b"</profile>\n\0")
        profile = ET.fromstring(text.rstrip(b"\0"))
        assert profile.tag == "profile"
        new = [
            Event(int(event.attrib["task-id"]), event.attrib["type"], int(event.attrib["time-stamp"]))
            for event in profile.iterfind("events/event")
        ]
        assert new
        self.events += new
        return new

    def _take(self, n: int) -> bytes:
        while len(self._buffer) < n:
            data = self.socket.recv(65536)
            assert data, "the loader closed the connection"
            self._buffer += data
        taken, self._buffer = self._buffer[:n], self._buffer[n:]
        return taken


def types_of(events: Iterable[Event], task: int) -> list[str]:
    return [event.type for event in events if event.task == task]


@contextmanager
def genode_loader(binary: Path) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    """A `taskloader genode` on a free loopback port; afterwards it has to be ended by a signal."""
    command = [str(binary), "genode", "0", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().split()
            assert line[:3] == [b"taskloader:", b"genode:", b"port"], line
            yield process, ("127.0.0.1", int(line[3]))
            if process.poll() is None:
                process.terminate()
                assert process.wait(10) == 0
        finally:
            if process.poll() is None:
                process.kill()
