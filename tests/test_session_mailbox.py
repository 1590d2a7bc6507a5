"""The session through the mailbox: the contract of all sessions on real guests, exactness, deaths; and, with a guest of Python, damage."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.deadline import Deadline
from runner.errors import (
    GuestDied,
    MachineKilled,
    ProtocolError,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.events import ExitType, RefusedEvent, StartEvent
from runner.hosts.base import AbstractHost, HostPhase
from runner.model import OverrunPolicy, Policy, TaskSet
from runner.qemu.host import QemuHost
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.specs import Reach
from runner.units import NS_PER_US
from tests.bench_host import PeerHost
from tests.mailbox_peer import resealed
from tests.qemu_guests import PATIENCE_S, compiled, exiting, guest_spec
from tests.session_contract import MS, OnGuest, Transcript, endless, execution, known, one_shot, periodic, run

#: Where the guest's answer lies, from `docs/mailbox.md`.
GUEST_HEADER = range(0x80, 0xB8)
TASK_TABLE_AT = 0xC00


@contextmanager
def opened(host: AbstractHost) -> Iterator[MailboxSession]:
    """A session that is open, until the context ends."""
    with closing(MailboxSession(host)) as session:
        session.open(Deadline.after(PATIENCE_S))
        yield session


@contextmanager
def fresh(arch: str, folder: Path) -> Iterator[MailboxSession]:
    """A session to a guest that was just restored, and that dies hearing of its end, as a machine's does."""
    with QemuHost(guest_spec(arch, reach=Reach.MAILBOX), "qemu1", folder) as host:
        host.start(Deadline.after(PATIENCE_S))
        with opened(host) as session:
            host.watch(session.abort)
            yield session


class ThroughMailbox(OnGuest):
    """Each test has a guest of its own."""

    arch: ClassVar[str]
    hears_stop = False

    @pytest.fixture
    def session(self, tmp_path: Path) -> Iterator[AbstractSession]:
        with fresh(self.arch, tmp_path) as session:
            yield session

    @pytest.fixture
    def exec_tolerance_ns(self) -> int:
        """`spin` is exact to a microsecond, and a job's own bookkeeping costs some more."""
        return 10 * NS_PER_US


@pytest.mark.guest
class TestArm64(ThroughMailbox):
    """All of the contract."""

    arch = "arm64"


@pytest.mark.guest
class TestAmd64(ThroughMailbox):
    """Another kernel, another compiler's code, the same rules."""

    arch = "amd64"


# -- exactness ---------------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("arch", ["arm64", "amd64"])

SETS = {
    "preemption": TaskSet((periodic(5, 20, 0, 5), periodic(9, 30, 1, 3), periodic(12, 70, 2, 1))),
    "overload": TaskSet(
        (periodic(15, 20, 0, 6), periodic(17, 30, 1, 4)), overrun_policy=OverrunPolicy.KILL_AND_SKIP
    ),
    "deadline": TaskSet(
        tuple(periodic(c, t, n_jobs=4, policy=Policy.DEADLINE) for c, t in ((5, 20), (10, 40), (90, 100)))
    ),
    "idle": TaskSet((one_shot(1, offset_ns=3_000 * MS), one_shot(1, policy=Policy.OTHER))),
}


def sequence(arch: str, folder: Path, *tasksets: TaskSet) -> list[Transcript]:
    """What a fresh guest says of these sets, one after the other."""
    with fresh(arch, folder) as session:
        return [run(session, taskset) for taskset in tasksets]


@pytest.mark.guest
@both
@pytest.mark.parametrize("name", SETS)
def test_two_guests_say_the_same_of_a_set(arch: str, name: str, tmp_path: Path) -> None:
    """To the nanosecond, the instant of the start on the guest's own clock included."""
    (one,), (other,) = (sequence(arch, tmp_path, SETS[name]) for _ in range(2))
    assert one == other
    assert one.jobs
    assert any(isinstance(event, StartEvent) and event.t0_guest_ns > 0 for event in one.events)


