"""The host's side of the mailbox that reads: the guest's hello, and its answer to a task set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, NoReturn
from zlib import crc32

from runner.errors import ProtocolError
from runner.events import Event, JobRecord, RefusedEvent, TaskDoneEvent
from runner.mailbox.layout import (
    ANSWERED,
    CRC_BYTES,
    EXIT_TYPES,
    FILE,
    FILE_TABLE_AT,
    GUEST,
    GUEST_AT,
    GUEST_MAGIC,
    HOST,
    HOST_AT,
    HOST_MAGIC,
    MAX_FILES,
    MAX_REPLY_BYTES,
    PAGE_BYTES,
    READY,
    RECORD,
    REQUEST_AT,
    SEGMENT,
    TASK_TABLE_AT,
    UNKNOWN,
    VERSION,
    Region,
    check_size,
    max_records,
)
from runner.model import MAX_TASKS, TaskSet
from runner.task_loader import wire
from runner.task_loader.decoder import Decoder


class NoReply(ProtocolError):
    """The guest has written nothing since it was asked: a bell that is heard then was the kernel's panic, or init giving up."""


class _Area(NamedTuple):
    """Bytes `start` up to `end` of the region, and whose they are."""

    start: int
    end: int
    owner: str


class _Answer(NamedTuple):
    """What a sound guest header says, with the text that it points to."""

    lines: list[str]
    text_area: _Area
    segments: list[tuple[int, int]]
    table_crc32: int


def read_hello(region: Region) -> wire.Hello:
    """What the task loader says of itself before the first request.

    Raises:
        NoReply: when it has said nothing yet.
        ProtocolError: when the mailbox holds anything else.
    """
    with memoryview(region) as view:
        check_size(view)
        answer = _answer(view, READY, sequence=0)
    messages = [wire.decode(line) for line in answer.lines]
    match messages:
        case [wire.Hello() as hello]:
            return hello
    raise ProtocolError(f"the mailbox holds {messages!r:.200} instead of one hello")


def read_reply(
    region: Region, taskset: TaskSet, *, sequence: int, host: str = "the guest"
) -> Iterator[Event]:
    """The events of a task set that the guest has run: refusals, start, then task by task its jobs and its end, then the set's end.

    The region is read, and its checksums are checked, before this returns; what the records say is checked on the way.

    Args:
        sequence: Of the request that this must be the answer to.
        host: Name of the machine, for errors.

    Raises:
        NoReply: when the guest has not answered since the request was written.
        ProtocolError: when anything in the mailbox is damaged, of another version, of another request, or contradicts the task
            set or itself; also from the iterator.
        TaskSetError: when the task loader refused the task set.
        InfrastructureError: when the guest lacks the means for it.
    """
    with memoryview(region) as view:
        check_size(view)
        answer = _answer(view, ANSWERED, sequence)
        messages = [(wire.decode(line), line) for line in answer.lines]
        match messages:
            case [(wire.Refusal() as refusal, _)]:
                raise wire.refused(host, taskset, refusal)
            case [(wire.Accepted(taskset_id), _), *rest] if taskset_id == taskset.taskset_id:
                pass
            case _:
                _damaged("first message", str(answer.lines[:1]), f"the acceptance of {taskset.taskset_id}")
        segments = _segments(view, taskset, answer, sequence)
    return _events(taskset, rest, segments)


def _events(
    taskset: TaskSet, messages: list[tuple[wire.Message, str]], segments: list[bytes]
) -> Iterator[Event]:
    n_tasks = len(taskset.tasks)
    opening, done, end = messages[: -n_tasks - 1], messages[-n_tasks - 1 : -1], messages[-1:]
    decoder = Decoder(taskset)
    for message, line in opening:
        if not isinstance(message, RefusedEvent | wire.Started):
            raise wire.violation("a message out of order", line)
        yield decoder.accept(message, line)
    done_at = {m.task_idx: (m, line) for m, line in done if isinstance(m, TaskDoneEvent)}
    if done_at.keys() != set(range(n_tasks)):
        _damaged("list of done tasks", str(sorted(done_at)), f"each of 0…{n_tasks - 1} once")
    for idx, segment in enumerate(segments):
        yield from decoder.accept_jobs(idx, _records(idx, segment))
        yield decoder.accept(*done_at[idx])
    for message, line in end:
        yield decoder.accept(message, line)


def _records(task_idx: int, segment: bytes) -> Iterator[JobRecord]:
    """A task's records. There may be millions: whatever can be asked of a row as a whole is asked at once."""
    for row in RECORD.iter_unpack(segment):
        job_idx, exit_type, task = row[4], row[10], row[11]
        if task != task_idx or job_idx < 0 or not 0 <= exit_type < len(EXIT_TYPES):
            _damaged(f"record of task {task_idx}", str(row), f"task {task_idx}, a job, an exit type")
        if min(row) < 0:
            if min(row) < UNKNOWN:
                _damaged(f"record of task {task_idx}", str(row), "nothing negative but -1")
            row = tuple(None if value == UNKNOWN else value for value in row)  # noqa: PLW2901 - the same row
        release_ns, start_ns, finish_ns, exec_ns = row[:4]
        yield JobRecord(
            task_idx, job_idx, release_ns, start_ns, finish_ns, exec_ns, EXIT_TYPES[exit_type], *row[5:10]
        )


