"""The mailbox: requests that a guest can read, tables that come out whole, and that nothing wrong comes out of any bytes."""

from __future__ import annotations

import hashlib
import mmap
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner import mailbox
from runner.errors import InfrastructureError, ProtocolError, RunnerError, TaskSetError, UsageError
from runner.events import (
    EndEvent,
    Event,
    ExitType,
    JobEvent,
    JobRecord,
    RefusedEvent,
    StartEvent,
    TaskDoneEvent,
)
from runner.model import MAX_TASKS, OverrunPolicy, Policy, Task, TaskSet
from runner.task_loader.wire import Hello
from runner.units import NS_PER_MS
from tests.mailbox_peer import MailboxPeer, Objection, measured, packed_record, pages, resealed
from tests.strategies import small_tasksets, tasksets

MS = NS_PER_MS
MIB = 1 << 20
#: Where in the region things are that a guest writes.
STATE, SEQUENCE, REPLY_OFFSET, REPLY_BYTES, N_TASKS = 0x8C, 0x90, 0x98, 0xA0, 0xAC


def asked(taskset: TaskSet, *, sequence: int = 1, region_bytes: int = MIB) -> bytearray:
    """A region that holds the request for a set whose executables are what their paths say."""
    region = bytearray(region_bytes)
    mailbox.write_request(region, taskset, sequence=sequence, files=files_of(taskset))
    return region


def files_of(taskset: TaskSet) -> dict[str, bytes]:
    return {
        str(task.workload_args["path"]): str(task.workload_args["path"]).encode() * 1000
        for task in taskset.tasks
        if task.workload == "executable"
    }


def answered(taskset: TaskSet) -> bytearray:
    """A region that holds the answer to a set, too."""
    region = asked(taskset)
    MailboxPeer(region).answer()
    return region


def replied(region: bytearray, taskset: TaskSet, *, sequence: int = 1) -> list[Event]:
    return list(mailbox.read_reply(region, taskset, sequence=sequence, host="qemu1"))


def by_task(events: list[Event]) -> list[Event]:
    """In the order of a reply: what a task tells comes together, task by task; otherwise as it happened."""

    def place(event: Event) -> int:
        match event:
            case RefusedEvent():
                return -2
            case StartEvent():
                return -1
            case JobEvent(job):
                return job.task_idx
            case TaskDoneEvent(task_idx=idx):
                return idx
            case EndEvent():
                return MAX_TASKS

    return sorted(events, key=place)


TWO = TaskSet(
    (
        Task(period_ns=10 * MS, wcet_ns=2 * MS, n_jobs=5),
        Task(period_ns=20 * MS, wcet_ns=15 * MS, n_jobs=3, priority_rank=1),
    ),
    overrun_policy=OverrunPolicy.KILL_AND_SKIP,
)


# Whole


@given(small_tasksets())
def test_what_the_guest_measured_comes_out(taskset: TaskSet) -> None:
    assert replied(answered(taskset), taskset) == by_task(list(measured(taskset)))


@given(tasksets())
def test_every_request_reaches_the_guest_whole(taskset: TaskSet) -> None:
    region = asked(taskset)
    peer = MailboxPeer(region)
    request = peer.request()
    assert (request.sequence, request.taskset_id) == (1, taskset.taskset_id)
    assert request.taskset.stop_ns == taskset.end_ns
    assert [task.period_ns for task in request.taskset.tasks] == [task.period_ns for task in taskset.tasks]
    named = {hashlib.sha256(content).hexdigest()[:16]: content for content in files_of(taskset).values()}
    assert peer.stored == {f"/run/workloads/{name}": content for name, content in named.items()}


def test_a_refused_task_is_told() -> None:
    greedy = Task(period_ns=10 * MS, wcet_ns=8 * MS, policy=Policy.DEADLINE)
    taskset = TaskSet((greedy, greedy), stop_ns=MS)
    events = replied(answered(taskset), taskset)
    assert events[0] == RefusedEvent(1, 16, "EBUSY")
    assert JobEvent(JobRecord(1, 0, None, None, None, None, ExitType.NOT_SCHEDULED)) in events