@pytest.mark.guest
@both
def test_a_busy_host_changes_nothing(arch: str, tmp_path: Path) -> None:
    """Two guests at once, and a thread that takes the processor from both, against a guest alone."""
    (alone,) = sequence(arch, tmp_path / "alone", SETS["preemption"])
    told: dict[str, Transcript] = {}

    def measure(name: str) -> None:
        (told[name],) = sequence(arch, tmp_path / name, SETS["preemption"])

    threads = [threading.Thread(target=measure, args=(name,)) for name in ("qemu1", "qemu2")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sum(range(10_000))
    assert told == {"qemu1": alone, "qemu2": alone}


@pytest.mark.guest
@both
def test_a_sequence_of_sets_repeats_on_another_guest(arch: str, tmp_path: Path) -> None:
    """What ran before may be felt, but it is the same on each guest; the starts tell that one guest ran them all."""
    in_a_row = [SETS["preemption"], SETS["overload"], SETS["preemption"]]
    one = sequence(arch, tmp_path, *in_a_row)
    assert one == sequence(arch, tmp_path, *in_a_row)
    starts = [event.t0_guest_ns for said in one for event in said.events if isinstance(event, StartEvent)]
    assert starts == sorted(set(starts))


@pytest.mark.guest
@both
def test_spin_is_exact(arch: str, tmp_path: Path) -> None:
    """Jobs of 1 to 30 ms that nobody preempts use what they were asked to use, though the kernel's tick interrupts them.

    Not those that end within 0.1 ms after a tick, which there is every 4 ms: what it costs then is more than what is left.
    """
    tasks = tuple(one_shot(1.3 + 3.1 * idx, offset_ns=50 * MS * idx) for idx in range(10))
    (said,) = sequence(arch, tmp_path, TaskSet(tasks))
    for job in said.jobs:
        assert abs(known(job.exec_ns) - known(tasks[job.task_idx].spin_ns)) <= NS_PER_US, job


@pytest.mark.guest
def test_facts_are_what_the_task_loader_says(tmp_path: Path) -> None:
    with QemuHost(guest_spec(reach=Reach.MAILBOX), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        session = MailboxSession(host)
        assert session.facts == {}
        session.open(Deadline.after(PATIENCE_S))
        assert session.facts["kernel_release"] == host.facts.kernel_release
        assert session.facts["preempt_model"] == "PREEMPT_RT"
        assert isinstance(session.facts["spin_ps"], int)
        assert host.phase is HostPhase.PAUSED
        run(session, TaskSet((one_shot(1),)))
        assert host.phase is HostPhase.PAUSED, "it runs only while it is asked something"


# -- executables -------------------------------------------------------------------------------------------------------


@pytest.mark.guest
@both
def test_an_executable_travels_with_its_set(arch: str, tmp_path: Path) -> None:
    """Once, though two tasks run it; again with the next set; and it ends with the code that it was told."""
    program = exiting(arch, tmp_path)
    taskset = TaskSet((execution(program, "0"), execution(program, "3", priority_rank=1)))
    with QemuHost(guest_spec(arch, reach=Reach.MAILBOX), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        with opened(host) as session:
            for _ in range(2):
                jobs = run(session, taskset).jobs
                assert {(job.task_idx, job.exit_type, job.exit_code) for job in jobs} == {
                    (0, ExitType.EXIT, 0),
                    (1, ExitType.EXIT_ERROR, 3),
                }
                (n_files,) = struct.unpack_from("<I", host.mailbox, 0x0C)
                assert n_files == 1


@pytest.mark.guest
def test_an_executable_that_was_built_anew_is_taken_anew(tmp_path: Path) -> None:
    with fresh("arm64", tmp_path) as session:
        statuses = []
        for status in (4, 5):
            taskset = TaskSet((execution(exiting("arm64", tmp_path, default_status=status)),))
            statuses += [job.exit_code for job in run(session, taskset).jobs]
    assert statuses == [4, 5]


@pytest.mark.guest
@both
def test_an_executable_repeats_too(arch: str, tmp_path: Path) -> None:
    """Loading it, page by page, is part of its job."""
    program = exiting(arch, tmp_path)
    taskset = TaskSet((execution(program), execution(program, "7", priority_rank=1), periodic(2, 5, 2, 4)))
    assert sequence(arch, tmp_path, taskset) == sequence(arch, tmp_path, taskset)


# -- deaths ------------------------------------------------------------------------------------------------------------


def death(arch: str, folder: Path, program: Path) -> GuestDied:
    """How the guest ends that runs this program, long before its hour is over: a hang takes 20 s, times the host's load."""
    taskset = TaskSet((execution(program), periodic(1, 10, 1, 10)))
    with fresh(arch, folder) as session:
        session.start(taskset, Deadline.after(PATIENCE_S))
        began_s = time.monotonic()
        with pytest.raises(GuestDied) as caught:
            list(session.events(Deadline.after(3600.0)))
        assert time.monotonic() - began_s < 600
        with pytest.raises(GuestDied):
            run(session, TaskSet((one_shot(1),)))
    return caught.value


def script(folder: Path, *lines: str) -> Path:
    """A program for the guest's shell."""
    path = folder / "script"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    return path


@pytest.mark.guest
@both
def test_a_kernel_panic_is_why_the_events_end(arch: str, tmp_path: Path) -> None:
    panic = script(tmp_path, "echo 1 > /proc/sys/kernel/sysrq", "echo c > /proc/sysrq-trigger")
    died = death(arch, tmp_path, panic)
    assert "reset itself, as its kernel does after a panic" in died.what
    assert "sysrq" in died.evidence


@pytest.mark.guest
@both
def test_a_task_loader_that_dies_is_why_the_events_end(arch: str, tmp_path: Path) -> None:
    died = death(arch, tmp_path, script(tmp_path, "kill -9 $(pidof taskloader)"))
    assert "its task loader ended" in died.what
    assert "rtfleet: panic: the task loader ended (137)" in died.evidence


HOG = """
#include <sched.h>
int main(void)
{
    struct sched_param top = {99};
    if (sched_setscheduler(0, SCHED_FIFO, &top) != 0)
        return 1;
    for (;;)
        ;
}
"""


@pytest.mark.guest
@both
def test_a_hang_is_why_the_events_end(arch: str, tmp_path: Path) -> None:
    """A program that takes the processor for itself, above the supervisor: the guest's watchdog counts guest time."""
    died = death(arch, tmp_path, compiled(arch, tmp_path / "hog", HOG))
    assert "hangs: its watchdog" in died.what


@pytest.mark.guest
def test_real_time_that_is_up_is_a_lost_session(tmp_path: Path) -> None:
    with fresh("arm64", tmp_path) as session:
        session.start(endless(), Deadline.after(PATIENCE_S))
        with pytest.raises(SessionLost, match=r"qemu1: .*did not answer within 0.5 s of real time") as caught:
            list(session.events(Deadline.after(0.5)))
        assert "machines.policy.taskset_timeout" in caught.value.next_step


# -- what a real guest would not show ----------------------------------------------------------------------------------

PAIR = TaskSet((periodic(3, 10, 0, 6), periodic(4, 20, 1, 3)), name="pair")
OTHER = TaskSet((periodic(3, 10, 0, 6), periodic(5, 20, 1, 3)), name="other")


def asked(host: PeerHost, *tasksets: TaskSet) -> list[Transcript]:
    """What the session makes of the answers."""
    with opened(host) as session:
        return [run(session, taskset) for taskset in tasksets]


def test_a_guest_of_python_is_understood() -> None:
    said, again = asked(PeerHost(), PAIR, PAIR)
    assert said == again
    assert len(said.jobs) == 9
    refused = TaskSet(tuple(periodic(20, 50, policy=Policy.DEADLINE) for _ in range(3)))
    (said,) = asked(PeerHost(), refused)
    assert said.refused == [RefusedEvent(2, 16, "EBUSY")]


@given(data=st.data())
def test_no_damage_makes_a_wrong_number(data: st.DataObject) -> None:
    """A byte of header, task table, text or records that is another one: noticed, or without any meaning."""
    (whole,) = asked(PeerHost(), PAIR)

    def damage(region: mmap.mmap) -> None:
        text_at, text_bytes = struct.unpack_from("<QQ", region, 0x98)
        places = [
            *GUEST_HEADER,
            *range(TASK_TABLE_AT, TASK_TABLE_AT + 32),
            *range(text_at, text_at + text_bytes),
        ]
        for entry in range(TASK_TABLE_AT, TASK_TABLE_AT + 32, 16):
            at, n_records = struct.unpack_from("<QQ", region, entry)
            places += range(at, at + 56 * n_records)
        place = data.draw(st.sampled_from(places))
        region[place] ^= data.draw(st.integers(1, 255))

    try:
        (said,) = asked(PeerHost(damage), PAIR)
    except ProtocolError:
        return
    assert said == whole


def test_records_that_were_torn_are_no_answer() -> None:
    """The header says what it should, but the last records never arrived."""

    def tear(region: mmap.mmap) -> None:
        at, n_records = struct.unpack_from("<QQ", region, TASK_TABLE_AT + 16)
        region[at : at + 56 * n_records] = bytes(56 * n_records)

    with pytest.raises(ProtocolError, match="CRC"):
        asked(PeerHost(tear), PAIR)


def test_the_last_answer_again_is_no_answer() -> None:
    """It was whole and right when it was given, to another request."""
    kept: list[bytes] = []

    def replay(region: mmap.mmap) -> None:
        if kept:
            region[:] = kept[0]
        kept.append(region[:])

    with pytest.raises(ProtocolError, match="request 1"):
        asked(PeerHost(replay), PAIR, PAIR)


def test_an_answer_to_another_set_is_no_answer() -> None:
    """Whole, right, of this very request: but of a set that nobody asked for."""
    foreign = PeerHost()
    asked(foreign, OTHER)
    answer = foreign.mailbox[:]

    def swap(region: mmap.mmap) -> None:
        asked_for = region[:0x80], region[0x400:TASK_TABLE_AT], region[0x1000:0x2000]
        region[:] = answer
        region[:0x80], region[0x400:TASK_TABLE_AT], region[0x1000:0x2000] = asked_for

    with pytest.raises(ProtocolError, match="acceptance"):
        asked(PeerHost(swap), PAIR)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, 1, "release"),  # release_ns: not the nominal one
        (32, 7, "job"),  # not the job that was due
        (52, 99, "exit type"),
        (54, 1, "task 0"),
    ],
)
def test_sealed_nonsense_is_no_answer(at: int, value: int, said: str) -> None:
    """Checksums that agree with what cannot be."""

    def lie(region: mmap.mmap) -> None:
        (first,) = struct.unpack_from("<Q", region, TASK_TABLE_AT)
        struct.pack_into("<h", region, first + at, value)
        resealed(region)

    with pytest.raises(ProtocolError, match=said):
        asked(PeerHost(lie), PAIR)


