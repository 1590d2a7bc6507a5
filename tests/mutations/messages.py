"""What guests and their task loaders say, and what the guest's own parser is told."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import ClassVar

from runner import mailbox
from runner.data import rows, schema
from runner.errors import InfrastructureError, TaskSetError
from runner.events import EndEvent, Event, JobEvent, Outcome, Run, RunResult
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.task_loader import wire
from runner.task_loader.decoder import Decoder
from runner.units import NS_PER_MS
from tests.mailbox_peer import HELLO, MailboxPeer, measured, resealed
from tests.mutations.feeder import unbounded_memory
from tests.mutations.kind import Kind
from tests.mutations.mutators import NUMBERS, changed_bytes, changed_tokens, written_number
from tests.task_loader.client import make

_MIB = 1 << 20
_TWO = TaskSet(
    (
        Task(period_ns=10 * NS_PER_MS, wcet_ns=2 * NS_PER_MS, n_jobs=5),
        Task(period_ns=20 * NS_PER_MS, wcet_ns=15 * NS_PER_MS, n_jobs=3, priority_rank=1),
    ),
    overrun_policy=OverrunPolicy.KILL_AND_SKIP,
)
_GREEDY = Task(period_ns=10 * NS_PER_MS, wcet_ns=8 * NS_PER_MS, policy=Policy.DEADLINE, n_jobs=4)
_REFUSED = TaskSet((_GREEDY, _GREEDY, Task(name="once", period_ns=None, wcet_ns=NS_PER_MS)))
SETS = (_TWO, _REFUSED)
#: In the guest's header: state, sequence, reply_offset, reply_bytes, reply_crc32, n_tasks, table_crc32, header_crc32.
_HEADER_FIELDS = (
    (0x88, 4),
    (0x8C, 4),
    (0x90, 8),
    (0x98, 8),
    (0xA0, 8),
    (0xA8, 4),
    (0xAC, 4),
    (0xB0, 4),
    (0xB4, 4),
)
_WORDS = (
    "hello",
    "accepted",
    "job",
    "start",
    "end",
    "task_done",
    "refused",
    "error",
    "pong",
    "EXIT",
    "-",
    "t_ns=0",
    "task=0",
)


class Tables:
    """The tables of jobs and events, to see that what was accepted can be stored."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:")
        for table in (schema.JOBS, schema.EVENTS):
            self._database.execute(table.ddl)

    def store(self, taskset: TaskSet, events: list[Event]) -> None:
        """As the data set does it."""
        run = Run(taskset=taskset, machine="qemu1")
        jobs = tuple(event.job for event in events if isinstance(event, JobEvent))
        result = RunResult(outcome=Outcome.COMPLETED, jobs=jobs)
        assert result.table_sha256
        result.schedulable(taskset)
        with self._database:
            self._database.execute("DELETE FROM jobs")
            self._database.execute("DELETE FROM events")
            self._database.executemany(schema.JOBS.insert, rows.job_rows(run, jobs))
            others = [event for event in events if not isinstance(event, JobEvent)]
            self._database.executemany(schema.EVENTS.insert, rows.event_rows(run.run_id, others))


def _answered(taskset: TaskSet) -> bytes:
    region = bytearray(_MIB)
    mailbox.write_request(region, taskset, sequence=1, files={})
    MailboxPeer(region).answer()
    return bytes(region)


def _mutated_region(region: bytearray, chance: Random) -> None:
    """Header, task table, text or records, changed in place."""
    offset, n_bytes = struct.unpack_from("<QQ", region, 0x98)
    for _ in range(chance.choice((1, 1, 2, 5))):
        match chance.randrange(6):
            case 0:
                at, size = chance.choice(_HEADER_FIELDS)
                _put(region, at, size, chance)
            case 1:
                _put(region, 0xC00 + 8 * chance.randrange(8), 8, chance)
            case 2:
                text = changed_bytes(bytes(region[offset : offset + n_bytes]), chance)
                _replace(region, offset, text)
            case 3:
                old = bytes(region[offset : offset + n_bytes]).decode("ascii", "replace")
                _replace(region, offset, changed_tokens(old, chance, _WORDS).encode("utf-8", "replace"))
            case 4:
                entry = 0xC00 + 16 * chance.randrange(4)
                (first,) = struct.unpack_from("<Q", region, entry)
                at = first + 8 * chance.randrange(32)
                if at + 8 <= len(region):
                    _put(region, at, chance.choice((2, 4, 8)), chance)
            case _:
                at = chance.choice((0, 0x80, 0x400, 0xC00, 0x1000)) + chance.randrange(0x100)
                region[at] ^= 1 << chance.randrange(8)


