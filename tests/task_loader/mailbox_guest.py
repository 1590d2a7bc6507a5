"""A bare QEMU with a mailbox, and the host's half of docs/mailbox.md in the plainest words: what the tests of it share."""

from __future__ import annotations

import mmap
import queue
import socket
import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.deadline import Deadline
from runner.qemu.architectures import architecture
from runner.qemu.image import GuestImage
from runner.qemu.qmp import QmpMonitor
from tests.task_loader.client import taskset_line

PAGE = 4096
HOST_HEADER = struct.Struct("<8s2I3QI")
GUEST_HEADER = struct.Struct("<8s2I3Q3I")
FILE_ENTRY = struct.Struct("<3Q2I")
TASK_ENTRY = struct.Struct("<2Q")
CRC = struct.Struct("<I")
RECORD = struct.Struct("<4q4i4h")
EXITS = (
    "EXIT",
    "EXIT_CRITICAL",
    "EXIT_PERIOD",
    "EXIT_DEADLINE",
    "EXIT_EXTERNAL",
    "EXIT_ERROR",
    "OUT_OF_QUOTA",
    "NOT_SCHEDULED",
    "SKIPPED",
)

#: Those of a record that may be unknown, and the job's number between them.
FIELDS = (
    *("release", "start", "finish", "exec"),
    *("job", "code", "preemptions", "migrations", "cpu_first", "cpu_last"),
)

# As runner/qemu/command.py has them, but for the tick, which a paused guest need not keep.
KERNEL_ARGS = "nokaslr norandmaps mitigations=off cma=0 quiet panic=-1 cryptomgr.notests psi=0 randomize_kstack_offset=off"

#: A computer that does other things as well boots an amd64 guest in this.
BOOT_S = 120.0


@dataclass(frozen=True)
class Record:
    """One job, `None` where the guest wrote -1."""

    release: int | None
    start: int | None
    finish: int | None
    exec: int | None
    job: int
    code: int | None
    preemptions: int | None
    migrations: int | None
    cpu_first: int | None
    cpu_last: int | None
    exit: str
    task: int

    @classmethod
    def parse(cls, data: bytes) -> Record:
        *values, exit_type, task = RECORD.unpack(data)
        known: list[Any] = [None if value == -1 else value for value in values]
        return cls(**dict(zip(FIELDS, known, strict=True)), exit=EXITS[exit_type], task=task)

    def ns(self, name: str) -> int:
        """A time that has to be known."""
        value = getattr(self, name)
        assert isinstance(value, int), (name, self)
        return value


@dataclass(frozen=True)
class Answer:
    """What the guest put into the mailbox, checked for being whole."""

    state: int
    sequence: int
    lines: list[str]
    tables: list[bytes] = field(repr=False)

    def records(self, task: int) -> list[Record]:
        table = self.tables[task]
        return [Record.parse(table[at : at + RECORD.size]) for at in range(0, len(table), RECORD.size)]

    @property
    def error(self) -> str:
        """The code, when the reply is one `error` line."""
        (line,) = self.lines
        assert line.startswith("error code="), line
        return line.split(" ")[1].removeprefix("code=")

    @property
    def end(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.lines[-1].split(" ")[1:])