def test_a_bell_without_an_answer_is_the_end_of_the_guest() -> None:
    """The kernel's panic, or init giving up: it shows in what the console said."""

    def silence(region: mmap.mmap) -> None:
        region[0x80:0xB8] = bytes(0x38)

    with pytest.raises(GuestDied, match="the guest gave up") as caught:
        asked(PeerHost(silence), PAIR)
    assert caught.value.evidence == "the console's last words"


def test_a_mailbox_without_a_hello_opens_no_session() -> None:
    host = PeerHost()
    host.mailbox[0x80:0xB8] = bytes(0x38)
    with pytest.raises(ProtocolError, match="empty"), opened(host):
        pass


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("error code=set_up detail=no%20memory", RunnerError),
        ("error code=capacity detail=full", TaskSetError),
        ("error code=mailbox detail=damaged", ProtocolError),
        ("error code=nonsense detail=-", ProtocolError),
    ],
)
def test_a_refusal_is_somebodys_fault(line: str, error: type[RunnerError]) -> None:
    host = PeerHost()
    host.damage = lambda region: host.peer.write([line], [], state=2, sequence=1, at=0x80000)
    with pytest.raises(error):
        asked(host, PAIR)


def test_a_set_that_has_no_room_is_refused_before_the_guest_runs() -> None:
    host = PeerHost()
    with opened(host) as session:
        with pytest.raises(TaskSetError, match="MiB of mailbox") as caught:
            session.start(endless(), Deadline.after(PATIENCE_S))
        assert "machines.qemu.mailbox_mib" in caught.value.next_step
        assert host.calls == []


