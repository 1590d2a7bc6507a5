"""One machine and its host: paused while it idles, replaced when it dies, stopped whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import BootFailed, GuestDied, HostError, MachineKilled, RunnerError
from runner.fleet import Phase
from runner.hosts import AbstractHost, BootKind, HostFacts, HostPhase, SshCredentials
from runner.machine import Machine, MachineKind
from runner.model import TaskSet
from runner.monitors.channel import MonitorChannel
from runner.queue import Job, JobQueue, TaskSetQueue
from runner.sessions.simulation import SimulationSession
from runner.specs import Accelerator, MachinePolicy
from tests.fleet_samples import HANG_S, Sets, Tally, distributor, eventually, one, wait_to_end


class Bench(AbstractHost):
    """A host without guest, which keeps the book of its calls; `faults[method]` is called at each of them."""

    def __init__(self, name: str, calls: list[str], faults: dict[str, Callable[[Bench], None]]) -> None:
        self._name = name
        self._calls = calls
        self._faults = faults
        self._phase = HostPhase.NEW
        self.killed = threading.Event()
        self.on_death: Callable[[GuestDied], None] = lambda error: None

    def _call(self, method: str, phase: HostPhase) -> None:
        self._calls.append(method)
        if method in self._faults:
            self._faults[method](self)
        if self.killed.is_set() and method != "stop":
            raise MachineKilled(f"host {self._name} was killed")
        self._phase = phase

    @property
    def name(self) -> str:
        return self._name

    @property
    def phase(self) -> HostPhase:
        return self._phase

    @property
    def facts(self) -> HostFacts:
        return HostFacts(
            name=self._name,
            arch="arm64",
            accel=Accelerator.TCG,
            icount_shift=3,
            vcpus=1,
            qemu_version="7.2.22",
            image_digest="0123",
            kernel_release="6.1.0-rt",
            boot=BootKind.SNAPSHOT,
            start_s=0.1,
        )

    @property
    def ssh_address(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    @property
    def credentials(self) -> SshCredentials:
        return SshCredentials("root", Path("key"), "ssh-ed25519 AAAA")

    def start(self, deadline: Deadline) -> None:
        self._call("start", HostPhase.PAUSED)

    def pause(self) -> None:
        self._call("pause", HostPhase.PAUSED)

    def resume(self) -> None:
        self._call("resume", HostPhase.RUNNING)

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        self.on_death = on_death

    def stop(self) -> None:
        self._call("stop", HostPhase.STOPPED)

    def kill(self) -> None:
        self.killed.set()


class Benches:
    """The hosts of one test."""

    def __init__(self, **faults: Callable[[Bench], None]) -> None:
        self.hosts: list[Bench] = []
        self.calls: list[str] = []
        self._faults = faults

    def kind(self, policy: MachinePolicy | None = None, realtime_factor: float | None = None) -> MachineKind:
        def open_host(name: str, folder: Path) -> AbstractHost:
            self.hosts.append(Bench(name, self.calls, self._faults))
            return self.hosts[-1]

        return MachineKind(
            open_host=open_host,
            open_session=lambda host: SimulationSession(realtime_factor=realtime_factor),
            policy=policy or MachinePolicy(),
        )

    def check_all_stopped(self) -> None:
        assert [host.phase for host in self.hosts] == [HostPhase.STOPPED] * len(self.hosts)
        assert self.calls.count("stop") == len(self.hosts)


def fault(error: Callable[[], RunnerError], *numbers: int) -> Callable[[Bench], None]:
    """Raise at the calls with these numbers, counted over all hosts; at every call if there are none."""
    count = iter(range(1, 1_000_000))

    def fail(bench: Bench) -> None:
        number = next(count)
        if not numbers or number in numbers:
            raise error()

    return fail


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_a_host_runs_only_while_it_works(tmp_path: Path) -> None:
    """An idle guest's virtual time would race, and cost a core."""
    benches, tally = Benches(), Tally()
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.add_job(Sets(3), tally)
        wait_to_end(fleet)
    assert benches.calls == ["start", "resume", "pause", "stop"]
    tally.check_all_done_once(3)


