"""A guest behind a mailbox, in Python: reads requests as the task loader would, runs them on an ideal processor, and answers.

Written from `docs/mailbox.md`, not from `runner.mailbox`: offsets and formats stand here a second time on purpose.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from runner.events import (
    EndEvent,
    Event,
    JobEvent,
    JobRecord,
    RefusedEvent,
    StartEvent,
    TaskDoneEvent,
)
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.simulator import Simulation
from runner.units import NS_PER_MS

PAGE = 4096
RECORD_BYTES = 56
REPLY_ROOM = 1 << 16
EXITS = [
    "EXIT",
    "EXIT_CRITICAL",
    "EXIT_PERIOD",
    "EXIT_DEADLINE",
    "EXIT_EXTERNAL",
    "EXIT_ERROR",
    "OUT_OF_QUOTA",
    "NOT_SCHEDULED",
    "SKIPPED",
]
HELLO = "hello version=2 spin_ps=1000 cpus=1 kernel=6.1.0-rt realtime=1"


class Objection(Exception):
    """Why the guest does not do what it was asked: an `error` line."""

    def __init__(self, code: str, detail: str, *, sequence: int | None = None) -> None:
        super().__init__(detail)
        self.line = f"error code={code} detail={quote(detail)}"
        self.sequence = sequence


@dataclass(frozen=True)
class Request:
    """What the guest found in the mailbox."""

    sequence: int
    taskset_id: str
    #: Runs like the one that was sent; other names and ids, no CPUs, and 1 ms for a workload whose C nobody knows.
    taskset: TaskSet
    lines: list[dict[str, str]]
    end: int


@dataclass
class MailboxPeer:
    """One guest. `hello` and `answer` are what it does between two bells.

    Attributes:
        region: The shared memory.
        sequence: Of the last request that was answered.
        stored: Guest path -> content of each file it was given.
    """

    region: bytearray | mmap.mmap
    sequence: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)

    def hello(self, line: str = HELLO) -> None:
        """Say that it is ready."""
        self.write([line], [], state=1, sequence=0, at=0x1000)

    def answer(self) -> None:
        """Do what the request says, and reply."""
        try:
            request = self.request()
        except Objection as no:
            sequence = self.sequence + 1 if no.sequence is None else no.sequence
            self.write([no.line], [], state=2, sequence=sequence, at=len(self.region) - REPLY_ROOM)
            return
        self.reply(request, measured(request.taskset))

    def reply(self, request: Request, events: Iterable[Event]) -> None:
        """Write a table: the text after the last file, each task's records after the room for it."""
        tables: list[list[JobRecord]] = [[] for _ in request.taskset.tasks]
        lines = [f"accepted id={request.taskset_id}"]
        for event in events:
            match event:
                case RefusedEvent(task, number, name):
                    lines.append(f"refused task={task} errno={number} name={name}")
                case StartEvent(t0):
                    lines.append(f"start id={request.taskset_id} t0_ns={t0}")
                case JobEvent(job):
                    tables[job.task_idx].append(job)
                case TaskDoneEvent(task, t_ns):
                    lines.append(f"task_done task={task} t_ns={t_ns}")
                case EndEvent(t_ns, stopped):
                    lines.append(
                        f"end id={request.taskset_id} t_ns={t_ns} reason={'stopped' if stopped else 'completed'}"
                        f" jobs={sum(map(len, tables))} lost=0"
                    )
        self.sequence = request.sequence
        packed = [b"".join(map(packed_record, jobs)) for jobs in tables]
        self.write(lines, packed, state=2, sequence=request.sequence, at=pages(request.end))

    def request(self) -> Request:
        """What is asked, checked as the guest checks it.

        Raises:
            Objection: with the reply that it would give.
        """
        region = self.region
        magic, version, n_files, sequence, region_bytes, n_bytes, text_crc, header_crc = struct.unpack_from(
            "<8sIIQQQII", region, 0
        )
        if (magic, version) != (b"RTFHOST\0", 1) or n_files > 64:
            raise Objection("mailbox", "no host header", sequence=sequence)
        table = bytes(region[0x400 : 0x400 + 32 * n_files])
        if zlib.crc32(bytes(region[:0x2C]) + table) != header_crc or region_bytes != len(region):
            raise Objection("mailbox", "damaged host header", sequence=sequence)
        if sequence != self.sequence + 1:
            raise Objection("mailbox", f"request {sequence} after request {self.sequence}", sequence=sequence)
        text, end = bytes(region[0x1000 : 0x1000 + n_bytes]), 0x1000 + n_bytes
        if zlib.crc32(text) != text_crc:
            raise Objection("mailbox", "damaged request", sequence=sequence)
        for name, offset, file_bytes, file_crc, zero in struct.iter_unpack("<QQQII", table):
            content = bytes(region[offset : offset + file_bytes])
            if offset % PAGE or offset < end or zlib.crc32(content) != file_crc or zero:
                raise Objection("mailbox", "damaged file", sequence=sequence)
            self.stored.setdefault(f"/run/workloads/{name:016x}", content)
            end = offset + file_bytes
        lines = text.decode("ascii").splitlines()
        if lines[-1] != "run" or max(map(len, lines)) > 4095:
            raise Objection("syntax", "no run")
        fields = [dict(word.split("=", 1) for word in line.split(" ")[1:]) for line in lines[:-1]]
        taskset = self._taskset(fields[0], fields[1:])
        self._check_room(taskset, end)
        return Request(sequence, fields[0]["id"], taskset, fields, end)

    def _taskset(self, head: dict[str, str], tasks: list[dict[str, str]]) -> TaskSet:
        if head["version"] != "2" or int(head["n_tasks"]) != len(tasks):
            raise Objection("bad_value", "version or n_tasks")
        return TaskSet(
            tuple(self._task(said) for said in tasks),
            overrun_policy=OverrunPolicy(head["overrun"]),
            admission_control=head["admission_control"] == "1",
            stop_ns=int(head["stop_ns"]),
        )

    def _task(self, said: dict[str, str]) -> Task:
        def number(key: str) -> int | None:
            return None if said[key] == "-" else int(said[key])

        if said["workload"] == "executable" and unquote(said["args"].split(",")[0]) not in self.stored:
            raise Objection("bad_value", "no such file")
        return Task(
            period_ns=number("period_ns"),
            wcet_ns=int(said["args"]) if said["workload"] == "spin" else NS_PER_MS,
            deadline_ns=number("deadline_ns"),
            offset_ns=int(said["offset_ns"]),
            n_jobs=int(said["n_jobs"]),
            policy=Policy(said["policy"]),
            priority_rank=98 - int(said["priority"]),
            kill_after_start_ns=number("kill_after_start_ns"),
            mem_limit_bytes=number("mem_limit_bytes"),
            dl_runtime_ns=number("dl_runtime_ns"),
        )

    def _check_room(self, taskset: TaskSet, end: int) -> None:
        stop_ns = taskset.stop_ns or 0
        for task in taskset.tasks:
            span_ns = stop_ns - task.offset_ns
            releases = 1 if task.period_ns is None else min(task.n_jobs, -(-span_ns // task.period_ns))
            end = pages(end) + max(1, releases) * RECORD_BYTES
        if pages(end) + REPLY_ROOM > len(self.region):
            raise Objection("capacity", f"{pages(end)} bytes of job table")

    def write(self, lines: list[str], tables: list[bytes], *, state: int, sequence: int, at: int) -> None:
        """Text, records and task table first, the header last."""
        text = "".join(f"{line}\n" for line in lines).encode("ascii")
        self.region[at : at + len(text)] = text
        offset, entries, table_crc = at + REPLY_ROOM, b"", 0
        for table in tables:
            self.region[offset : offset + len(table)] = table
            entries += struct.pack("<QQ", offset, len(table) // RECORD_BYTES)
            table_crc = zlib.crc32(table, table_crc)
            offset = pages(offset + len(table))
        self.region[0xC00 : 0xC00 + len(entries)] = entries
        header = struct.pack(
            "<8sIIQQQIII",
            *(b"RTFGUEST", 1, state, sequence, at, len(text), zlib.crc32(text), len(tables), table_crc),
        )
        self.region[0x80:0xB8] = header + struct.pack("<I", zlib.crc32(header + entries))


def measured(taskset: TaskSet) -> Iterator[Event]:
    """What the guest reports of a run.

    In the simulation, a job killed at the very end of the set skips the release of that instant; to the guest it does not exist.
    """
    for event in Simulation(taskset).events():
        if not isinstance(event, JobEvent) or event.job.release_ns != taskset.end_ns:
            yield event


def pages(n_bytes: int) -> int:
    """Up to the next whole page."""
    return (n_bytes + PAGE - 1) // PAGE * PAGE


def packed_record(job: JobRecord) -> bytes:
    """A job as the guest keeps it."""
    times = (job.release_ns, job.start_ns, job.finish_ns, job.exec_ns)
    counts = (job.exit_code, job.preemptions, job.migrations)
    cpus = (job.cpu_first, job.cpu_last)
    known = [-1 if value is None else value for value in (*times, job.job_idx, *counts, *cpus)]
    return struct.pack("<4q4i4h", *known, EXITS.index(job.exit_type), job.task_idx)


def resealed(region: bytearray | mmap.mmap) -> None:
    """Make the guest's checksums right again after someone wrote into its header, task table, text or records."""
    fields = list(struct.unpack_from("<8sIIQQQIIII", region, 0x80))
    _, _, _, _, offset, n_bytes, _, n_tasks, _, _ = fields
    fields[6] = zlib.crc32(bytes(region[offset : offset + n_bytes]))
    entries = bytes(region[0xC00 : 0xC00 + 16 * n_tasks])
    fields[8] = 0
    for at, n_records in struct.iter_unpack("<QQ", entries):
        fields[8] = zlib.crc32(bytes(region[at : at + n_records * RECORD_BYTES]), fields[8])
    header = struct.pack("<8sIIQQQIII", *fields[:-1])
    region[0x80:0xB8] = header + struct.pack("<I", zlib.crc32(header + entries))