def _put(region: bytearray, at: int, size: int, chance: Random) -> None:
    wanted = chance.choice(
        [*(n for n in NUMBERS if isinstance(n, int)), chance.getrandbits(64), chance.randrange(_MIB)]
    )
    region[at : at + size] = (wanted % (1 << 8 * size)).to_bytes(size, "little")


def _replace(region: bytearray, at: int, text: bytes) -> None:
    """Another text, with its length in the header."""
    text = text[: len(region) - at]
    region[at : at + len(text)] = text
    region[0xA0:0xA8] = len(text).to_bytes(8, "little")


def _seal(region: bytearray) -> None:
    try:
        resealed(region)
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError):
        return  # where it points there is nothing


class MailboxReply(Kind):
    """The shared memory after the bell; its checksums are made right again in half of the cases."""

    name = "mailbox"
    share = 140
    refusals = (InfrastructureError, TaskSetError)
    memory_mib = 64

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._regions = [_answered(taskset) for taskset in SETS]
        self._tables = Tables()

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(SETS))
        region = bytearray(self._regions[which])
        _mutated_region(region, chance)
        if chance.random() < 0.5:
            _seal(region)
        return bytes([which]) + bytes(region)

    def feed(self, data: bytes) -> str:
        taskset = SETS[data[0]]
        events = list(mailbox.read_reply(bytearray(data[1:]), taskset, sequence=1, host="qemu1"))
        assert isinstance(events[-1], EndEvent)
        self._tables.store(taskset, events)
        return "accepted"


class MailboxHello(Kind):
    """What the guest says before the first request."""

    name = "hello"
    share = 40
    refusals = (InfrastructureError,)
    memory_mib = 64

    def make(self, chance: Random) -> bytes:
        region = bytearray(_MIB)
        line = changed_tokens(HELLO, chance, _WORDS) if chance.random() < 0.5 else HELLO
        MailboxPeer(region).hello(line.encode("ascii", "replace").decode()[:60_000])
        if chance.random() < 0.7:
            _mutated_region(region, chance)
        if chance.random() < 0.7:
            _seal(region)
        return bytes(region)

    def feed(self, data: bytes) -> str:
        mailbox.read_hello(bytearray(data))
        return "accepted"


# Text


def spoken(taskset: TaskSet) -> bytes:
    """What a task loader says of a set over SSH, from its greeting on."""
    tasks = taskset.tasks
    lines = [HELLO, f"accepted id={taskset.taskset_id}"]
    n_jobs = 0
    for event in measured(taskset):
        match event:
            case JobEvent(job):
                n_jobs += 1
                lines.append("job " + " ".join("-" if word is None else str(word) for word in job))
            case EndEvent(t_ns, stopped):
                reason = "stopped" if stopped else "completed"
                lines.append(f"end id={taskset.taskset_id} t_ns={t_ns} reason={reason} jobs={n_jobs} lost=0")
            case _:
                lines.append(_line(event, taskset))
    assert tasks
    return "".join(f"{line}\n" for line in lines).encode()


def _line(event: Event, taskset: TaskSet) -> str:
    match event.__class__.__name__:
        case "StartEvent":
            return f"start id={taskset.taskset_id} t0_ns={event.t0_guest_ns}"  # type: ignore[union-attr]
        case "RefusedEvent":
            return f"refused task={event.task_idx} errno={event.errno} name={event.name}"  # type: ignore[union-attr]
        case _:
            return f"task_done task={event.task_idx} t_ns={event.t_ns}"  # type: ignore[union-attr]


_OTHER_LINES = (
    b"error code=range detail=n_jobs%20is%20not%20within%201..5\n",
    b"error code=set_up detail=no%20thread\n",
    b"pong token=clock1 t_ns=123\n",
    b"x" * 4095 + b"\n",
    b"x" * 4096 + b"\n",
    b"error code=a detail=" + b"%00%ff%0a" * 400 + b"\n",
)


