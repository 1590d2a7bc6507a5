"""The session over SSH on real guests: the contract of all sessions, and what is its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabric
import paramiko
import pytest

from runner.deadline import Deadline
from runner.disturbance import DisturbanceLimits, drift_ns, verdict
from runner.errors import (
    GuestDied,
    HostError,
    ProtocolError,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.events import Disturbance, ExitType, JobEvent
from runner.hosts.base import AbstractHost, HostPhase
from runner.model import Task, TaskSet
from runner.qemu.console_link import read_link
from runner.qemu.host import QemuHost
from runner.qemu.noise import NoiseMeter
from runner.sessions.base import AbstractSession
from runner.sessions.ssh import SshSession
from runner.specs import Clock, Reach
from runner.task_loader.wire import VERSION
from runner.units import NS_PER_MS, NS_PER_S, NS_PER_US
from tests.qemu_guests import PATIENCE_S, exiting, guest_spec
from tests.session_contract import MS, OnGuest, Transcript, endless, execution, one_shot, periodic, run
from tests.ssh_endpoint import Endpoint, new_key, public_line

pytestmark = pytest.mark.guest


@contextmanager
def opened(host: QemuHost, **settings: Any) -> Iterator[SshSession]:
    """A session that is open, until the context ends."""
    with closing(SshSession(host, **settings)) as session:
        session.open(Deadline.after(PATIENCE_S))
        yield session


def started(arch: str, folder: Path, **settings: Any) -> QemuHost:
    """A paused guest."""
    host = QemuHost(guest_spec(arch, reach=Reach.SSH, **settings), "qemu1", folder)
    host.start(Deadline.after(PATIENCE_S))
    return host


def shell(host: QemuHost, command: str) -> str:
    """What a command prints in the guest, over a connection of its own; '' if the guest does not survive it."""
    kwargs = {"key_filename": str(host.credentials.client_key), "allow_agent": False, "look_for_keys": False}
    address, port = host.ssh_address
    with fabric.Connection(address, user="root", port=port, connect_kwargs=kwargs) as connection:
        try:
            result = connection.run(command, hide=True, in_stream=False, warn=True, timeout=PATIENCE_S)
        except (OSError, EOFError, paramiko.SSHException):
            return ""
        return str(result.stdout)


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuHost]:
    """One guest for all tests that leave it well; paused between them, so that it costs nothing."""
    with started("arm64", tmp_path_factory.mktemp("arm64")) as host:
        yield host


@pytest.fixture(scope="module")
def amd64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuHost]:
    with started("amd64", tmp_path_factory.mktemp("amd64")) as host:
        yield host


@pytest.fixture
def host(arm64: QemuHost) -> Iterator[QemuHost]:
    """The shared guest, running."""
    arm64.resume()
    yield arm64
    arm64.pause()


@pytest.fixture
def session(host: QemuHost) -> Iterator[AbstractSession]:
    with opened(host) as session:
        yield session


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[QemuHost]:
    """A guest that a test may ruin, running."""
    with started("arm64", tmp_path) as host:
        host.resume()
        yield host


class TestArm64(OnGuest):
    """All of the contract."""

    @pytest.fixture
    def session(self, host: QemuHost) -> Iterator[AbstractSession]:
        with opened(host) as session:
            yield session

    def test_facts_are_what_the_task_loader_says(self, session: AbstractSession, arm64: QemuHost) -> None:
        assert session.facts["kernel_release"] == arm64.facts.kernel_release
        assert session.facts["preempt_model"] == "PREEMPT_RT"
        assert isinstance(session.facts["spin_ps"], int)


class TestAmd64(OnGuest):
    """Another kernel, another compiler's code, the same rules."""

    @pytest.fixture
    def session(self, amd64: QemuHost) -> Iterator[AbstractSession]:
        amd64.resume()
        with opened(amd64) as session:
            yield session
        amd64.pause()