@pytest.mark.parametrize("name", ["missing", "a folder"])
def test_an_unreadable_executable_is_the_task_sets_fault(name: str, tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    with opened(PeerHost()) as session:
        with pytest.raises(TaskSetError, match="cannot be read") as caught:
            session.start(TaskSet((execution(f"{tmp_path}/{name}"),)), Deadline.after(PATIENCE_S))
        assert "workload_args.path" in caught.value.next_step
        assert run(session, PAIR).jobs, "the session stays usable"


def test_an_abort_ends_the_guest_and_is_why_the_events_end() -> None:
    """From another thread, while the guest runs."""
    error = MachineKilled("the operator killed it")
    running = threading.Event()

    class Hangs(PeerHost):
        def run_until_bell(self, deadline: Deadline) -> None:
            running.set()
            assert self.killed.wait(PATIENCE_S)
            raise GuestDied("QEMU was ended by SIGKILL")

    host = Hangs()
    with opened(host) as session:
        session.start(PAIR, Deadline.after(PATIENCE_S))

        def abort() -> None:
            assert running.wait(PATIENCE_S)
            session.abort(error)
            session.abort(MachineKilled("again"))

        thread = threading.Thread(target=abort)
        thread.start()
        with pytest.raises(MachineKilled) as caught:
            list(session.events(Deadline.after(PATIENCE_S)))
        thread.join()
        assert caught.value is error
        calls: list[Callable[[], object]] = [
            lambda: session.start(PAIR, Deadline.after(1.0)),
            lambda: session.events(Deadline.after(1.0)),
            lambda: session.stop(Deadline.after(1.0)),
            lambda: session.open(Deadline.after(1.0)),
        ]
        for call in calls:
            with pytest.raises(MachineKilled) as caught:
                call()
            assert caught.value is error


def test_calls_in_the_wrong_order_say_what_to_do() -> None:
    host = PeerHost()
    with pytest.raises(UsageError, match="not open"):
        MailboxSession(host).start(PAIR, Deadline.after(1.0))
    with opened(host) as session:
        with pytest.raises(UsageError, match="no task set was started"):
            session.events(Deadline.after(1.0))
        session.start(PAIR, Deadline.after(1.0))
        with pytest.raises(UsageError, match="before the last one ended"):
            session.start(PAIR, Deadline.after(1.0))
        with pytest.raises(UsageError, match="session parameters"):
            session.configure(("unknown",))
