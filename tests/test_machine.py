"""One machine and its host: paused while it idles, replaced when it dies, stopped whatever happens."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runner.data.reuse import EarlierRun
from runner.deadline import Deadline
from runner.disturbance import ClockPair, DisturbanceLimits
from runner.errors import BootFailed, GuestDied, HostError, SessionLost, UnrepeatableError, UsageError
from runner.events import Event, JobEvent, Outcome, Run, RunResult, Validity
from runner.faults.recovery import Recovery
from runner.fleet import Phase
from runner.identity import measurement_identity
from runner.machines.kinds import simulated
from runner.machines.machine import Machine
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.monitors.channel import MonitorChannel
from runner.monitors.sqlite import SQLiteMonitor
from runner.queue.jobs import JobQueue
from runner.queue.lease import Job
from runner.queue.taskset_queue import TaskSetQueue
from runner.sessions.simulation import SimulationSession
from runner.specs import MachinePolicy, Reset
from tests.bench_host import Benches, BenchHost, BoxedSimulation, fault
from tests.fleet_samples import HANG_S, Sets, Tally, distributor, eventually, one, phases, wait_to_end


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
    """Four failures put the machine aside; it comes back twice, and each time one is enough."""
    benches = Benches(start=fault(lambda: BootFailed("no ready")))
    with distributor(tmp_path, benches.kind(MachinePolicy(max_failures=4, aside_s=0.01))) as fleet:
        fleet.add_job(Sets(2))
        with pytest.raises(HostError, match=r"no machine can work here: .*; 6 x guest, last: no ready"):
            fleet.wait(HANG_S)
    assert len(benches.hosts) == 6
    benches.check_all_stopped()


def test_each_start_after_a_failure_trusts_less(tmp_path: Path) -> None:
    """Also after the machine was put aside; and after a success it is trusted again."""
    benches, runs = Benches(start=fault(lambda: BootFailed("no ready"), 1, 2, 3)), Runs()
    policy = MachinePolicy(max_failures=2, aside_s=0.01)
    with distributor(tmp_path, benches.kind(policy, reset=Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(2), runs)
        wait_to_end(fleet)
        taken = fleet.get_distributor_state().recoveries
    steps = [Recovery.SNAPSHOT, Recovery.SNAPSHOT, Recovery.COLD_BOOT, Recovery.PROCESS]
    assert [host.recovery for host in benches.hosts] == [*steps, Recovery.SNAPSHOT]
    assert [run.recovery for run in runs.runs] == [Recovery.PROCESS, None]
    assert taken == {Recovery.SNAPSHOT: 1, Recovery.COLD_BOOT: 1, Recovery.PROCESS: 1}
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
    with distributor(tmp_path, benches.kind(MachinePolicy(aside_s=0.01))) as fleet:
        fleet.pause()
        fleet.add_job(one())
        with pytest.raises(HostError, match="cannot stand still"):
            fleet.wait(HANG_S)
    assert len(benches.hosts) == MachinePolicy().max_failures + 2
    benches.check_all_stopped()


def test_a_kill_that_hits_the_wake_up_of_a_host_loses_no_lease(tmp_path: Path) -> None:
    """The machine has taken a set and is waking its guest when the operator kills."""
    waking = threading.Event()

    def resume(bench: BenchHost) -> None:
        if bench.calls.count("resume") == 2:
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
    def start(bench: BenchHost) -> None:
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
    machine, seen, ended = alone(tmp_path, jobs(one()), Benches().kind())
    assert machine.state.phase is Phase.STARTING
    machine.start()
    machine.join(HANG_S)
    assert ended.is_set()
    assert seen == [Phase.RUNNING, Phase.IDLE, Phase.IDLE, Phase.CLOSED]
    assert (machine.state.n_done, machine.error, machine.closing) == (1, None, True)


def test_the_phases_of_a_bad_life(tmp_path: Path) -> None:
    benches = Benches(start=fault(lambda: BootFailed("no ready")))
    machine, seen, _ = alone(tmp_path, jobs(one()), benches.kind(MachinePolicy(max_failures=2)))
    machine.start()
    machine.join(HANG_S)
    assert seen == [Phase.RECOVERING, Phase.RECOVERING, Phase.ASIDE]
    assert isinstance(machine.error, BootFailed)
    assert (machine.standing.aside, machine.standing.n_asides) == (True, 1)


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


# A host per task set


def test_each_set_has_a_host_of_its_own(tmp_path: Path) -> None:
    benches, tally = Benches(), Runs()
    with distributor(tmp_path, benches.kind(reset=Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(5), tally)
        wait_to_end(fleet)
    tally.check_all_done_once(5)
    assert len(benches.hosts) == 5, "and none is made in vain"
    assert tally.positions == [1] * 5
    benches.check_all_stopped()


@pytest.mark.parametrize("reset", Reset)
def test_a_guest_behind_a_mailbox_is_never_resumed_by_the_machine(tmp_path: Path, reset: Reset) -> None:
    """It runs while it is asked something; the machine's part is to bring it up, and to end it."""
    benches, tally = Benches(), Tally()
    with distributor(tmp_path, benches.kind(session=BoxedSimulation, reset=reset)) as fleet:
        fleet.pause()
        fleet.add_job(Sets(3), tally)
        eventually(lambda: phases(fleet) == {"qemu1": "idle"})
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(3)
    assert set(benches.calls) == {"start", "stop"}
    benches.check_all_stopped()