def _answer(view: memoryview, state: int, sequence: int) -> _Answer:
    """The guest's header and text, sound and in the place of the answer that is wanted."""
    raw = bytes(view[GUEST_AT : GUEST_AT + GUEST.size])
    table = bytes(view[TASK_TABLE_AT : TASK_TABLE_AT + MAX_TASKS * SEGMENT.size])
    (
        magic,
        version,
        said_state,
        said_sequence,
        offset,
        n_bytes,
        text_crc32,
        n_tasks,
        table_crc32,
        header_crc32,
    ) = GUEST.unpack(raw)
    if not any(raw):
        raise NoReply(f"the mailbox is empty where the answer to request {sequence} should be")
    _check("guest header's magic", magic, GUEST_MAGIC)
    _check("guest header's version", version, VERSION)
    _check_range("guest header's n_tasks", n_tasks, 0, MAX_TASKS)
    used = table[: n_tasks * SEGMENT.size]
    _check("guest header's CRC", header_crc32, crc32(used, crc32(raw[:-CRC_BYTES])))
    _check_range("reply_bytes", n_bytes, 0, MAX_REPLY_BYTES)
    _check_range("reply_offset", offset, REQUEST_AT, len(view) - n_bytes)
    text = bytes(view[offset : offset + n_bytes])
    _check("reply's CRC", text_crc32, crc32(text))
    if (said_state, said_sequence) != (state, sequence):
        raise (NoReply if said_state == READY else ProtocolError)(
            f"the mailbox holds state {said_state} of request {said_sequence}, not state {state} of request {sequence}",
            evidence=text[:200].decode("ascii", errors="replace"),
        )
    lines = list(wire.lines_of(iter([text])))
    area = _Area(offset, offset + n_bytes, "reply")
    return _Answer(lines, area, list(SEGMENT.iter_unpack(used)), table_crc32)


def _segments(view: memoryview, taskset: TaskSet, answer: _Answer, sequence: int) -> list[bytes]:
    """A copy of each task's records, sound as a whole."""
    _check("guest header's n_tasks", len(answer.segments), len(taskset.tasks))
    areas = [*_host_areas(view, sequence), answer.text_area]
    for idx, (task, (offset, n_records)) in enumerate(zip(taskset.tasks, answer.segments, strict=True)):
        _check_range(f"number of records of task {idx}", n_records, 0, max_records(task, taskset.end_ns))
        n_bytes = n_records * RECORD.size
        _check_range(f"offset of task {idx}", offset, REQUEST_AT, len(view) - n_bytes)
        _check(f"offset of task {idx} in its page", offset % PAGE_BYTES, 0)
        areas.append(_Area(offset, offset + n_bytes, f"task {idx}"))
    _check_apart(areas)
    segments, table_crc32 = [], 0
    for offset, n_records in answer.segments:
        segments.append(bytes(view[offset : offset + n_records * RECORD.size]))
        table_crc32 = crc32(segments[-1], table_crc32)
    _check("job table's CRC", answer.table_crc32, table_crc32)
    return segments


def _host_areas(view: memoryview, sequence: int) -> Iterator[_Area]:
    """What the host itself has filled, as its header says, which nobody may have touched since."""
    raw = bytes(view[HOST_AT : HOST_AT + HOST.size])
    table = bytes(view[FILE_TABLE_AT : FILE_TABLE_AT + MAX_FILES * FILE.size])
    magic, version, n_files, asked_sequence, region_bytes, request_bytes, _, header_crc32 = HOST.unpack(raw)
    _check("host header's magic", magic, HOST_MAGIC)
    _check("host header's version", version, VERSION)
    _check_range("host header's n_files", n_files, 0, MAX_FILES)
    used = table[: n_files * FILE.size]
    _check("host header's CRC", header_crc32, crc32(used, crc32(raw[:-CRC_BYTES])))
    _check("host header's sequence", asked_sequence, sequence)
    _check("host header's region_bytes", region_bytes, len(view))
    yield _Area(0, REQUEST_AT + request_bytes, "request")
    for _, offset, n_bytes, _, _ in FILE.iter_unpack(used):
        yield _Area(offset, offset + n_bytes, "file")


def _check_apart(areas: list[_Area]) -> None:
    """No byte has two owners."""
    filled = sorted(area for area in areas if area.start < area.end)
    for one, other in pairwise(filled):
        if other.start < one.end:
            _damaged(f"start of {other.owner}", other.start, f"at least {one.end}, where {one.owner} ends")


def _check(field: str, got: int | bytes, expected: int | bytes) -> None:
    if got != expected:
        _damaged(field, got, expected)


def _check_range(field: str, got: int, least: int, most: int) -> None:
    if not least <= got <= most:
        _damaged(field, got, f"{least}…{most}")


def _damaged(field: str, got: int | bytes | str, expected: int | bytes | str) -> NoReturn:
    raise ProtocolError(f"the mailbox's {field} is {got!r:.200}, expected {expected!r:.200}")