class MailboxGuest:
    """Owns one QEMU and its mailbox; leaving the context ends it."""

    def __init__(
        self,
        folder: Path,
        *,
        arch: str = "arm64",
        mailbox_mib: int = 16,
        shift: int = 3,
        memory_mib: int = 128,
    ) -> None:
        row, image = architecture(arch), GuestImage.current(arch)
        self._bytes = mailbox_mib << 20
        self._sequence = 0
        self.console = folder / "console.log"
        shared = folder / "mailbox"
        with shared.open("w+b") as file:
            file.truncate(self._bytes)
            self.memory = mmap.mmap(file.fileno(), self._bytes)
        ours, theirs = socket.socketpair()
        command = [
            *(
                row.qemu_binary,
                "-S",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
                "-seed",
                "1",
            ),
            *("-machine", row.machine, "-cpu", row.cpu, "-m", f"{memory_mib}M", "-accel", "tcg", "-smp", "1"),
            *("-icount", f"shift={shift},align=off,sleep=off", "-rtc", "base=2024-01-01T00:00:00,clock=vm"),
            *("-device", "pvpanic-pci", "-device", "i6300esb", "-action", "panic=pause,watchdog=pause"),
            *("-object", f"memory-backend-file,id=mailbox,size={self._bytes},share=on,mem-path={shared}"),
            *("-device", "ivshmem-plain,memdev=mailbox,master=on"),
            *("-netdev", "user,id=net,restrict=on"),
            *("-device", "virtio-net-pci,netdev=net,guest_announce=off,romfile="),
            *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
            *("-serial", f"file:{self.console}"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", f"console={row.console} {KERNEL_ARGS} {' '.join(row.kernel_args)}"),
        ]
        self._events: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        theirs.close()
        self._monitor = QmpMonitor(
            "qemu1", ours, lambda name, _data: self._events.put(name), lambda: self._events.put("lost")
        )

    def __enter__(self) -> Self:
        self._monitor.wait_ready(Deadline.after(BOOT_S))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._monitor.close()
        self.memory.close()

    def go_on(self, timeout_s: float = BOOT_S) -> str:
        """Lets the guest run until it comes to a stop; the event that says why."""
        deadline = Deadline.after(timeout_s)
        self._monitor.execute("cont", deadline)
        while True:
            event = self._events.get(timeout=deadline.remaining_s)
            if event in ("GUEST_PANICKED", "WATCHDOG", "SHUTDOWN", "lost"):
                break
        while (
            event in ("GUEST_PANICKED", "WATCHDOG")
            and self._events.get(timeout=deadline.remaining_s) != "STOP"
        ):
            pass
        return event

    def boot(self) -> Answer:
        assert self.go_on() == "GUEST_PANICKED", self.console.read_text()
        return self.answer()

    def put(
        self, request: str | bytes, files: Sequence[tuple[int, bytes]] = (), *, sequence: int | None = None
    ) -> None:
        """Writes a request as the format wants it."""
        self._sequence = self._sequence + 1 if sequence is None else sequence
        text = request.encode() if isinstance(request, str) else request
        table, at = b"", _pages_up(PAGE + len(text))
        for name, content in files:
            table += FILE_ENTRY.pack(name, at, len(content), zlib.crc32(content), 0)
            self.memory[at : at + len(content)] = content
            at = _pages_up(at + len(content))
        header = HOST_HEADER.pack(
            b"RTFHOST\0", 1, len(files), self._sequence, self._bytes, len(text), zlib.crc32(text)
        )
        self.put_header(header, table)
        self.memory[PAGE : PAGE + len(text)] = text

    def put_header(self, header: bytes, table: bytes = b"") -> None:
        """Writes header and file table with their checksum."""
        self.memory[: len(header) + CRC.size] = header + CRC.pack(zlib.crc32(header + table))
        self.memory[0x400 : 0x400 + len(table)] = table

    def ask(
        self, request: str | bytes, files: Sequence[tuple[int, bytes]] = (), timeout_s: float = 60.0
    ) -> Answer:
        self.put(request, files)
        assert self.go_on(timeout_s) == "GUEST_PANICKED"
        answer = self.answer()
        assert answer.sequence == self._sequence
        return answer

    def run(self, tasks: list[str], **taskset: object) -> Answer:
        """Measures a set; fails when it is not accepted."""
        answer = self.ask(request(tasks, **taskset))
        assert answer.lines[0].startswith("accepted "), answer.lines
        assert int(answer.end["jobs"]) == sum(map(len, answer.tables)) // RECORD.size
        assert answer.end["lost"] == "0"
        return answer

    @property
    def answered(self) -> tuple[int, int]:
        """State and sequence, which tell whether there is a new answer; the text of an old one may be gone."""
        values = GUEST_HEADER.unpack_from(self.memory, 0x80)
        return values[2], values[3]

    def answer(self) -> Answer:
        header = self.memory[0x80 : 0x80 + GUEST_HEADER.size]
        magic, version, state, sequence, at, size, reply_crc, n_tasks, crc = GUEST_HEADER.unpack(header)
        table = self.memory[0xC00 : 0xC00 + n_tasks * TASK_ENTRY.size]
        (header_crc,) = CRC.unpack_from(self.memory, 0x80 + GUEST_HEADER.size)
        assert (magic, version) == (b"RTFGUEST", 1)
        assert header_crc == zlib.crc32(header + table)
        reply = self.memory[at : at + size]
        assert reply_crc == zlib.crc32(reply)
        tables = [
            self.memory[start : start + count * RECORD.size] for start, count in TASK_ENTRY.iter_unpack(table)
        ]
        assert crc == zlib.crc32(b"".join(tables))
        return Answer(state, sequence, reply.decode("ascii").splitlines(), tables)


def request(tasks: list[str], **taskset: object) -> str:
    return "\n".join([taskset_line(len(tasks), **taskset), *tasks, "run"]) + "\n"


def _pages_up(size: int) -> int:
    return -(-size // PAGE) * PAGE
