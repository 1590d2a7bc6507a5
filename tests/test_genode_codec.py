"""Genode's protocol as pure functions: what goes out can be read back, and whatever comes in is understood or refused."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import ProtocolError, TaskSetError
from runner.events import EndEvent, Event, ExitType, JobEvent, StartEvent, TaskDoneEvent
from runner.genode import (
    MAX_PROFILE_BYTES,
    GoSend,
    Matcher,
    MessageDecoder,
    Pong,
    Profile,
    ServerMessage,
    Tag,
    encode_binary,
    encode_descriptions,
    encode_sized,
    encode_tag,
    parse_profile,
)
from runner.genode.profiles import ProfileEvent
from runner.model import OverrunPolicy, Policy, TaskSet
from runner.simulator import Simulation
from runner.units import NS_PER_MS
from tests.genode_peer import AVAILABLE, GO_SEND, profile, rows_of, word
from tests.genode_strategies import VCPUS, expressible, profile_events
from tests.session_contract import MS, periodic
from tests.strategies import small_tasksets, tasksets

# Framing

#: As long as GO_SEND's tag is large, too.
contents = st.binary(min_size=1, max_size=400) | st.binary(min_size=GO_SEND, max_size=GO_SEND)
messages = st.lists(st.just(Pong()) | st.just(GoSend()) | st.builds(Profile, contents), max_size=12)
cuts = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def said(message: ServerMessage) -> bytes:
    match message:
        case Pong():
            return word(AVAILABLE)
        case GoSend():
            return word(GO_SEND)
        case Profile(content):
            return word(len(content)) + content


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The sizes again and again, to the end of the data."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(found) % len(sizes)]
        found.append(data[at : at + size])
        at += size
    return found


@given(messages, cuts)
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    sent: list[ServerMessage], sizes: list[int]
) -> None:
    decoder = MessageDecoder()
    coming = iter(pieces(b"".join(map(said, sent)), sizes))
    for message in sent:
        decoder.expects_go_send = isinstance(message, GoSend)
        while (got := decoder.next_message()) is None:
            decoder.feed(next(coming))
        assert got == message
    assert next(coming, None) is None
    assert decoder.next_message() is None


def decoded(chunks: Sequence[bytes], *, go_send: bool) -> tuple[list[ServerMessage], bool]:
    """What is made of them, and whether an error ended it."""
    decoder, found = MessageDecoder(), []
    decoder.expects_go_send = go_send
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            while (message := decoder.next_message()) is not None:
                found.append(message)
        except ProtocolError:
            with pytest.raises(ProtocolError):
                decoder.next_message()
            assert decoder.broken
            return found, True
    return found, False


small_sizes = st.integers(0, 40).map(word)


@given(
    st.lists(st.binary(max_size=30) | small_sizes | st.sampled_from([word(AVAILABLE), word(GO_SEND)])),
    cuts,
    st.booleans(),
)
def test_any_bytes_give_the_same_in_any_pieces(parts: list[bytes], sizes: list[int], go_send: bool) -> None:
    data = b"".join(parts)
    whole = decoded([data], go_send=go_send)
    assert decoded(pieces(data, sizes), go_send=go_send) == whole
    assert data.startswith(b"".join(map(said, whole[0]))), "every byte belongs to the message that it is in"


def test_sizes_out_of_range_are_refused_before_anything_is_kept() -> None:
    for size in (0, MAX_PROFILE_BYTES + 1, 0xFFFFFFFF):
        assert decoded([word(size)], go_send=False) == ([], True)
    largest = bytes(MAX_PROFILE_BYTES)
    assert decoded([word(len(largest)), largest], go_send=False) == ([Profile(largest)], False)


@given(st.binary(max_size=300), st.from_regex(r"[!-~]{1,15}", fullmatch=True))
def test_what_goes_out_is_read_back(content: bytes, name: str) -> None:
    assert struct.unpack("<III", encode_tag(Tag.SEND_BINARIES, 1, 0xFFFFFFFF)) == (0x0DE5F11E, 1, 0xFFFFFFFF)
    tag, size = struct.unpack_from("<II", sized := encode_sized(Tag.OPTIMIZE, content))
    assert (tag, size, sized[8:]) == (Tag.OPTIMIZE, len(content), content)
    field, size = struct.unpack_from("<16sI", binary := encode_binary(name, content))
    assert (field.rstrip(b"\0").decode(), size, binary[20:]) == (name, len(content), content)


# Descriptions


def described(document: bytes) -> list[dict[str, str]]:
    """The texts of each description, with its arguments as `arg1` …"""
    assert document.endswith(b"</taskset>\0")
    root = ElementTree.fromstring(document[:-1].decode("ascii"))
    assert root.tag == "taskset"
    return [
        {
            child.tag: child.text or ""
            for child in [*node, *(node.find("config") or ())]
            if child.tag != "config"
        }
        for node in root
    ]


@given(expressible())
@settings(max_examples=60)
def test_descriptions_say_what_the_task_set_says(taskset: TaskSet) -> None:
    offset_ms, seen = 0, {}
    for texts in described(encode_descriptions(taskset, vcpus=VCPUS)):
        offset_ms += int(texts["offset"])
        seen[int(texts["id"])] = texts | {"offset": str(offset_ms)}
    assert sorted(seen) == list(range(len(taskset.tasks)))
    for idx, task in enumerate(taskset.tasks):
        texts = seen[idx]
        edf = task.policy is Policy.DEADLINE
        assert int(texts["offset"]) * MS == task.offset_ns
        assert int(texts["period"]) * MS == (task.period_ns or 0)
        assert int(texts["criticaltime"]) * MS == (task.kill_after_start_ns or 0)
        assert int(texts["numberofjobs"]) == task.n_jobs
        assert int(texts["deadline"]) * MS == ((task.relative_deadline_ns or 0) if edf else 0)
        assert (texts["priority"] == "128") == edf
        assert texts["pkg"] == str(task.workload_args.get("path", f"/{task.workload}")).removeprefix("/")
    fixed = [idx for idx, task in enumerate(taskset.tasks) if task.policy is not Policy.DEADLINE]
    for one in fixed:
        for other in fixed:
            ranks = taskset.tasks[one].priority_rank, taskset.tasks[other].priority_rank
            told = int(seen[one]["priority"]), int(seen[other]["priority"])
            assert (ranks[0] < ranks[1], ranks[0] == ranks[1]) == (told[0] < told[1], told[0] == told[1])


@given(tasksets(max_tasks=3), st.none() | st.integers(1, 8))
@settings(max_examples=60)
def test_any_task_set_is_described_or_refused(taskset: TaskSet, vcpus: int | None) -> None:
    taskset = replace(taskset, overrun_policy=OverrunPolicy.KILL_AND_SKIP)
    try:
        document = encode_descriptions(taskset, vcpus=vcpus)
    except TaskSetError:
        return
    assert len(described(document)) == len(taskset.tasks)


# Profiles

profiles = st.lists(profile_events, max_size=12).map(tuple)


def written(events: Sequence[ProfileEvent], garbage: bytes) -> bytes:
    return profile(*((one.task_id, one.kind.value, one.t_ms) for one in events), garbage=garbage)[4:]


@given(profiles, st.binary(max_size=60), st.sampled_from([b"", b"\0", b"</profile>", b"<profile><events>"]))
def test_profiles_are_read_back_whatever_follows_them(
    events: tuple[ProfileEvent, ...], garbage: bytes, more: bytes
) -> None:
    assert parse_profile(written(events, garbage + more)) == events


@given(profiles, st.data())
def test_a_spoilt_profile_is_read_or_refused(events: tuple[ProfileEvent, ...], data: st.DataObject) -> None:
    spoilt = bytearray(written(events, b"\0"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt)))
        spoilt[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"<", b">", b"&lt;", b"&x;", b"<!DOCTYPE a>", b"<![CDATA[", b"'", b"--"])
        )
    try:
        found = parse_profile(bytes(spoilt))
    except ProtocolError:
        return
    assert all(isinstance(one, ProfileEvent) for one in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_profile_or_refused(content: bytes) -> None:
    for wrapped in (content, b"<profile>" + content + b"</profile>"):
        with suppress(ProtocolError):
            parse_profile(wrapped)


# From profiles to events


def jobs_of(events: Sequence[Event]) -> list[tuple[int, ExitType, int | None, int | None]]:
    found = [one.job for one in events if isinstance(one, JobEvent)]
    return [(job.task_idx, job.exit_type, job.start_ns, job.finish_ns) for job in found]


def in_whole_ms(value_ns: int | None) -> int | None:
    return None if value_ns is None else value_ns // NS_PER_MS * NS_PER_MS


@given(small_tasksets((Policy.FIFO, Policy.DEADLINE)))
def test_a_simulated_set_arrives_as_it_was(taskset: TaskSet) -> None:
    taskset = replace(taskset, overrun_policy=OverrunPolicy.KILL_AND_SKIP, stop_ns=None)
    simulated = list(Simulation(taskset).events())
    matcher = Matcher(taskset)
    arrived = [
        event
        for one in simulated
        for event in matcher.take(parse_profile(profile(*rows_of(one, stopping=False))[4:]))
    ]
    assert matcher.done
    arrived += matcher.end()
    # A job that never ran is none that the protocol tells of.
    expected = [
        (task, kind, in_whole_ms(start), in_whole_ms(finish))
        for task, kind, start, finish in jobs_of(simulated)
        if start is not None
    ]
    assert jobs_of(arrived) == expected
    assert isinstance(arrived[0], StartEvent)
    assert sum(isinstance(one, TaskDoneEvent) for one in arrived) == len(taskset.tasks)


@given(st.lists(profiles, max_size=6))
def test_any_events_are_matched_or_refused(heard: list[tuple[ProfileEvent, ...]]) -> None:
    n_jobs = 3
    taskset = TaskSet(tuple(periodic(1, 10, 0, n_jobs) for _ in range(3)))
    matcher, events = Matcher(taskset), list[Event]()
    with suppress(ProtocolError):
        for one in heard:
            events += matcher.take(one)
    done = matcher.done
    events += matcher.end()
    assert matcher.n_running == 0
    assert [type(one) for one in events].count(StartEvent) == 1
    assert isinstance(events[-1], EndEvent)
    assert events[-1].stopped is not done
    jobs = [one.job for one in events if isinstance(one, JobEvent)]
    for idx in range(len(taskset.tasks)):
        mine = [job for job in jobs if job.task_idx == idx]
        assert [job.job_idx for job in mine] == list(range(len(mine)))
        assert len(mine) <= n_jobs
    ran = [job for job in jobs if job.start_ns is not None and job.finish_ns is not None]
    assert all((job.start_ns or 0) <= (job.finish_ns or 0) for job in ran)
    finished = [one.task_idx for one in events if isinstance(one, TaskDoneEvent)]
    assert len(set(finished)) == len(finished)