def mutated_speech(chance: Random, speech: bytes) -> bytes:
    """Lines left out, doubled, exchanged, changed inside, cut off."""
    lines = speech.splitlines(keepends=True)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(lines) + 1)
        match chance.randrange(7):
            case 0:
                del lines[at : at + 1]
            case 1:
                lines[at:at] = lines[at : at + 1] * chance.choice((1, 2, 500))
            case 2:
                lines[at:at] = [chance.choice(_OTHER_LINES)]
            case 3 if lines:
                at = chance.randrange(len(lines))
                lines[at] = changed_bytes(lines[at], chance, lines)
            case 4 if len(lines) > 1:
                one, other = chance.sample(range(len(lines)), 2)
                lines[one], lines[other] = lines[other], lines[one]
            case 5 if lines:
                at = chance.randrange(len(lines))
                words = lines[at].decode("utf-8", "replace").split(" ")
                word = chance.randrange(len(words))
                key, equals, _ = words[word].partition("=")
                words[word] = f"{key}=" * bool(equals) + written_number(chance)
                lines[at] = " ".join(words).encode()
            case _ if lines:
                at = chance.randrange(len(lines))
                changed = changed_tokens(lines[at].decode("utf-8", "replace"), chance, _WORDS)
                lines[at] = changed.encode("utf-8", "replace")
    return b"".join(lines)[: 1 << 20]


def pieces(data: bytes, sizes: int) -> Iterator[bytes]:
    """In one piece, byte by byte, or in pieces of some size."""
    step = {0: len(data) or 1, 1: 1}.get(sizes, sizes)
    for at in range(0, len(data), step):
        yield data[at : at + step]


class SpokenLines(Kind):
    """A task loader's text, cut into any pieces: lines, messages, and what they may say in which order."""

    name = "lines"
    share = 140
    refusals = (InfrastructureError, TaskSetError)
    memory_mib = 64

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._speeches = [spoken(taskset) for taskset in SETS]
        self._tables = Tables()

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(SETS))
        sizes = chance.choice((0, 1, 2, 7, 255))
        return bytes([which, sizes]) + mutated_speech(chance, self._speeches[which])

    def feed(self, data: bytes) -> str:
        taskset = SETS[data[0]]
        lines = wire.lines_of(pieces(data[2:], data[1]))
        hello = wire.decode(next(lines, ""))
        if not isinstance(hello, wire.Hello):
            raise wire.violation("another greeting", "")
        message = wire.decode(next(lines, ""))
        if isinstance(message, wire.Refusal):
            raise wire.refused("qemu1", taskset, message)
        if message != wire.Accepted(taskset.taskset_id):
            raise wire.violation("no acceptance", "")
        decoder = Decoder(taskset)
        events = []
        for line in lines:
            events.append(decoder.decode(line))
            if decoder.ended:
                self._tables.store(taskset, events)
                return "accepted"
        raise wire.violation("no end", "")


# The other direction


class GuestRequests(Kind):
    """Requests, read by the guest's own parser, built for this computer under the address and undefined-behaviour sanitizers."""

    name = "requests"
    share = 30
    #: Lines per input.
    n_lines: ClassVar[int] = 30

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._parser = make(scratch / "request_check")
        mine = Task(
            name="mine",
            period_ns=NS_PER_MS,
            n_jobs=9,
            workload="executable",
            workload_args={"path": "/a", "argv": ("a b", "ü,%")},
        )
        sets = (*SETS, TaskSet((mine, mine)))
        self._requests = [wire.encode(taskset, uploads={"/a": "/run/workloads/0123"}) for taskset in sets]
        self._requests.append(wire.ping("clock1") + b"stop\nquit\n")

    def make(self, chance: Random) -> bytes:
        lines = [mutated_speech(chance, chance.choice(self._requests)) for _ in range(self.n_lines // 4)]
        return b"".join(lines)

    def feed(self, data: bytes) -> str:
        done = subprocess.run(
            [self._parser],
            input=data,
            capture_output=True,
            check=False,
            timeout=self.limit_s,
            preexec_fn=unbounded_memory,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        verdicts = done.stdout.decode("ascii").splitlines()
        # A line that is too long is told as soon as that is known, its end or not.
        n_lines = data.count(b"\n") + (len(data.rpartition(b"\n")[2]) > wire.MAX_LINE_BYTES)
        assert len(verdicts) == n_lines, (len(verdicts), n_lines)
        assert all(verdict.split()[0] in ("ok", "fault") for verdict in verdicts)
        return "accepted" if any(verdict.startswith("ok") for verdict in verdicts) else "all lines refused"
