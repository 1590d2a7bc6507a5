"""The task loader's protocol: what goes out, to the letter; and that nothing wrong comes in unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import InfrastructureError, ProtocolError, RunnerError, TaskSetError
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
from runner.model import WORKLOADS, OverrunPolicy, Policy, Task, TaskSet
from runner.simulator import Simulation
from runner.task_loader import wire
from runner.task_loader.decoder import Decoder
from runner.task_loader.wire import (
    MAX_LINE_BYTES,
    Accepted,
    Ended,
    Hello,
    Message,
    Pong,
    Refusal,
    Started,
    decode,
    encode,
    lines_of,
    ping,
    refused,
)
from runner.units import NS_PER_MS
from tests.strategies import small_tasksets, tasksets

MS = NS_PER_MS


# Out


def test_a_request_to_the_letter() -> None:
    taskset = TaskSet(
        (
            Task(
                period_ns=10 * MS,
                wcet_ns=2 * MS,
                deadline_ns=9 * MS,
                offset_ns=5,
                n_jobs=7,
                kill_after_start_ns=3 * MS,
                mem_limit_bytes=4096,
                cpu_affinity=(0, 5),
            ),
            Task(
                period_ns=20 * MS,
                wcet_ns=4 * MS,
                policy=Policy.DEADLINE,
                dl_runtime_ns=5 * MS,
                deadline_ns=15 * MS,
            ),
            Task(period_ns=None, workload="hey", priority_rank=3, policy=Policy.RR),
            Task(period_ns=30 * MS, workload="pi", workload_args={"arg1": 9}, policy=Policy.OTHER),
            Task(
                period_ns=None,
                workload="executable",
                workload_args={"path": "/my/load", "argv": ("-n", "a b,c", "")},
                priority_rank=3,
            ),
        ),
        overrun_policy=OverrunPolicy.KILL_AND_SKIP,
        admission_control=False,
        stop_ns=123,
    )
    assert encode(taskset, uploads={"/my/load": "/run/x~1"}).decode().splitlines() == [
        f"taskset version=2 id={taskset.taskset_id} n_tasks=5 overrun=kill_and_skip admission_control=0"
        " start_delay_ns=100000000 stop_ns=123",
        "task idx=0 policy=fifo priority=98 period_ns=10000000 deadline_ns=9000000 offset_ns=5 n_jobs=7"
        " kill_after_start_ns=3000000 mem_limit_bytes=4096 cpus=21 dl_runtime_ns=- dl_deadline_ns=- dl_period_ns=-"
        " workload=spin args=2000000",
        "task idx=1 policy=deadline priority=0 period_ns=20000000 deadline_ns=15000000 offset_ns=0 n_jobs=1"
        " kill_after_start_ns=- mem_limit_bytes=- cpus=- dl_runtime_ns=5000000 dl_deadline_ns=15000000"
        " dl_period_ns=20000000 workload=spin args=4000000",
        "task idx=2 policy=rr priority=97 period_ns=- deadline_ns=- offset_ns=0 n_jobs=1"
        " kill_after_start_ns=- mem_limit_bytes=- cpus=- dl_runtime_ns=- dl_deadline_ns=- dl_period_ns=-"
        " workload=hey args=-",
        "task idx=3 policy=other priority=0 period_ns=30000000 deadline_ns=30000000 offset_ns=0 n_jobs=1"
        " kill_after_start_ns=- mem_limit_bytes=- cpus=- dl_runtime_ns=- dl_deadline_ns=- dl_period_ns=-"
        " workload=pi args=9",
        "task idx=4 policy=fifo priority=97 period_ns=- deadline_ns=- offset_ns=0 n_jobs=1"
        " kill_after_start_ns=- mem_limit_bytes=- cpus=- dl_runtime_ns=- dl_deadline_ns=- dl_period_ns=-"
        " workload=executable args=/run/x%7E1,-n,a%20b%2Cc,",
        "run",
    ]


def uploads_of(taskset: TaskSet) -> dict[str, str]:
    return {
        str(task.workload_args["path"]): f"/run/{idx}"
        for idx, task in enumerate(taskset.tasks)
        if task.workload == "executable"
    }


@given(tasksets())
def test_every_request_says_all_of_its_set(taskset: TaskSet) -> None:
    """Read back as the other side does: words `key=value`, each once, nothing that needs quoting left as it is."""
    uploads = uploads_of(taskset)
    request = encode(taskset, uploads=uploads)
    assert request.isascii()
    assert request.endswith(b"\nrun\n")
    head, *lines, _ = request.decode().splitlines()
    assert all(" " <= char <= "~" for line in (head, *lines) for char in line)
    fields = [dict(word.split("=", 1) for word in line.split(" ")[1:]) for line in (head, *lines)]
    assert fields[0]["id"] == taskset.taskset_id
    assert fields[0]["stop_ns"] == str(taskset.end_ns)
    assert len(lines) == len(taskset.tasks)
    for idx, (task, said) in enumerate(zip(taskset.tasks, fields[1:], strict=True)):
        assert len(said) == 15
        assert (said["idx"], said["policy"], said["workload"]) == (str(idx), task.policy.value, task.workload)
        assert said["cpus"] == "-" or {cpu for cpu in range(64) if int(said["cpus"], 16) >> cpu & 1} == set(
            task.cpu_affinity
        )
        for key, value in (
            ("period_ns", task.period_ns),
            ("deadline_ns", task.relative_deadline_ns),
            ("offset_ns", task.offset_ns),
            ("n_jobs", task.n_jobs),
            ("kill_after_start_ns", task.kill_after_start_ns),
            ("mem_limit_bytes", task.mem_limit_bytes),
        ):
            assert said[key] == ("-" if value is None else str(value))
        assert (said["dl_runtime_ns"] == "-") == (task.policy is not Policy.DEADLINE)
        if task.workload == "executable":
            argv = task.workload_args["argv"]
            assert isinstance(argv, tuple)
            expected = [uploads[str(task.workload_args["path"])], *argv]
            assert [unquote(word) for word in said["args"].split(",")] == expected


def test_every_workload_can_be_said() -> None:
    for name, arguments in WORKLOADS.items():
        given_arguments: dict[str, int | str] = {
            key: "/x" if key == "path" else 5 for key, optional in arguments.items() if not optional
        }
        task = Task(period_ns=MS, wcet_ns=MS, workload=name, workload_args=given_arguments)
        assert f"workload={name} ".encode() in encode(TaskSet((task,)), uploads={"/x": "/y"})


def test_arguments_that_are_too_long_are_refused() -> None:
    task = Task(
        name="big", period_ns=None, workload="executable", workload_args={"path": "/x", "argv": ("y" * 4095,)}
    )
    with pytest.raises(TaskSetError, match=r"task 'big' has \d+ bytes of arguments"):
        encode(TaskSet((task,)), uploads={"/x": "/y"})


def test_a_ping_to_the_letter() -> None:
    assert ping("a-1") == b"ping token=a-1\n"


# In: one line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "hello version=2 spin_ps=1234 cpus=2 kernel=6.1.0%2Drt realtime=1",
            Hello(spin_ps=1234, cpus=2, kernel="6.1.0-rt", realtime=True),
        ),
        ("hello version=2 spin_ps=1 cpus=1 kernel=x realtime=0", Hello(1, 1, "x", realtime=False)),
        ("accepted id=abc", Accepted("abc")),
        ("refused task=2 errno=16 name=EBUSY", RefusedEvent(2, 16, "EBUSY")),
        ("start id=abc t0_ns=5", Started("abc", 5)),
        (
            "job 0 3 10 11 12 1 EXIT 0 4 1 0 1",
            JobEvent(JobRecord(0, 3, 10, 11, 12, 1, ExitType.EXIT, 0, 4, 1, 0, 1)),
        ),
        (
            "job 1 0 - - - - NOT_SCHEDULED - - - - -",
            JobEvent(JobRecord(1, 0, None, None, None, None, ExitType.NOT_SCHEDULED)),
        ),
        ("task_done task=1 t_ns=9", TaskDoneEvent(1, 9)),
        (
            "end id=abc t_ns=9 reason=completed jobs=0 lost=0",
            Ended("abc", 9, stopped=False, n_jobs=0, n_lost=0),
        ),
        ("end id=abc t_ns=9 reason=stopped jobs=8 lost=1", Ended("abc", 9, stopped=True, n_jobs=8, n_lost=1)),
        ("pong token=a-1 t_ns=77", Pong("a-1", 77)),
        ("error code=busy detail=a%20set%20runs", Refusal("busy", "a set runs")),
    ],
)
def test_each_message(line: str, message: Message) -> None:
    assert decode(line) == message


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "hey",
        "Job 0 0 0 0 0 0 EXIT 0 0 0 0 0",
        "job",
        "job 0 0 0 0 0 0 EXIT 0 0 0 0",
        "job 0 0 0 0 0 0 EXIT 0 0 0 0 0 0",
        "job 0 0 0 0 0 0 exit 0 0 0 0 0",
        "job - 0 0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 - 0 0 0 0 EXIT 0 0 0 0 0",
        "job -1 0 0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 -1 0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 0 0 0 -5 EXIT 0 0 0 0 0",
        "job 0 0 0 0 0 0 EXIT 0 -1 0 0 0",
        "job 0 0 0x0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 1.5 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 +1 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 1_0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 9223372036854775808 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 99999999999999999999 0 0 0 EXIT 0 0 0 0 0",
        f"job 0 0 {'9' * 4000} 0 0 0 EXIT 0 0 0 0 0",
        "job  0 0 0 0 0 0 EXIT 0 0 0 0 0",
        "job 0 0 0 0 0 0 EXIT 0 0 0 0 0\r",
        "job\t0 0 0 0 0 0 EXIT 0 0 0 0 0",
        "start id=a",
        "start id=a t0_ns=1 more=2",
        "start id=a t0_ns=1 t0_ns=1",
        "start id=a t0_ns=",
        "start id=a t0_ns=-",
        "start id=a t0_ns=--1",
        "start id=a t0",
        "start t0_ns=1",
        "task_done task=-1 t_ns=0",
        "task_done task=x t_ns=0",
        "refused task=-1 errno=1 name=EPERM",
        "end id=a t_ns=1 reason=tired jobs=0 lost=0",
        "end id=a t_ns=1 reason=completed jobs=0",
        "hello version=3 spin_ps=1 cpus=1 kernel=x realtime=0",
        "hello version=2 spin_ps=1 cpus=1 kernel=x realtime=2",
        "accepted",
        "accepted id",
        "error code=busy",
        "pong token=x",
        "pong token=x t_ns=-",
        "pong t_ns=1",
    ],
)
def test_what_is_no_message_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(line)
    assert caught.value.what.startswith("the task loader sent ")
    assert len(str(caught.value)) < 500


@given(st.text(max_size=80) | st.text(st.sampled_from("job start id=t0_ns-0123 EXIT"), max_size=60))
def test_any_line_is_a_message_or_refused(line: str) -> None:
    with suppress(ProtocolError):
        decode(line)


# In: a whole set


def said(event: Event, taskset: TaskSet, n_jobs: int) -> str:
    """An event as the task loader writes it."""

    def show(value: int | None) -> str:
        return "-" if value is None else str(value)

    match event:
        case StartEvent(t0):
            return f"start id={taskset.taskset_id} t0_ns={t0}"
        case RefusedEvent(task, number, name):
            return f"refused task={task} errno={number} name={name}"
        case TaskDoneEvent(task, t_ns):
            return f"task_done task={task} t_ns={t_ns}"
        case EndEvent(t_ns, stopped):
            reason = "stopped" if stopped else "completed"
            return f"end id={taskset.taskset_id} t_ns={t_ns} reason={reason} jobs={n_jobs} lost=0"
        case JobEvent(job):
            numbers = [job.task_idx, job.job_idx, job.release_ns, job.start_ns, job.finish_ns, job.exec_ns]
            rest = [job.exit_code, job.preemptions, job.migrations, job.cpu_first, job.cpu_last]
            words = [*(show(number) for number in numbers), job.exit_type.value, *(show(n) for n in rest)]
            return f"job {' '.join(words)}"


def transcript(taskset: TaskSet) -> tuple[list[Event], list[str]]:
    """What a run of it tells, as events and as lines."""
    events = list(Simulation(taskset).events())
    n_jobs = sum(isinstance(event, JobEvent) for event in events)
    return events, [said(event, taskset, n_jobs) for event in events]


def decoded(taskset: TaskSet, lines: list[str]) -> list[Event]:
    """What a session makes of the lines: everything, or an error where the end does not come."""
    decoder = Decoder(taskset)
    events: list[Event] = []
    for line in lines:
        events.append(decoder.decode(line))
    if not decoder.ended:
        raise ProtocolError("no end")
    return events


@given(small_tasksets())
def test_a_whole_transcript_is_what_happened(taskset: TaskSet) -> None:
    events, lines = transcript(taskset)
    assert decoded(taskset, lines) == events


@given(small_tasksets(), st.data())
def test_a_lost_line_is_noticed(taskset: TaskSet, data: st.DataObject) -> None:
    _, lines = transcript(taskset)
    del lines[data.draw(st.integers(0, len(lines) - 1))]
    with pytest.raises(ProtocolError):
        decoded(taskset, lines)


@given(small_tasksets(), st.data())
def test_a_doubled_line_is_noticed(taskset: TaskSet, data: st.DataObject) -> None:
    _, lines = transcript(taskset)
    doubled = data.draw(st.integers(0, len(lines) - 1))
    lines.insert(data.draw(st.integers(doubled, len(lines))), lines[doubled])
    with pytest.raises(ProtocolError):
        decoded(taskset, lines)


@given(small_tasksets(), st.data())
def test_another_order_changes_no_job(taskset: TaskSet, data: st.DataObject) -> None:
    """Where the protocol allows the order (tasks are independent), it is the same table; else it is refused."""
    events, lines = transcript(taskset)
    first, second = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    try:
        other = decoded(taskset, lines)
    except ProtocolError:
        return
    assert sorted(map(repr, other)) == sorted(map(repr, events))
    for idx in range(len(taskset.tasks)):
        assert of_task(other, idx) == of_task(events, idx)


def of_task(events: list[Event], idx: int) -> list[Event]:
    return [
        event
        for event in events
        if getattr(event, "task_idx", getattr(getattr(event, "job", None), "task_idx", None)) == idx
    ]


def foreign_lines(taskset: TaskSet) -> list[str]:
    """What a set of one task, which is no part of it, tells."""
    other = TaskSet((Task(period_ns=77 * MS, wcet_ns=MS, n_jobs=2),))
    assert other.taskset_id != taskset.taskset_id
    return transcript(other)[1]


@given(small_tasksets(), st.data())
def test_a_line_of_another_set_is_noticed(taskset: TaskSet, data: st.DataObject) -> None:
    """Wherever it comes: it has another id, or tells of a task or job for the second time."""
    _, lines = transcript(taskset)
    lines.insert(
        data.draw(st.integers(0, len(lines) - 1)), data.draw(st.sampled_from(foreign_lines(taskset)))
    )
    with pytest.raises(ProtocolError):
        decoded(taskset, lines)


@given(small_tasksets(), st.sampled_from(["jobs", "lost"]), st.integers(-3, 3).filter(bool))
def test_a_changed_count_is_noticed(taskset: TaskSet, which: str, by: int) -> None:
    _, lines = transcript(taskset)
    head, _, count = lines[-1].partition(f" {which}=")
    number, _, rest = count.partition(" ")
    lines[-1] = f"{head} {which}={int(number) + by}{' ' if rest else ''}{rest}"
    with pytest.raises(ProtocolError):
        decoded(taskset, lines)


@given(small_tasksets(), st.integers(1, 10**9))
def test_a_wrong_release_is_noticed(taskset: TaskSet, shift_ns: int) -> None:
    events, lines = transcript(taskset)
    for idx, event in enumerate(events):
        if isinstance(event, JobEvent) and event.job.release_ns is not None:
            words = lines[idx].split(" ")
            words[3] = str(event.job.release_ns + shift_ns)
            lines[idx] = " ".join(words)
            with pytest.raises(ProtocolError, match="a release at"):
                decoded(taskset, lines)
            return


@given(small_tasksets(), st.data())
def test_a_damaged_byte_is_noticed_or_harmless(taskset: TaskSet, data: st.DataObject) -> None:
    """SSH keeps bytes whole; this is for a loader that does not. A digit changed into another can go unnoticed only there."""
    events, lines = transcript(taskset)
    stream = bytearray("\n".join([*lines, ""]).encode())
    at = data.draw(st.integers(0, len(stream) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != stream[at]))
    digits = b"-0123456789"
    stream[at], before = byte, stream[at]
    try:
        other = decoded(taskset, list(lines_of(iter([bytes(stream)]))))
    except ProtocolError:
        return
    assert other == events or (before in digits and byte in digits) or b"errno" in stream


def test_nothing_may_follow_the_end() -> None:
    taskset = TaskSet((Task(period_ns=10 * MS, wcet_ns=MS),))
    _, lines = transcript(taskset)
    with pytest.raises(ProtocolError, match="after the end"):
        decoded(taskset, [*lines, lines[-1]])


@pytest.mark.parametrize(
    "line",
    ["accepted id=x", "error code=set_up detail=-", "hello version=2 spin_ps=1 cpus=1 kernel=x realtime=1"],
)
def test_what_has_no_place_in_a_running_set_is_refused(line: str) -> None:
    decoder = Decoder(TaskSet((Task(period_ns=10 * MS, wcet_ns=MS),)))
    with pytest.raises(ProtocolError, match="no place while a set runs"):
        decoder.decode(line)


@given(small_tasksets(), st.data())
def test_jobs_may_come_all_at_once(taskset: TaskSet, data: st.DataObject) -> None:
    """Some line by line, the rest of the task together: the same events, the same objections."""
    events, lines = transcript(taskset)
    decoder = Decoder(taskset)
    singly = data.draw(st.integers(0, 3))
    seen: list[Event] = []
    for event, line in zip(events, lines, strict=True):
        if isinstance(event, JobEvent) and event.job.job_idx >= singly:
            continue
        if isinstance(event, TaskDoneEvent):
            rest = [e.job for e in events if isinstance(e, JobEvent) and e.job.task_idx == event.task_idx][
                singly:
            ]
            seen += decoder.accept_jobs(event.task_idx, rest)
        seen.append(decoder.decode(line))
    assert decoder.ended
    for idx in range(len(taskset.tasks)):
        assert of_task(seen, idx) == of_task(events, idx)


@pytest.mark.parametrize(
    ("job_idx", "release_ns", "exit_type", "message"),
    [
        (2, 10 * MS, ExitType.EXIT, "job 2 where job 1 was due"),
        (1, 11 * MS, ExitType.EXIT, "a release at 11000000 ns, due at 10000000"),
        (1, None, ExitType.NOT_SCHEDULED, "contradicts"),
    ],
)
def test_a_wrong_job_among_many_is_noticed(
    job_idx: int, release_ns: int | None, exit_type: ExitType, message: str
) -> None:
    taskset = TaskSet((Task(period_ns=10 * MS, wcet_ns=MS, n_jobs=3),))
    jobs = [event.job for event in Simulation(taskset).events() if isinstance(event, JobEvent)]
    jobs[1] = JobRecord(0, job_idx, release_ns, None, None, None, exit_type)
    decoder = Decoder(taskset)
    decoder.accept(Started(taskset.taskset_id, 0), "start")
    with pytest.raises(ProtocolError, match=message):
        list(decoder.accept_jobs(0, jobs))


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("bad_value", TaskSetError, "the task loader refused task set 'mine'"),
        ("range", TaskSetError, "refused"),
        ("unsupported", TaskSetError, "refused"),
        ("capacity", TaskSetError, "refused"),
        ("set_up", InfrastructureError, "qemu7: the guest could not set up"),
        ("throttling", InfrastructureError, "qemu7"),
        ("mailbox", ProtocolError, "qemu7: the task loader did not understand"),
        ("syntax", ProtocolError, "did not understand"),
        ("of tomorrow", ProtocolError, "of tomorrow: no"),
    ],
)
def test_an_error_is_somebodys_fault(code: str, kind: type[RunnerError], text: str) -> None:
    error = refused("qemu7", TaskSet((Task(period_ns=MS, wcet_ns=1),), name="mine"), Refusal(code, "no"))
    assert type(error) is kind
    assert text in error.what


# In: bytes


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)), st.data())
def test_lines_come_out_whatever_the_chunks(lines: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert list(lines_of(iter(chunks))) == lines
    assert list(lines_of(bytes([byte]) for byte in stream)) == lines


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10_000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_line_that_is_too_long_is_refused(chunk_bytes: int, ended: bool) -> None:
    def chunks(n: int) -> Iterator[bytes]:
        stream = b"x" * n + b"\n" * ended
        for at in range(0, len(stream), chunk_bytes):
            yield stream[at : at + chunk_bytes]

    if ended:
        assert list(lines_of(chunks(MAX_LINE_BYTES))) == ["x" * MAX_LINE_BYTES]
    with pytest.raises(ProtocolError, match=f"more than {MAX_LINE_BYTES} bytes"):
        list(lines_of(chunks(MAX_LINE_BYTES + 1)))


def test_an_endless_line_is_refused_before_it_fills_the_memory() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 100

    with pytest.raises(ProtocolError, match="more than"):
        next(lines_of(endless()))


@pytest.mark.parametrize("rest", [b"job 0", b"\xff", "é".encode()])
def test_what_is_cut_off_or_no_text_is_refused(rest: bytes) -> None:
    lines = lines_of(iter([b"a\nb\n", rest]))
    assert [next(lines), next(lines)] == ["a", "b"]
    with pytest.raises(ProtocolError):
        next(lines)


@pytest.mark.parametrize("line", [b"hello \x1b[2J", b"job\t0", b"\x07", b"end\r", b"\x7f", b"\x9b2J"])
def test_a_line_that_would_speak_to_a_terminal_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="no text") as caught:
        list(wire.lines_of(iter([line + b"\n"])))
    assert str(caught.value).replace("\n", "").isprintable()


def test_nor_does_what_is_written_in_another_way() -> None:
    hello = f"hello version={wire.VERSION} spin_ps=1 cpus=1 kernel=6%1b%5d0%3bx%07%0a realtime=1"
    message = wire.decode(hello)
    assert isinstance(message, wire.Hello)
    assert message.kernel == r"6\x1b]0;x\x07\n"
    refusal = wire.decode("error code=range detail=a%0a%1b[31mb")
    assert refusal == wire.Refusal("range", r"a\n\x1b[31mb")