# -- executables -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("arm64", "amd64")  # both are made before the test, as its threads are watched
@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_an_executable_is_uploaded_once_and_runs(
    arch: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    host: QemuHost = request.getfixturevalue(arch)
    program = exiting(arch, tmp_path)
    host.resume()
    with opened(host) as session:
        taskset = TaskSet((execution(program, "0"), execution(program, "3", priority_rank=1)))
        jobs = run(session, taskset).jobs
        assert {(job.task_idx, job.exit_type, job.exit_code) for job in jobs} == {
            (0, ExitType.EXIT, 0),
            (1, ExitType.EXIT_ERROR, 3),
        }
        uploaded = shell(host, "ls -i /run/workloads")
        assert len(uploaded.splitlines()) == 1
        assert len(run(session, taskset).jobs) == 2
        assert shell(host, "ls -i /run/workloads") == uploaded, "the same file, not a new one"
    host.pause()


def test_an_executable_that_was_built_anew_is_uploaded_anew(session: AbstractSession, tmp_path: Path) -> None:
    statuses = []
    for status in (4, 5):
        taskset = TaskSet((execution(exiting("arm64", tmp_path, default_status=status)),))
        statuses += [job.exit_code for job in run(session, taskset).jobs]
    assert statuses == [4, 5]


@pytest.mark.parametrize("name", ["missing", "a folder"])
def test_an_unreadable_executable_is_the_task_sets_fault(
    session: AbstractSession, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a folder").mkdir()
    with pytest.raises(TaskSetError, match="cannot be read") as caught:
        session.start(TaskSet((execution(f"{tmp_path}/{name}"),)), Deadline.after(PATIENCE_S))
    assert "workload_args.path" in caught.value.next_step
    assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1, "the session stays usable"


def test_an_executable_without_room_is_the_task_sets_fault(
    session: AbstractSession, host: QemuHost, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    shell(host, "mkdir -p /run/workloads; dd if=/dev/zero of=/run/filling bs=64k")
    try:
        with pytest.raises(TaskSetError, match="could not store") as caught:
            session.start(TaskSet((execution(large),)), Deadline.after(PATIENCE_S))
        assert "No space left" in caught.value.evidence
        assert "memory_mib" in caught.value.next_step
        assert ".part" not in shell(host, "ls /run/workloads"), "nothing half is left"
    finally:
        shell(host, "rm /run/filling")
    assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1, "the session stays usable"


# -- who is at the other end -------------------------------------------------------------------------------------------


def refusal_of(
    host: AbstractHost, error: type[RunnerError], said: str, *, budget_s: float = PATIENCE_S, **settings: Any
) -> RunnerError:
    """What `open` raises."""
    with closing(SshSession(host, **settings)) as session, pytest.raises(error, match=said) as caught:
        session.open(Deadline.after(budget_s))
    return caught.value


def test_another_host_key_is_never_talked_to(host: QemuHost, tmp_path: Path) -> None:
    other = replace(host.credentials, host_key=public_line(new_key(tmp_path / "other")))
    refusal_of(Endpoint(host.ssh_address, other), SessionLost, "another host key")


def test_another_client_key_is_refused(host: QemuHost, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    other = replace(host.credentials, client_key=tmp_path / "other")
    refusal_of(Endpoint(host.ssh_address, other), SessionLost, "does not accept the image's key")


@pytest.mark.parametrize(
    "broken",
    [
        {"client_key": Path("/no/such/key")},
        {"host_key": "ssh-ed25519"},
        {"host_key": "ssh-ed25519 AAAA"},
        {"host_key": "ssh-ed25519 not base64"},
        {"host_key": ""},
    ],
    ids=str,
)
def test_unusable_keys_are_this_computers_fault(host: QemuHost, broken: dict[str, Any]) -> None:
    endpoint = Endpoint(host.ssh_address, replace(host.credentials, **broken))
    error = refusal_of(endpoint, HostError, "keys cannot be used")
    assert "host_setup image" in error.next_step


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        ("echo nonsense", ProtocolError, "no message of the protocol"),
        ("echo pong; sleep 60", ProtocolError, "pong has the keys"),
        ("echo accepted id=1", ProtocolError, "instead of hello"),
        (
            "echo hello version=99 spin_ps=1 cpus=1 kernel=k realtime=1",
            ProtocolError,
            f"version 99, not {VERSION}",
        ),
        ("printf hel", ProtocolError, "cut off"),
        ("cat /dev/zero", ProtocolError, "more than 4095 bytes"),
        (r"printf '\377\n'", ProtocolError, "no text"),
        ("true", SessionLost, "hung up"),
    ],
)
def test_what_is_no_task_loader_is_found_out(
    host: QemuHost, command: str, error: type[RunnerError], said: str
) -> None:
    refusal_of(host, error, said, command=command)


def test_a_task_loader_that_cannot_start_says_why(host: QemuHost) -> None:
    error = refusal_of(host, SessionLost, "hung up", command="no-such-program")
    assert error.evidence == "sh: no-such-program: not found\nexit status 127"


def test_a_task_loader_that_says_nothing_is_given_up_at_the_deadline(host: QemuHost) -> None:
    began_s = time.monotonic()
    refusal_of(host, SessionLost, r"qemu1: .*no answer within 1 s", budget_s=1.0, command="exec sleep 3600")
    assert time.monotonic() - began_s < 3.0


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_killed_qemu_is_why_the_events_end(own_host: QemuHost, tmp_path: Path) -> None:
    with opened(own_host) as session:
        own_host.watch(session.abort)
        session.start(endless(), Deadline.after(PATIENCE_S))
        events = session.events(Deadline.after(PATIENCE_S))
        next(events)
        killed_s = time.monotonic()
        os.kill(read_link(tmp_path).pid, signal.SIGKILL)
        with pytest.raises(GuestDied, match="SIGKILL"):
            list(events)
        assert time.monotonic() - killed_s < 2.0
        with pytest.raises(GuestDied, match="SIGKILL"):
            session.start(endless(), Deadline.after(PATIENCE_S))


def test_a_kernel_panic_is_why_the_events_end(own_host: QemuHost) -> None:
    with opened(own_host) as session:
        own_host.watch(session.abort)
        session.start(endless(), Deadline.after(PATIENCE_S))
        events = session.events(Deadline.after(PATIENCE_S))
        next(events)
        panic = threading.Thread(target=shell, args=(own_host, "echo c > /proc/sysrq-trigger"))
        panic.start()
        began_s = time.monotonic()
        with pytest.raises(GuestDied, match="reset itself") as caught:
            list(events)
        assert time.monotonic() - began_s < 10.0
        assert "Kernel panic" in caught.value.evidence
        panic.join()


def test_a_guest_that_died_before_the_session_opens_is_why_it_does_not(
    own_host: QemuHost, tmp_path: Path
) -> None:
    with closing(SshSession(own_host)) as session:
        own_host.watch(session.abort)
        os.kill(read_link(tmp_path).pid, signal.SIGKILL)
        with pytest.raises(GuestDied, match="SIGKILL"):
            session.open(Deadline.after(PATIENCE_S))


@pytest.mark.parametrize("how", ["KILL", "TERM", "SEGV"])
def test_a_task_loader_that_dies_is_a_lost_session(host: QemuHost, how: str) -> None:
    """The guest itself is well: the next session to it works."""
    with opened(host) as session:
        session.start(endless(), Deadline.after(PATIENCE_S))
        events = session.events(Deadline.after(10.0))
        next(events)
        # Its children have other names.
        shell(host, f"kill -{how} $(ps -o pid,comm | grep ' taskloader' | cut -c 1-5)")
        with pytest.raises((SessionLost, ProtocolError), match=r"hung up|cut off"):
            list(events)
    with opened(host) as session:
        assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1


def test_a_paused_guest_is_given_up_at_the_deadline(own_host: QemuHost) -> None:
    """Nothing comes and nothing breaks: the hardest of deaths. Each kind of call ends on time, and closing is quick."""
    unpaused = Endpoint(own_host.ssh_address, own_host.credentials)  # a host would be resumed by who opens
    with opened(own_host) as running, opened(own_host) as idle, closing(SshSession(unpaused)) as late:
        running.start(endless(), Deadline.after(PATIENCE_S))
        events = running.events(Deadline.after(1.0))
        next(events)
        own_host.pause()
        calls: list[Callable[[], object]] = [
            lambda: list(events),
            lambda: idle.start(endless(), Deadline.after(0.5)),
            lambda: late.open(Deadline.after(0.5)),
        ]
        for call in calls:
            began_s = time.monotonic()
            with pytest.raises(SessionLost, match=r"(qemu|endpoint)1: .*no answer within (1|0\.5) s"):
                call()
            assert time.monotonic() - began_s < 2.0
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 2.0


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_session_leaves_its_guest_as_it_finds_it(host: QemuHost) -> None:
    """Whether it runs is the machine's to say. One that stands still is not waited for at the end."""
    with opened(host) as session:
        for _ in range(3):
            assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1
            assert host.phase is HostPhase.RUNNING
            host.pause()
            host.resume()
        host.pause()
        began_s = time.monotonic()
        session.close()
        assert time.monotonic() - began_s < 5.0
        assert host.phase is HostPhase.PAUSED


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_a_guest_on_the_hosts_clock_keeps_its_time(arch: str, tmp_path: Path) -> None:
    """Exactly as far as can be told; when it stands still, so does its clock."""
    limits = DisturbanceLimits(clock_drift_fixed_ns=100 * NS_PER_MS)
    taskset = TaskSet((periodic(2, 20, 0, 20),), stop_ns=400 * MS)
    with ExitStack() as stack:
        host = stack.enter_context(started(arch, tmp_path, clock=Clock.HOST))
        host.resume()
        session = stack.enter_context(opened(host))
        meter = NoiseMeter(read_link(tmp_path).pid)
        before = session.clock_pair(Deadline.after(PATIENCE_S))
        meter.begin()
        assert len(run(session, taskset).jobs) == 20
        steal_ns, delay_ns = meter.end()
        after = session.clock_pair(Deadline.after(PATIENCE_S))
        drift = drift_ns(before, after, limits)
        assert drift is not None
        assert abs(drift) < limits.clock_drift_ns(after.host_ns - before.host_ns)
        # Whether it was disturbed depends on who else uses this computer; that it gets a verdict does not.
        seen = Disturbance(steal_ns=steal_ns, sched_delay_ns=delay_ns, clock_drift_ns=drift)
        validity, reason = verdict(seen, after.host_ns - before.host_ns, limits)
        assert "drift" not in reason, validity
        host.pause()
        time.sleep(0.5)
        host.resume()
        slept = drift_ns(after, session.clock_pair(Deadline.after(PATIENCE_S)), limits)
        assert slept is not None
        assert -10 * NS_PER_S < slept < -400 * NS_PER_MS


# -- endurance ---------------------------------------------------------------------------------------------------------


def test_a_long_stream_arrives_whole(session: AbstractSession) -> None:
    """More than fits into any buffer on the way: the guest's rings, the pipe, the window of the channel."""
    n_jobs = 10_000
    tasks = tuple(
        Task(period_ns=MS, wcet_ns=10 * NS_PER_US, priority_rank=rank, n_jobs=n_jobs) for rank in range(3)
    )
    transcript = run(session, TaskSet(tasks))
    assert Counter(job.task_idx for job in transcript.jobs) == dict.fromkeys(range(3), n_jobs)
    assert not transcript.end.stopped


def test_a_reader_that_is_slow_loses_nothing(session: AbstractSession) -> None:
    """The guest must not outrun a monitor that takes its time."""
    taskset = TaskSet((Task(period_ns=MS, wcet_ns=10 * NS_PER_US, n_jobs=5_000),))
    session.start(taskset, Deadline.after(PATIENCE_S))
    n_jobs = 0
    for event in session.events(Deadline.after(PATIENCE_S)):
        n_jobs += isinstance(event, JobEvent)
        if n_jobs % 500 == 1:
            time.sleep(0.05)
    assert n_jobs == 5_000


def test_many_tiny_sets_in_a_row(session: AbstractSession) -> None:
    for idx in range(200):
        transcript = run(session, TaskSet((one_shot(1 + idx / 1000),), stop_ns=10 * NS_PER_MS))
        assert len(transcript.jobs) == 1
        assert not transcript.end.stopped, idx


def test_a_stop_of_an_overloaded_set_is_no_worse_than_its_end(session: AbstractSession) -> None:
    """Three times what the processor can do, at real-time priorities: the network starves, so the set's own end comes first."""
    tasks = tuple(periodic(100, 100, rank, 100_000) for rank in range(3))
    session.start(TaskSet(tasks, stop_ns=20_000 * MS), Deadline.after(PATIENCE_S))
    events = session.events(Deadline.after(PATIENCE_S))
    first = next(events)
    time.sleep(0.1)
    session.stop(Deadline.after(10.0))
    transcript = Transcript((first, *events))
    assert transcript.end.stopped
    assert transcript.end.t_ns <= 20_001 * MS
    assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1, "the session takes the next set"


def test_a_connection_survives_pauses(session: AbstractSession, host: QemuHost) -> None:
    for _ in range(20):
        host.pause()
        time.sleep(0.01)
        host.resume()
        assert len(run(session, TaskSet((one_shot(1),))).jobs) == 1


def test_calls_in_the_wrong_order_say_what_to_do(session: AbstractSession, host: QemuHost) -> None:
    with pytest.raises(UsageError, match="no task set was started"):
        session.events(Deadline.after(1.0))
    session.start(endless(), Deadline.after(PATIENCE_S))
    with pytest.raises(UsageError, match="before the last one ended"):
        session.start(endless(), Deadline.after(PATIENCE_S))
    with pytest.raises(UsageError, match="opened before"):
        session.open(Deadline.after(PATIENCE_S))
    with pytest.raises(SessionLost, match="not open"):
        SshSession(host).start(endless(), Deadline.after(PATIENCE_S))
    with pytest.raises(UsageError, match="session parameters"):
        session.configure(("unknown",))