def test_a_paused_fleet_pauses_its_hosts(tmp_path: Path) -> None:
    benches, tally = Benches(), Tally()
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.pause()
        fleet.add_job(Sets(3), tally)
        eventually(lambda: benches.calls == ["start", "resume", "pause"])
        fleet.resume()
        wait_to_end(fleet)
    assert benches.calls[:4] == ["start", "resume", "pause", "resume"]
    tally.check_all_done_once(3)


def test_what_the_host_says_goes_with_every_attempt(tmp_path: Path) -> None:
    seen = []

    class Facts(Tally):
        def __taskset_start__(self, run, *_) -> None:
            seen.append(run.facts)

    with distributor(tmp_path, Benches().kind()) as fleet:
        fleet.add_job(one(), Facts())
        wait_to_end(fleet)
    (facts,) = seen
    assert (facts["arch"], facts["guest_image_sha256"], facts["boot"]) == ("arm64", "0123", "snapshot")
    assert "name" not in facts


def test_a_boot_that_fails_is_tried_again(tmp_path: Path) -> None:
    benches, tally = Benches(start=fault(lambda: BootFailed("no ready"), 1, 2)), Tally()
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.add_job(Sets(2), tally)
        wait_to_end(fleet)
    benches.check_all_stopped()
    assert len(benches.hosts) == 3
    tally.check_all_done_once(2)
    assert not tally.stopped  # no set was touched


def test_boots_that_always_fail_end_the_run(tmp_path: Path) -> None:
    benches = Benches(start=fault(lambda: BootFailed("no ready")))
    with distributor(tmp_path, benches.kind(MachinePolicy(max_start_failures=4))) as fleet:
        fleet.add_job(Sets(2))
        with pytest.raises(BootFailed, match="no ready"):
            fleet.wait(HANG_S)
    assert len(benches.hosts) == 4
    benches.check_all_stopped()


def test_a_computer_that_cannot_run_it_is_not_asked_again(tmp_path: Path) -> None:
    benches = Benches(start=fault(lambda: HostError("QEMU is missing")))
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.add_job(Sets(2))
        with pytest.raises(HostError, match="QEMU is missing"):
            fleet.wait(HANG_S)
    assert len(benches.hosts) == 1
    benches.check_all_stopped()


def test_a_guest_that_dies_at_work_is_replaced(tmp_path: Path) -> None:
    benches, tally = Benches(), Tally()
    with distributor(tmp_path, benches.kind(realtime_factor=0.1)) as fleet:
        fleet.add_job(Sets(2), tally)
        eventually(lambda: fleet.get_distributor_state().n_running == 1)
        benches.hosts[0].on_death(GuestDied("the guest panicked"))
        wait_to_end(fleet)
    tally.check_all_done_once(2)
    assert [result.outcome.value for result in tally.of("stop")] == ["guest_crash"]
    assert len(benches.hosts) == 2
    benches.check_all_stopped()


def test_a_guest_that_died_while_it_idled_costs_no_try(tmp_path: Path) -> None:
    """With a single try, a charge would make the set bad."""
    # Calls of `resume`: at the start, after the pause (fails), at the start of the next host.
    benches, tally = Benches(resume=fault(lambda: GuestDied("gone"), 2)), Tally()
    with distributor(tmp_path, benches.kind(MachinePolicy(max_tries=1))) as fleet:
        fleet.pause()
        fleet.add_job(one(), tally)
        eventually(lambda: "pause" in benches.calls)
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(1)
    benches.check_all_stopped()


def test_a_host_that_dies_whenever_it_idles_is_given_up(tmp_path: Path) -> None:
    """It comes up each time, so that only counting starts that came to nothing ends this."""
    benches = Benches(pause=fault(lambda: GuestDied("cannot stand still")))
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.pause()
        fleet.add_job(one())
        with pytest.raises(GuestDied, match="cannot stand still"):
            fleet.wait(3.0)
    assert len(benches.hosts) == MachinePolicy().max_start_failures
    benches.check_all_stopped()


def test_a_kill_that_hits_the_wake_up_of_a_host_loses_no_lease(tmp_path: Path) -> None:
    """The machine has taken a set and is waking its guest when the operator kills."""
    waking = threading.Event()

    def resume(bench: Bench) -> None:
        if bench._calls.count("resume") == 2:
            waking.set()
            assert bench.killed.wait(HANG_S)

    benches, tally = Benches(resume=resume), Tally()
    with distributor(tmp_path, benches.kind(MachinePolicy(max_tries=1))) as fleet:
        fleet.pause()
        fleet.add_job(one(), tally)
        eventually(lambda: "pause" in benches.calls)
        fleet.resume()
        assert waking.wait(HANG_S)
        fleet.kill_all_machines()
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_running == 0
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(1)
    benches.check_all_stopped()