def test_many_sets_go_through_one_mailbox() -> None:
    region = bytearray(MIB)
    peer = MailboxPeer(region)
    with pytest.raises(mailbox.NoReply):
        mailbox.read_hello(region)
    peer.hello()
    assert mailbox.read_hello(region) == Hello(1000, 1, "6.1.0-rt", realtime=True)
    for sequence in range(1, 5):
        taskset = TaskSet((Task(period_ns=sequence * MS, wcet_ns=MS // 2, n_jobs=7 * sequence),))
        mailbox.write_request(region, taskset, sequence=sequence, files={})
        with pytest.raises(mailbox.NoReply):
            replied(region, taskset, sequence=sequence)
        peer.answer()
        assert len(replied(region, taskset, sequence=sequence)) == 7 * sequence + 3


def test_a_mapped_file_will_do_and_is_let_go() -> None:
    with mmap.mmap(-1, MIB) as region:
        mailbox.write_request(region, TWO, sequence=1, files={})
        MailboxPeer(region).answer()
        events = mailbox.read_reply(region, TWO, sequence=1)
        assert next(events) == StartEvent(0)
        region[:] = bytes(MIB)  # all that follows was copied before
        assert len(list(events)) == len(list(measured(TWO))) - 1


def test_one_content_under_two_paths_is_sent_once() -> None:
    tasks = [
        Task(period_ns=None, workload="executable", workload_args={"path": path}) for path in ("/a", "/b")
    ]
    region = bytearray(MIB)
    mailbox.write_request(region, TaskSet(tuple(tasks)), sequence=1, files={"/a": b"same", "/b": b"same"})
    peer = MailboxPeer(region)
    request = peer.request()
    assert list(peer.stored.values()) == [b"same"]
    assert {said["args"] for said in request.lines[1:]} == set(peer.stored)


def test_a_hundred_thousand_jobs() -> None:
    taskset = TaskSet((Task(period_ns=MS, wcet_ns=MS // 2, n_jobs=100_000),))
    region = asked(taskset, region_bytes=8 * MIB)
    peer = MailboxPeer(region)
    jobs = [
        JobRecord(0, k, k * MS, k * MS, k * MS + 7, 7, ExitType.EXIT, 0, 0, 0, 0, 0) for k in range(100_000)
    ]
    events: list[Event] = [
        StartEvent(5),
        *map(JobEvent, jobs),
        TaskDoneEvent(0, 9),
        EndEvent(9, stopped=False),
    ]
    peer.reply(peer.request(), events)
    assert replied(region, taskset) == events


# Room


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_a_table_that_cannot_fit_is_refused_before_it_is_asked_for(n_tasks: int) -> None:
    task = Task(period_ns=MS, wcet_ns=MS // 2, n_jobs=10_000_000)
    taskset = TaskSet((task,) * n_tasks, name="endless")
    region = bytearray(MIB)
    before = bytes(region)
    with pytest.raises(
        TaskSetError, match=rf"'endless'.*at most {n_tasks}0000000 jobs; there are 1 MiB"
    ) as caught:
        mailbox.write_request(region, taskset, sequence=1, files={})
    assert "machines.qemu.mailbox_mib" in caught.value.next_step
    assert region == before
    asked(TaskSet((task,) * n_tasks, stop_ns=1000 * MS))  # 1000 releases of each fit


def test_files_that_cannot_fit_are_refused() -> None:
    taskset = TaskSet((Task(period_ns=None, workload="executable", workload_args={"path": "/big"}),))
    with pytest.raises(TaskSetError, match=r"2 MiB for\s+the request"):
        mailbox.write_request(bytearray(MIB), taskset, sequence=1, files={"/big": bytes(MIB)})


@given(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(0, 300_000))
def test_host_and_guest_agree_on_what_fits(first: int, second: int, file_bytes: int) -> None:
    """To the page: what the host lets through, the guest finds room for; a full table overlaps nothing."""
    taskset = TaskSet(
        (
            Task(period_ns=MS, wcet_ns=1, n_jobs=first),
            Task(period_ns=MS, wcet_ns=1, n_jobs=second),
            Task(period_ns=None, workload="executable", workload_args={"path": "/x"}),
        )
    )
    room = pages(first * 56) + pages(second * 56) + pages(56) + pages(file_bytes) + (1 << 16)
    region = bytearray(MIB)
    try:
        mailbox.write_request(region, taskset, sequence=1, files={"/x": bytes(file_bytes)})
    except TaskSetError:
        assert room + 2 * 4096 > MIB
        return
    assert room + 2 * 4096 <= MIB
    MailboxPeer(region).request()


@pytest.mark.parametrize("n_bytes", [0, 4096, MIB - 1, MIB + 4096, 3 * MIB])
def test_a_region_of_another_size_is_the_callers_fault(n_bytes: int) -> None:
    region = bytearray(n_bytes)
    for use in (
        lambda: mailbox.write_request(region, TWO, sequence=1, files={}),
        lambda: mailbox.read_hello(region),
        lambda: mailbox.read_reply(region, TWO, sequence=1),
    ):
        with pytest.raises(UsageError, match="a mailbox of"):
            use()


def test_no_release_at_the_very_end_is_recorded() -> None:
    taskset = TaskSet((Task(period_ns=10 * MS, wcet_ns=11 * MS, n_jobs=2),), stop_ns=10 * MS)
    region = asked(taskset)
    peer = MailboxPeer(region)
    second = JobRecord(0, 1, 10 * MS, None, None, None, ExitType.SKIPPED)
    jobs = [event for event in measured(taskset) if isinstance(event, JobEvent)]
    peer.reply(peer.request(), [*jobs, JobEvent(second)])
    with pytest.raises(ProtocolError, match="number of records of task 0 is 2, expected '0…1'"):
        replied(region, taskset)


# Refused by the guest


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("range", TaskSetError),
        ("capacity", TaskSetError),
        ("set_up", InfrastructureError),
        ("mailbox", ProtocolError),
        ("syntax", ProtocolError),
    ],
)
def test_an_error_has_its_kind(code: str, kind: type[RunnerError]) -> None:
    region = asked(TWO)
    write_text(region, f"error code={code} detail=too%20bad\n")
    with pytest.raises(RunnerError, match=f"{code}: too bad") as caught:
        replied(region, TWO)
    assert type(caught.value) is kind


def write_text(region: bytearray, text: str, *, sequence: int = 1, state: int = 2) -> None:
    """An answer without a table."""
    peer = MailboxPeer(region)
    peer.write(text.splitlines(), [], state=state, sequence=sequence, at=0x80000)


def test_a_request_that_the_guest_does_not_expect_is_objected_to() -> None:
    region = asked(TWO, sequence=7)
    with pytest.raises(Objection, match="request 7 after request 0"):
        MailboxPeer(region).request()
    MailboxPeer(region).answer()
    with pytest.raises(ProtocolError, match=r"did not understand.*request 7 after request 0"):
        replied(region, TWO, sequence=7)


def test_a_request_that_changed_on_the_way_is_objected_to() -> None:
    region = asked(TWO)
    region[0x10] ^= 8
    MailboxPeer(region).answer()
    with pytest.raises(ProtocolError, match="state 2 of request 9, not state 2 of request 1") as caught:
        replied(region, TWO)
    assert "damaged%20host%20header" in caught.value.evidence
    assert not isinstance(caught.value, mailbox.NoReply)


# Wrong


def test_silence_is_no_answer_and_takes_the_last_one_away() -> None:
    region = answered(TWO)
    mailbox.write_request(region, TWO, sequence=2, files={})
    for sequence in (1, 2):
        with pytest.raises(mailbox.NoReply, match=f"empty where the answer to request {sequence}"):
            replied(region, TWO, sequence=sequence)


def test_a_hello_is_no_reply_and_a_reply_no_hello() -> None:
    region = asked(TWO)
    MailboxPeer(region).hello()  # it began anew
    with pytest.raises(mailbox.NoReply, match="state 1 of request 0, not state 2 of request 1"):
        replied(region, TWO)
    with pytest.raises(ProtocolError, match="state 2 of request 1, not state 1 of request 0") as caught:
        mailbox.read_hello(answered(TWO))
    assert not isinstance(caught.value, mailbox.NoReply)


@pytest.mark.parametrize(
    "text",
    ["", "pong token=x t_ns=1\n", "error code=set_up detail=x\n", "hello version=1 spin_ps=1\n", "\n\n"],
)
def test_what_is_no_hello_is_refused(text: str) -> None:
    region = bytearray(MIB)
    write_text(region, text, sequence=0, state=1)
    with pytest.raises(ProtocolError):
        mailbox.read_hello(region)


def test_an_answer_to_another_request_is_refused() -> None:
    with pytest.raises(ProtocolError, match="request 1, not state 2 of request 2"):
        replied(answered(TWO), TWO, sequence=2)


def test_an_answer_of_another_set_is_refused() -> None:
    other = TaskSet((*TWO.tasks,), stop_ns=77 * MS)
    with pytest.raises(ProtocolError, match=f"the acceptance of {other.taskset_id}"):
        replied(answered(TWO), other)


def edited(format_: str, at: int, value: int) -> Callable[[bytearray], None]:
    return lambda region: struct.pack_into(format_, region, at, value)


HUGE = [1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("<I", 0x88, 2), "guest header's version is 2, expected 1"),
        (edited("<B", 0x80, 0), "guest header's magic"),
        (edited("<I", N_TASKS, 1), "guest header's n_tasks is 1, expected 2"),
        (edited("<Q", REPLY_BYTES, 1 << 16), "a line of more than 4095 bytes"),
        (edited("<Q", 0xC00, 0x1000), "start of task 0"),
        (edited("<Q", 0xC00, 0x2008), "offset of task 0 in its page is 8, expected 0"),
        (edited("<Q", 0xC00, 0), "offset of task 0 is 0"),
        (edited("<Q", 0xC00, MIB), "offset of task 0 is 1048576"),
        (edited("<Q", 0xC08, 6), "number of records of task 0 is 6, expected '0…5'"),
        (edited("<Q", 0xC08, 4), "job table's CRC|count of jobs"),
        (edited("<I", 0x08, 3), "host header's version is 3"),
        (edited("<Q", 0x18, 2 * MIB), "host header's CRC"),
        (edited("<Q", 0x20, 0), "host header's CRC"),
        (edited("<I", 0x0C, 65), "host header's n_files is 65"),
    ],
)
def test_damage_is_named(change: Callable[[bytearray], None], message: str) -> None:
    """Also by a guest that has sealed it with the right checksums."""
    region = answered(TWO)
    change(region)
    resealed(region)
    with pytest.raises(ProtocolError, match=message):
        replied(region, TWO)


def test_one_changed_bit_is_noticed_by_each_checksum() -> None:
    """Where nothing else would: in a time of the text or of a record, in what no check but the checksum's looks at."""
    whole = answered(TWO)
    (text,) = struct.unpack_from("<Q", whole, REPLY_OFFSET)
    (record,) = struct.unpack_from("<Q", whole, 0xC00)
    for at, field in (
        (whole.index(b"t0_ns=", text) + 6, "reply's CRC"),
        (record + 16, "job table's CRC"),
        (0xB0, "guest header's CRC"),  # the table's CRC within it
        (0xC18, "guest header's CRC"),
        (0x28, "host header's CRC"),  # the request's CRC within it
    ):
        region = whole[:]
        region[at] ^= 1
        with pytest.raises(ProtocolError, match=f"the mailbox's {field} is"):
            replied(region, TWO)


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("at", [REPLY_OFFSET, REPLY_BYTES, 0xC00, 0xC08, 0xC10, 0xC18])
def test_huge_numbers_are_refused(at: int, value: int) -> None:
    region = answered(TWO)
    struct.pack_into("<Q", region, at, value)
    header = bytes(region[0x80:0xB4]) + bytes(region[0xC00:0xC20])
    struct.pack_into("<I", region, 0xB4, zlib.crc32(header))
    with pytest.raises(ProtocolError):
        replied(region, TWO)


@pytest.mark.parametrize("value", [MAX_TASKS + 1, *HUGE[:1], (1 << 32) - 1])
def test_a_table_of_more_tasks_than_there_can_be_is_refused(value: int) -> None:
    region = answered(TWO)
    struct.pack_into("<I", region, N_TASKS, value)
    with pytest.raises(ProtocolError, match=f"n_tasks is {value}, expected '0…64'"):
        replied(region, TWO)


def test_segments_do_not_overlap() -> None:
    region = answered(TWO)
    region[0xC10:0xC18] = region[0xC00:0xC08]
    resealed(region)
    with pytest.raises(
        ProtocolError, match=r"start of task \d is \d+, expected 'at least \d+, where task \d ends'"
    ):
        replied(region, TWO)


def test_a_reply_does_not_lie_in_the_request() -> None:
    region = answered(TWO)
    offset, n_bytes = struct.unpack_from("<QQ", region, REPLY_OFFSET)
    region[0x1010 : 0x1010 + n_bytes] = region[offset : offset + n_bytes]
    struct.pack_into("<Q", region, REPLY_OFFSET, 0x1010)
    resealed(region)
    with pytest.raises(ProtocolError, match=r"start of reply is 4112.*where request ends"):
        replied(region, TWO)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task_done task=1", "task_done task=0", "list of done tasks is .* expected 'each of 0…1 once'"),
        ("task_done task=1", "task_done task=2", "list of done tasks"),
        ("task_done task=1", "refused task=1 errno=1 name=E", "list of done tasks|malformed|keys"),
        ("jobs=8", "jobs=7", "a count of jobs other than the 8"),
        ("lost=0", "lost=1", "jobs were lost"),
        ("start id", "hello id", "hello has the keys"),
        ("\nend id=", "\nend id=x", "the end of another task set"),
        ("\nstart id=", "\nstart id=x", "the start of another task set"),
        ("\nstart", "\njob 0 0 0 0 0 0 EXIT 0 0 0 0 0\nstart", "a message out of order"),
        ("\nstart", "\nrefused task=1 errno=16 name=EBUSY\nstart", "contradicts"),
        ("\nstart", "\nrefused task=9 errno=16 name=EBUSY\nstart", "a task that the set does not have"),
        ("\nstart", "\naccepted id=x\nstart", "a message out of order"),
        ("\nend", "\npong token=x t_ns=1\nend", "list of done tasks|out of order"),
        ("\ntask_done task=0", "\nstop\ntask_done task=0", "no message of the protocol"),
    ],
)
def test_a_text_that_contradicts_its_table_is_refused(old: str, new: str, message: str) -> None:
    region = answered(TWO)
    offset, n_bytes = struct.unpack_from("<QQ", region, REPLY_OFFSET)
    text = bytes(region[offset : offset + n_bytes]).decode()
    assert old in text
    changed = text.replace(old, new).encode()
    region[offset : offset + len(changed)] = changed
    struct.pack_into("<Q", region, REPLY_BYTES, len(changed))
    resealed(region)
    with pytest.raises(ProtocolError, match=message):
        replied(region, TWO)


FIRST = JobRecord(0, 0, 0, 0, 2 * MS, 2 * MS, ExitType.EXIT, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("at", "format_", "value", "message"),
    [
        (0, "<q", 1, "a release at 1 ns, due at 0"),
        (0, "<q", -2, "nothing negative but -1"),
        (8, "<q", -(1 << 63), "nothing negative but -1"),
        (32, "<i", 1, "job 1 where job 0 was due"),
        (32, "<i", -1, "record of task 0"),
        (36, "<i", -2, "nothing negative but -1"),
        (48, "<h", -2, "nothing negative but -1"),
        (52, "<h", 9, "record of task 0"),
        (52, "<h", -1, "record of task 0"),
        (52, "<h", 7, "contradicts what was said of its task's admission"),
        (54, "<h", 1, "record of task 0"),
        (54, "<h", -1, "record of task 0"),
    ],
)
def test_a_wrong_record_is_refused(at: int, format_: str, value: int, message: str) -> None:
    region = answered(TWO)
    (offset,) = struct.unpack_from("<Q", region, 0xC00)
    assert region[offset : offset + 56] == packed_record(FIRST)
    struct.pack_into(format_, region, offset + at, value)
    resealed(region)
    with pytest.raises(ProtocolError, match=message):
        replied(region, TWO)


def test_minus_one_is_unknown() -> None:
    region = answered(TWO)
    (offset,) = struct.unpack_from("<Q", region, 0xC00)
    for at, format_ in ((0, "<q"), (8, "<q"), (16, "<q"), (24, "<q"), (36, "<i"), (40, "<i"), (48, "<h")):
        struct.pack_into(format_, region, offset + at, -1)
    resealed(region)
    assert replied(region, TWO)[1] == JobEvent(
        JobRecord(0, 0, None, None, None, None, ExitType.EXIT, None, None, 0, None, 0)
    )


# Any bytes

#: Where a small set's answer lies: the headers and tables, the request, the reply, and the records.
header_bytes = st.sampled_from([0x00, 0x80, 0x400, 0xC00]).flatmap(lambda at: st.integers(at, at + 63))
answer_bytes = header_bytes | st.integers(0, 0x2400) | st.integers(0x12000, 0x12400)
mutations = st.lists(st.tuples(answer_bytes, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


@given(small_tasksets(), mutations, st.booleans())
def test_any_damage_is_an_error_or_harmless(
    taskset: TaskSet, changes: list[tuple[int, bytes]], sealed: bool
) -> None:
    """Without the right checksums: the same content, or refused. With them: refused, or of the protocol; never another exception."""
    region = answered(taskset)
    expected = replied(region, taskset)
    for at, new in changes:
        region[at : at + len(new)] = new
    if sealed and sane(region):
        resealed(region)
    try:
        events = replied(region, taskset)
    except InfrastructureError:
        return
    except TaskSetError:
        assert sealed
        return
    assert sealed or events == expected


def sane(region: bytearray) -> bool:
    """Whether the checksums can be made at all."""
    offset, n_bytes, _, n_tasks = struct.unpack_from("<QQII", region, REPLY_OFFSET)
    counts = [n for _, n in struct.iter_unpack("<QQ", region[0xC00 : 0xC00 + 16 * min(n_tasks, 64)])]
    return n_tasks <= 64 and offset < MIB and n_bytes < MIB and all(n < MIB for n in counts)


@given(small_tasksets(), answer_bytes)
def test_a_region_that_was_cut_off_is_refused(taskset: TaskSet, kept: int) -> None:
    region = answered(taskset)
    expected = replied(region, taskset)
    region[kept:] = bytes(MIB - kept)
    with suppress(ProtocolError):
        assert replied(region, taskset) == expected


@given(st.binary(max_size=0x200), st.binary(max_size=0x100))
@example(b"", b"")
def test_any_bytes_are_an_answer_or_refused(headers: bytes, table: bytes) -> None:
    region = bytearray(MIB)
    region[: len(headers)] = headers
    region[0xC00 : 0xC00 + len(table)] = table
    with pytest.raises(ProtocolError):
        replied(region, TWO)
    with pytest.raises(ProtocolError):
        mailbox.read_hello(region)


def test_a_region_that_changes_while_it_is_read_gives_the_truth_or_an_error() -> None:
    """As an emulator that a guest has taken over could do: what was checked is what is used."""
    taskset = TaskSet(
        (Task(period_ns=MS, wcet_ns=MS // 10, n_jobs=40), Task(period_ns=2 * MS, wcet_ns=MS // 10, n_jobs=20))
    )
    truth, region = answered(taskset), bytearray(answered(taskset))
    expected = list(mailbox.read_reply(truth, taskset, sequence=1))
    over = threading.Event()
    used = [at for at in range(0, len(truth), 8) if any(truth[at : at + 8])]

    def scribble() -> None:
        random = Random(1)
        while not over.is_set():
            at = random.choice(used)
            region[at : at + 8] = random.choice((bytes(8), b"\xff" * 8, random.randbytes(8)))
            region[at : at + 8] = truth[at : at + 8]

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    outcomes = Counter[str]()
    try:
        for _ in range(300):
            try:
                assert list(mailbox.read_reply(region, taskset, sequence=1)) == expected
                outcomes["whole"] += 1
            except ProtocolError:
                outcomes["refused"] += 1
    finally:
        over.set()
        scribbler.join()
    assert outcomes.total() == 300