def test_a_fresh_host_that_fails_costs_its_set_no_try(tmp_path: Path) -> None:
    """The next one is being made ready while a set runs: what goes wrong there is not that set's fault, nor the next one's."""
    benches, tally = Benches(start=fault(lambda: BootFailed("no ready"), 2, 4)), Tally()
    with distributor(tmp_path, benches.kind(MachinePolicy(max_tries=1), reset=Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(4), tally)
        wait_to_end(fleet)
    tally.check_all_done_once(4)
    assert len(benches.hosts) == 6
    benches.check_all_stopped()


def test_a_kill_ends_the_host_that_is_being_made_ready_too(tmp_path: Path) -> None:
    def start(bench: BenchHost) -> None:
        if len(benches.hosts) == 2:
            assert bench.killed.wait(HANG_S)

    benches, tally = Benches(start=start), Tally()
    kind = benches.kind(realtime_factor=0.01, reset=Reset.TASKSET)
    with distributor(tmp_path, kind) as fleet:
        fleet.add_job(Sets(3), tally)
        eventually(lambda: benches.calls.count("start") == 2)
        fleet.kill_all_machines()
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_running == 0
    benches.check_all_stopped()
    assert not tally.finished


def test_a_machine_that_is_closed_leaves_no_prepared_host(tmp_path: Path) -> None:
    benches, tally = Benches(), Tally()
    with distributor(tmp_path, benches.kind(realtime_factor=0.1, reset=Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(50), tally)
        eventually(lambda: benches.calls.count("start") >= 2)
        fleet.shut_down_all_machines()
        wait_to_end(fleet)
    assert 1 <= len(tally.finished) < 50
    benches.check_all_stopped()


# What a measurement depends on


class Runs(Tally):
    """Keeps what it is told of each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.results: list[RunResult] = []

    @property
    def positions(self) -> list[int]:
        return [run.position for run in self.runs]

    def __taskset_start__(self, run, *_) -> None:
        super().__taskset_start__(run)
        self.runs.append(run)

    def __taskset_finish__(self, run, result) -> None:
        super().__taskset_finish__(run, result)
        self.results.append(result)


def exact(benches: Benches, reset: Reset, **more) -> MachineKind:
    """Machines whose measurements repeat."""
    kind = benches.kind(session=BoxedSimulation, reset=reset)
    return replace(kind, validity=Validity.EXACT, settings=lambda: {"image": "0123"}, **more)


def measured(folder: Path, kind: MachineKind, n: int = 3, **more) -> Runs:
    """What monitors hear of `n` sets on one machine."""
    runs = Runs()
    with distributor(folder, kind, **more) as fleet:
        fleet.add_job(Sets(n), runs)
        wait_to_end(fleet)
    return runs


def test_on_a_host_for_all_sets_positions_count_and_identities_chain(tmp_path: Path) -> None:
    runs = measured(tmp_path, exact(Benches(), Reset.MACHINE)).runs
    assert [run.position for run in runs] == [1, 2, 3]
    predecessor = None
    for run in runs:
        predecessor = measurement_identity(run.taskset, {"image": "0123"}, files={}, predecessor=predecessor)
        assert run.identity == predecessor


def test_on_a_host_for_each_set_nothing_comes_before(tmp_path: Path) -> None:
    runs = measured(tmp_path, exact(Benches(), Reset.TASKSET)).runs
    assert [run.position for run in runs] == [1, 1, 1]
    for run in runs:
        assert run.identity == measurement_identity(run.taskset, {"image": "0123"}, files={})


@pytest.mark.parametrize("reset", Reset)
def test_run_ids_of_exact_measurements_are_the_same_next_time(tmp_path: Path, reset: Reset) -> None:
    one, other = (measured(tmp_path / name, exact(Benches(), reset), repeat=2) for name in ("one", "other"))
    ids = [run.run_id for run in one.runs]
    assert ids == [run.run_id for run in other.runs]
    assert len(set(ids)) == 6
    assert {result.validity for result in one.results} == {Validity.EXACT}


def test_run_ids_of_other_measurements_are_unique(tmp_path: Path) -> None:
    one, other = (measured(tmp_path / name, Benches().kind()) for name in ("one", "other"))
    ids = [run.run_id for run in (*one.runs, *other.runs)]
    assert len(set(ids)) == 6
    assert {run.identity for run in one.runs} == {None}


# Repeating


class Moody(BoxedSimulation):
    """Measures something else each time."""

    count = itertools.count()

    def events(self, deadline: Deadline) -> Iterator[Event]:
        for event in super().events(deadline):
            yield (
                JobEvent(event.job._replace(exec_ns=next(self.count)))
                if isinstance(event, JobEvent)
                else event
            )


@pytest.mark.parametrize(
    ("validity", "reset", "bad"),
    [
        (Validity.COMPUTED, Reset.TASKSET, True),
        (Validity.EXACT, Reset.TASKSET, True),
        (Validity.UNDISTURBED, Reset.TASKSET, False),
        (None, Reset.TASKSET, False),
        # Each measurement is another one there: of the same set after another past.
        (Validity.EXACT, Reset.MACHINE, False),
    ],
)
def test_tables_that_differ_where_they_must_not_make_the_set_bad(
    tmp_path: Path, validity: Validity | None, reset: Reset, bad: bool
) -> None:
    kind = replace(exact(Benches(), reset), validity=validity, open_session=lambda host: Moody())
    runs = measured(tmp_path, kind, 1, repeat=2)
    assert len(runs.bad) == bad
    if bad:
        (error,) = runs.of("bad")
        assert isinstance(error, UnrepeatableError)
        assert "repetitions 1 and 2 gave different job tables" in error.what


def test_tables_that_are_equal_are_what_repeating_is_for(tmp_path: Path) -> None:
    runs = measured(tmp_path, exact(Benches(), Reset.TASKSET), 3, repeat=4)
    assert not runs.bad
    assert [run.repetition for run in runs.runs] == [1, 2, 3, 4] * 3
    assert {result.table_sha256 for result in runs.results[:4]} == {runs.results[0].table_sha256}


# Reusing


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[EarlierRun]:
    """What three sets gave, each on a host of its own."""
    monitor = SQLiteMonitor(tmp_path / "results.sqlite")
    with distributor(tmp_path / "earlier", exact(Benches(), Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(3), monitor)
        wait_to_end(fleet)
    with closing(EarlierRun(tmp_path / "results.sqlite")) as earlier:
        yield earlier


def test_sets_that_are_known_need_no_host(tmp_path: Path, earlier: EarlierRun) -> None:
    benches = Benches()
    runs = measured(tmp_path, exact(benches, Reset.TASKSET), reuse=earlier)
    runs.check_all_done_once(3)
    assert benches.hosts == []
    assert {result.validity for result in runs.results} == {Validity.EXACT}
    for run, result in zip(runs.runs, runs.results, strict=True):
        assert result.reused_from == f"{run.run_id} in {tmp_path / 'results.sqlite'}"
        assert result.jobs


def test_sets_that_are_not_known_are_measured(tmp_path: Path, earlier: EarlierRun) -> None:
    benches = Benches()
    runs = measured(tmp_path, exact(benches, Reset.TASKSET), 5, reuse=earlier)
    runs.check_all_done_once(5)
    assert len(benches.hosts) == 2
    assert [result.reused_from is None for result in runs.results] == [False] * 3 + [True] * 2
    benches.check_all_stopped()


def test_a_set_after_others_is_not_the_set_that_was_measured_alone(
    tmp_path: Path, earlier: EarlierRun
) -> None:
    """Nor is anything known under other settings."""
    benches = Benches()
    kind = exact(benches, Reset.MACHINE)
    runs = measured(tmp_path, replace(kind, settings=lambda: {"image": "4567"}), reuse=earlier)
    runs.check_all_done_once(3)
    assert all(result.reused_from is None for result in runs.results)
    assert len(benches.hosts) == 1


def test_a_machine_that_cannot_tell_reuses_nothing(tmp_path: Path, earlier: EarlierRun) -> None:
    benches = Benches()
    runs = measured(tmp_path, benches.kind(), reuse=earlier)
    runs.check_all_done_once(3)
    assert all(result.reused_from is None for result in runs.results)


# Disturbance


class Drifting(SimulationSession):
    """The guest's clock loses `lost_ns` in each measurement from the first to the `n_bad`th."""

    def __init__(self, count: Iterator[int], n_bad: int) -> None:
        super().__init__()
        self._count = count
        self._n_bad = n_bad
        self._n_asked = 0
        self._ahead_ns = 0

    def clock_pair(self, deadline: Deadline) -> ClockPair:
        self._n_asked += 1
        if self._n_asked % 2 == 0 and next(self._count) < self._n_bad:
            self._ahead_ns -= 3_600_000_000_000
        return ClockPair(self._ahead_ns + 1_000 * self._n_asked, 1_000 * self._n_asked, 10)


def disturbed(n_bad: int, max_tries: int = 3) -> MachineKind:
    count = itertools.count()
    return MachineKind(
        open_host=None,
        open_session=lambda host: Drifting(count, n_bad),
        policy=MachinePolicy(max_tries=max_tries),
        limits=DisturbanceLimits(),
    )


def test_a_disturbed_measurement_is_repeated(tmp_path: Path) -> None:
    runs = measured(tmp_path, disturbed(2), 1)
    runs.check_all_done_once(1)
    assert [run.attempt for run in runs.runs] == [1, 2, 3]
    assert [stopped.outcome for stopped in runs.of("stop")] == [Outcome.DISTURBED] * 2
    assert "drift" in runs.of("stop")[0].error
    assert runs.of("stop")[0].jobs == ()
    (result,) = runs.results
    assert (result.validity, result.outcome) == (Validity.UNDISTURBED, Outcome.COMPLETED)
    assert result.disturbance is not None


def test_after_the_last_try_a_disturbed_measurement_is_kept_for_what_it_is(tmp_path: Path) -> None:
    runs = measured(tmp_path, disturbed(99), 2)
    runs.check_all_done_once(2)
    assert [run.attempt for run in runs.runs].count(3) == 2
    for result in runs.results:
        assert (result.validity, result.outcome) == (Validity.DISTURBED, Outcome.COMPLETED)
        assert "drift" in result.error
        assert result.jobs


# Leases


class LosesItsClock(SimulationSession):
    """Cannot tell the time at the first call."""

    calls = itertools.count()

    def clock_pair(self, deadline: Deadline) -> ClockPair | None:
        if next(self.calls) == 0:
            raise SessionLost("no pong")
        return None


def test_a_clock_that_cannot_be_read_loses_no_lease(tmp_path: Path) -> None:
    kind = MachineKind(open_host=None, open_session=lambda host: LosesItsClock(), limits=DisturbanceLimits())
    runs = measured(tmp_path, kind, 2)
    runs.check_all_done_once(2)
    assert runs.of("stop")[0].outcome is Outcome.INFRA_ERROR


def test_facts_that_cannot_be_told_lose_no_lease(tmp_path: Path) -> None:
    count = itertools.count()

    class Shy(BoxedSimulation):
        @property
        def facts(self) -> Mapping[str, str | int | float | None]:
            if next(count) == 0:
                raise SessionLost("says nothing of itself")
            return {}

    benches = Benches()
    kind = benches.kind(MachinePolicy(max_tries=1), session=Shy, reset=Reset.TASKSET)
    runs = measured(tmp_path, kind, 2)
    runs.check_all_done_once(2)
    benches.check_all_stopped()


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("error", [UsageError("no such image"), ZeroDivisionError("a bug")])
def test_settings_that_cannot_be_told_lose_no_lease(
    tmp_path: Path, earlier: EarlierRun, error: Exception, reuse: bool
) -> None:
    def settings() -> Mapping[str, str | int | float | None]:
        raise error

    benches = Benches()
    kind = exact(benches, Reset.TASKSET, policy=MachinePolicy(max_tries=1))
    queue = jobs(Sets(2))
    ended = threading.Event()
    machine = Machine(
        "qemu1",
        replace(kind, settings=settings),
        queue,
        folder=tmp_path,
        on_change=lambda: None,
        on_end=lambda one: ended.set(),
        reuse=earlier if reuse else None,
    )
    machine.start()
    machine.join(HANG_S)
    assert machine.error is error
    assert (queue.n_running, queue.n_left, queue.n_bad) == (0, 2, 0)
    benches.check_all_stopped()


def test_a_simulated_machine_computes_the_same_always(tmp_path: Path) -> None:
    runs = measured(tmp_path, simulated(), 2, repeat=2)
    assert {result.validity for result in runs.results} == {Validity.COMPUTED}
    assert [run.run_id for run in runs.runs] == [
        run.run_id for run in measured(tmp_path / "2", simulated(), 2, repeat=2).runs
    ]