def test_a_kill_interrupts_a_boot(tmp_path: Path) -> None:
    def start(bench: Bench) -> None:
        assert bench.killed.wait(HANG_S)

    benches = Benches(start=start)
    with distributor(tmp_path, benches.kind(), 3) as fleet:
        fleet.add_job(Sets(5))
        eventually(lambda: benches.calls == ["start"] * 3)
        fleet.kill_all_machines()
        wait_to_end(fleet)
    benches.check_all_stopped()


def test_a_host_that_cannot_be_stopped_is_an_error(tmp_path: Path) -> None:
    benches, tally = Benches(stop=fault(lambda: HostError("QEMU does not die"))), Tally()
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.add_job(Sets(2), tally)
        with pytest.raises(HostError, match="does not die"):
            fleet.wait(HANG_S)
    tally.check_all_done_once(2)  # what was measured stays


# Without a fleet


def alone(tmp_path: Path, queue: JobQueue, kind: MachineKind) -> tuple[Machine, list[Phase], threading.Event]:
    """A machine by itself, the phases that it goes through, and its end."""
    phases: list[Phase] = []
    ended = threading.Event()
    machine = Machine(
        "qemu1",
        kind,
        queue,
        folder=tmp_path,
        on_change=lambda: phases.append(machine.state.phase),
        on_end=lambda one: ended.set(),
    )
    return machine, phases, ended


def jobs(source: TaskSet | Sets) -> JobQueue:
    queue = JobQueue()
    queue.add(TaskSetQueue(Job(source, MonitorChannel((), lambda call: None))))
    return queue


def test_the_phases_of_a_life(tmp_path: Path) -> None:
    machine, phases, ended = alone(tmp_path, jobs(one()), Benches().kind())
    assert machine.state.phase is Phase.STARTING
    machine.start()
    machine.join(HANG_S)
    assert ended.is_set()
    assert phases == [Phase.RUNNING, Phase.IDLE, Phase.IDLE, Phase.CLOSED]
    assert (machine.state.n_done, machine.error, machine.closing) == (1, None, True)


def test_the_phases_of_a_bad_life(tmp_path: Path) -> None:
    benches = Benches(start=fault(lambda: BootFailed("no ready")))
    machine, phases, _ = alone(tmp_path, jobs(one()), benches.kind(MachinePolicy(max_start_failures=2)))
    machine.start()
    machine.join(HANG_S)
    assert phases == [Phase.RECOVERING, Phase.FAILED]
    assert isinstance(machine.error, BootFailed)


def test_a_closed_machine_can_be_reopened_until_it_has_left(tmp_path: Path) -> None:
    queue = jobs(Sets(1))
    queue.hold()
    machine, _, ended = alone(tmp_path, queue, Benches().kind())
    machine.close()
    assert [machine.closing, machine.reopen(), machine.closing] == [True, True, False]
    machine.start()
    eventually(lambda: machine.state.phase is Phase.IDLE)
    machine.close()
    machine.join(HANG_S)
    assert ended.is_set()
    assert not machine.reopen()
    assert queue.n_left == 1


def test_a_killed_machine_cannot_be_reopened(tmp_path: Path) -> None:
    benches = Benches()
    machine, _, ended = alone(tmp_path, jobs(Sets(1)), benches.kind())
    machine.kill()
    machine.kill()
    assert not machine.reopen()
    machine.start()
    machine.join(HANG_S)
    assert ended.is_set()
    assert (machine.error, benches.hosts) == (None, [])


def test_the_log_of_a_machine_lies_in_its_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runner.machine")
    machine, _, _ = alone(tmp_path, jobs(one()), Benches().kind())
    machine.start()
    machine.join(HANG_S)
    assert "qemu1 is up (snapshot, 0.10 s)" in (tmp_path / "machine.log").read_text()
    assert not logging.getLogger("runner.machine.qemu1").handlers
