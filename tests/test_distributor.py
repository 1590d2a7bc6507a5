"""The fleet: every task set ends exactly once, whatever machines, monitors and operators do meanwhile."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import Hey0TaskSet, StdoutMonitor, simulated
from runner.deadline import Deadline
from runner.distributor import Distributor
from runner.errors import (
    Fault,
    GuestDied,
    HostError,
    HostShortage,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.events import Event
from runner.fleet import Phase, RunState
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.monitors.base import AbstractMonitor
from runner.sessions.simulation import SimulationSession
from runner.specs import MachinePolicy
from tests.fleet_samples import (
    HANG_S,
    Plan,
    Sets,
    Tally,
    distributor,
    eventually,
    failing,
    faulty_kind,
    kind_of,
    one,
    phases,
    wait_to_end,
)

LOST = failing(lambda: SessionLost("the line is dead"))


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Whatever a test does, closing its fleet ends every thread."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Start a call elsewhere; what it raises is kept."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


# Work


@pytest.mark.parametrize("n_machines", range(1, 8))
@pytest.mark.parametrize("announced", [True, False])
def test_every_set_is_done_once(tmp_path: Path, n_machines: int, announced: bool) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(), n_machines) as fleet:
        fleet.add_job(Sets(50, announced=announced), tally)
        wait_to_end(fleet)
        state = fleet.get_distributor_state()
    tally.check_all_done_once(50)
    assert (state.n_total, state.n_done, state.n_bad, state.n_running) == (50, 50, 0, 0)
    assert state.machines == ()
    assert tally.machines <= {f"qemu{i}" for i in range(1, n_machines + 1)}


def test_the_example_for_a_plain_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `help(runner)`, but for the guests."""
    with Distributor(max_machine=1, kind=simulated(), folder=tmp_path) as fleet:
        fleet.add_job(Hey0TaskSet(), StdoutMonitor())
        wait_to_end(fleet)
    assert "Hey0TaskSet" in capsys.readouterr().out


def test_jobs_run_in_their_order(tmp_path: Path) -> None:
    order: list[str] = []

    class Order(AbstractMonitor):
        def __taskset_start__(self, run) -> None:
            order.append(run.taskset.name)

    with distributor(tmp_path, simulated()) as fleet:
        fleet.pause()
        monitor = Order()
        for number in (3, 1, 2):
            fleet.add_job(one(number), monitor)
        fleet.resume()
        wait_to_end(fleet)
    assert order == ["set3", "set1", "set2"]


def test_a_job_may_come_at_any_time(tmp_path: Path) -> None:
    """Machines leave when nothing is left; a job that comes just then must not be left lying."""
    tallies = []
    with distributor(tmp_path, simulated(), 3) as fleet:
        for number in range(60):
            tallies.append(Tally())
            fleet.add_job(Sets(2), tallies[-1])
            if number % 3 == 0:
                wait_to_end(fleet)
            elif number % 3 == 1:
                time.sleep(0.001)
        wait_to_end(fleet)
    for tally in tallies:
        tally.check_all_done_once(2)


def test_a_monitor_may_add_work(tmp_path: Path) -> None:
    """An adaptive experiment: the next set depends on a result. The call comes from the monitors' thread."""
    tally = Tally()
    with distributor(tmp_path, simulated(), 2) as fleet:

        class Adaptive(AbstractMonitor):
            def __taskset_finish__(self, run, result) -> None:
                fleet.add_job(one(99), tally)

        fleet.add_job(one(1), Adaptive())
        eventually(lambda: bool(tally.finished))
        wait_to_end(fleet)
    tally.check_all_done_once(1)


def test_nothing_to_do_is_over_at_once(tmp_path: Path) -> None:
    with distributor(tmp_path, simulated(), 2) as fleet:
        wait_to_end(fleet)
        fleet.add_job(Sets(0))
        wait_to_end(fleet)
        fleet.add_job(Sets(0, announced=False))
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_total == 0


def test_no_more_machines_than_sets(tmp_path: Path) -> None:
    """A guest that finds nothing to do was booted for nothing."""
    plan = Plan()
    with distributor(tmp_path, faulty_kind(plan, realtime_factor=0.1), 7) as fleet:
        fleet.add_job(Sets(2))
        wait_to_end(fleet)
    assert plan.calls["open"] == 2


def test_session_parameters_reach_the_session(tmp_path: Path) -> None:
    """Before the first set of the job, and not again for every set."""
    told: list[tuple[Any, ...]] = []

    class Configurable(SimulationSession):
        def configure(self, parameters: tuple[Any, ...]) -> None:
            told.append(parameters)

    with distributor(tmp_path, kind_of(Configurable)) as fleet:
        fleet.pause()
        fleet.add_job(Sets(2), (), "a", 1)
        fleet.add_job(Sets(2), (), "b")
        fleet.add_job(Sets(2))
        fleet.resume()
        wait_to_end(fleet)
    assert told == [("a", 1), ("b",), ()]


def test_parameters_that_no_session_understands_end_the_run(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated()) as fleet:
        fleet.add_job(one(), tally, "baud=9600")
        with pytest.raises(UsageError, match="takes no session parameters"):
            fleet.wait(HANG_S)
        assert fleet.get_distributor_state().n_running == 0
    # The monitors are told what it was, and not that it was a bug of ours.
    assert "takes no session parameters" in tally.of("stop")[0].error


# What fails


def test_infrastructure_failures_are_tried_again_on_a_fresh_session(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    fault = failing(lambda: SessionLost("the line is dead"), 3, 4, 9)
    with distributor(tmp_path, faulty_kind(plan, start=fault)) as fleet:
        fleet.add_job(Sets(10), tally)
        wait_to_end(fleet)
    tally.check_all_done_once(10)
    assert sum(tally.stopped.values()) == 3
    assert plan.calls["open"] == 4
    assert plan.calls["close"] >= 4


def test_a_set_that_always_fails_is_bad_and_the_run_goes_on(tmp_path: Path) -> None:
    victim = one(3).taskset_id

    class Allergic(SimulationSession):
        def start(self, taskset: TaskSet, deadline: Deadline) -> None:
            if taskset.taskset_id == victim:
                raise GuestDied("the guest panicked", fault=Fault.TASKSET)
            super().start(taskset, deadline)

    tally = Tally()
    with distributor(tmp_path, kind_of(Allergic, MachinePolicy(max_tries=2)), 2) as fleet:
        fleet.add_job(Sets(6), tally)
        wait_to_end(fleet)
        state = fleet.get_distributor_state()
    assert (state.n_done, state.n_bad, state.n_running) == (5, 1, 0)
    assert tally.bad == {victim: 1}
    assert tally.stopped == {victim: 2}
    assert len(tally.finished) == 5


def test_a_set_that_cannot_run_is_bad_at_once(tmp_path: Path) -> None:
    """And costs no session."""
    plan, tally = Plan(), Tally()
    with distributor(
        tmp_path, faulty_kind(plan, start=failing(lambda: TaskSetError("has no C"), 2))
    ) as fleet:
        fleet.add_job(Sets(3), tally)
        wait_to_end(fleet)
    assert (len(tally.finished), sum(tally.bad.values()), plan.calls["open"]) == (2, 1, 1)


def test_a_session_that_cannot_open_ends_its_machine_and_then_the_run(tmp_path: Path) -> None:
    plan = Plan()
    policy = MachinePolicy(max_failures=2, aside_s=0.01)
    with distributor(tmp_path, faulty_kind(plan, policy, open=LOST), 3) as fleet:
        fleet.add_job(Sets(10))
        with pytest.raises(HostError, match="guest, last: the line is dead"):
            fleet.wait(HANG_S)
        state = fleet.get_distributor_state()
        assert (state.n_done, state.n_running) == (0, 0)
        assert {machine.phase for machine in state.machines} == {Phase.ASIDE}
    assert plan.calls["open"] >= 3 * (2 + 2)


def test_a_session_that_opens_in_the_end_is_enough(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    fault = failing(lambda: SessionLost("not yet"), 1, 2)
    with distributor(tmp_path, faulty_kind(plan, MachinePolicy(max_failures=3), open=fault)) as fleet:
        fleet.add_job(Sets(2), tally)
        wait_to_end(fleet)
    tally.check_all_done_once(2)


def test_the_other_machines_go_on_without_one_that_cannot_start(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    fault = failing(lambda: HostShortage("no memory for this one"), 1)
    with distributor(tmp_path, faulty_kind(plan, open=fault, realtime_factor=1.0), 3) as fleet:
        fleet.add_job(Sets(20), tally)
        wait_to_end(fleet)
        assert plan.calls["open"] == 3
    tally.check_all_done_once(20)


def test_the_last_machine_that_fails_ends_the_run_even_beside_one_that_closes(tmp_path: Path) -> None:
    """The surplus machine that finishes its set is not somebody who goes on."""
    gates = {one(1).taskset_id: threading.Event(), one(2).taskset_id: threading.Event()}
    failing_now = threading.Event()

    class Gated(SimulationSession):
        def open(self, deadline: Deadline) -> None:
            if failing_now.is_set():
                raise HostError("no memory")
            super().open(deadline)

        def start(self, taskset: TaskSet, deadline: Deadline) -> None:
            assert gates[taskset.taskset_id].wait(HANG_S)
            if failing_now.is_set():
                raise SessionLost("the line is dead")
            super().start(taskset, deadline)

    with distributor(tmp_path, kind_of(Gated), 2) as fleet:
        fleet.add_job(Sets(None))
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        staying, surplus = (machine.taskset_id for machine in fleet.get_distributor_state().machines)
        fleet.set_max_machine_value(1)  # qemu2 is surplus from now on
        failing_now.set()
        gates[str(staying)].set()
        eventually(lambda: list(phases(fleet)) == ["qemu2"])
        gates[str(surplus)].set()
        with pytest.raises(HostError, match="no memory"):
            fleet.wait(3.0)


def test_rescaling_gives_a_failed_machine_another_chance(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    fault = failing(lambda: HostShortage("no memory for this one"), 1)
    with distributor(tmp_path, faulty_kind(plan, open=fault, realtime_factor=0.5), 2) as fleet:
        fleet.add_job(Sets(None), tally)
        eventually(lambda: sorted(phases(fleet).values()) == ["aside", "running"])
        (aside,) = (one for one in fleet.get_distributor_state().machines if one.phase is Phase.ASIDE)
        assert aside.until is not None
        fleet.set_max_machine_value(2)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        fleet.shut_down_all_machines()
        wait_to_end(fleet)


def test_another_chance_counts_also_for_a_machine_that_is_just_leaving(tmp_path: Path) -> None:
    """Its phase says that it is aside, but its thread is not yet gone."""
    fault = failing(lambda: HostShortage("no memory for this one"), 1)
    asked = threading.Event()

    def give_another_chance() -> None:
        if not asked.is_set() and "aside" in phases(fleet).values():
            asked.set()
            fleet.set_max_machine_value(2)

    kind = faulty_kind(Plan(), open=fault, realtime_factor=0.5)
    with Distributor(max_machine=2, kind=kind, folder=tmp_path, on_change=give_another_chance) as fleet:
        fleet.add_job(Sets(None), Tally())
        eventually(asked.is_set)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        fleet.shut_down_all_machines()
        wait_to_end(fleet)


def test_a_bug_reaches_the_caller_and_loses_no_lease(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    kind = faulty_kind(plan, start=failing(lambda: TypeError("a bug"), 2), realtime_factor=1.0)
    with distributor(tmp_path, kind, 2) as fleet:
        fleet.add_job(Sets(8), tally)
        with pytest.raises(TypeError, match="a bug"):
            fleet.wait(HANG_S)
        assert fleet.get_distributor_state().n_running == 0
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(8)
    assert "bug" in tally.of("stop")[0].error


def test_a_bug_in_what_a_session_says_of_itself_loses_no_lease(tmp_path: Path) -> None:
    class Mute(SimulationSession):
        @property
        def facts(self) -> dict[str, str | int | float | None]:
            raise TypeError("no facts")

    with distributor(tmp_path, kind_of(Mute)) as fleet:
        fleet.add_job(one())
        with pytest.raises(TypeError, match="no facts"):
            fleet.wait(HANG_S)
        assert fleet.get_distributor_state().n_running == 0


def test_events_that_stop_without_an_end_are_no_result(tmp_path: Path) -> None:
    """A session of the user's that forgets the `EndEvent`: an incomplete table must not become a label."""

    class Short(SimulationSession):
        def events(self, deadline: Deadline) -> Iterator[Event]:
            yield from list(super().events(deadline))[:-1]

    tally = Tally()
    with distributor(tmp_path, kind_of(Short, MachinePolicy(max_tries=2))) as fleet:
        fleet.add_job(one(), tally)
        wait_to_end(fleet)
    assert not tally.finished
    assert sum(tally.bad.values()) == 1


def test_a_source_that_breaks_ends_the_run_with_its_error(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(), 3) as fleet:
        fleet.add_job(Sets(10, fails_at=6), tally)
        with pytest.raises(ArithmeticError, match="the generator broke"):
            fleet.wait(HANG_S)
    tally.check_all_done_once(6)


def test_a_source_that_refuses_ends_the_run_with_its_error(tmp_path: Path) -> None:
    """Also where other machines are still at work: what is missing must not be taken for nothing to do."""

    class Refusing(Sets):
        def variants(self) -> Iterator[TaskSet]:
            yield from super().variants()
            raise HostError("the file of task sets is gone")

    with distributor(tmp_path, simulated(realtime_factor=1.0), 3) as fleet:
        fleet.add_job(Refusing(5, announced=False))
        with pytest.raises(HostError, match="is gone"):
            fleet.wait(HANG_S)


def test_a_faulty_monitor_neither_stops_nor_loses_anything(tmp_path: Path) -> None:
    class Broken(Tally):
        def __taskset_start__(self, run, *_) -> None:
            raise ValueError("no")

        def __taskset_finish__(self, run, result) -> None:
            raise ValueError("no")

        def __fleet_change__(self, state) -> None:
            raise ValueError("no")

    tally = Tally()
    with distributor(tmp_path, simulated(), 3) as fleet:
        fleet.add_job(Sets(30), [Broken(), tally])
        wait_to_end(fleet)
    tally.check_all_done_once(30)
    assert fleet.monitor_failures["Broken"] >= 60


def test_a_required_monitor_that_fails_ends_the_run_with_its_error(tmp_path: Path) -> None:
    class Required(AbstractMonitor):
        required = True

        def __taskset_finish__(self, run, result) -> None:
            raise HostError("the disk is full")

    with distributor(tmp_path, simulated(realtime_factor=1.0), 2) as fleet:
        fleet.add_job(Sets(None), Required())
        with pytest.raises(HostError, match="the disk is full"):
            fleet.wait(HANG_S)


def test_a_required_monitor_that_cannot_open_refuses_the_job(tmp_path: Path) -> None:
    class Required(AbstractMonitor):
        required = True

        def open(self) -> None:
            raise HostError("no such folder")

    with distributor(tmp_path, simulated()) as fleet:
        with pytest.raises(HostError, match="no such folder"):
            fleet.add_job(one(), Required())
        assert fleet.get_distributor_state().n_total == 0


def test_a_run_folder_that_vanishes_does_not_hang_the_run(tmp_path: Path) -> None:
    """A machine is to be replaced, and the folder for its logs cannot be made: the error comes out of `wait()`."""
    plan, gate = Plan(), threading.Event()

    def close(number: int) -> None:
        gate.wait(HANG_S)

    with distributor(tmp_path, faulty_kind(plan, close=close), machine_limit=1) as fleet:
        fleet.add_job(Sets(None))
        eventually(lambda: plan.calls["start"] > 2)
        fleet.kill_all_machines()
        eventually(lambda: plan.calls["close"] > 0)
        fleet.resume()
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in the way")
        gate.set()
        with pytest.raises(OSError, match="run"):
            fleet.wait(3.0)


def test_a_bug_in_on_change_ends_the_run_with_it(tmp_path: Path) -> None:
    """It is called by every machine, also at its very end: the run must not hang for it."""

    def changed() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError("a bug")

    with distributor(tmp_path, simulated(), 2, on_change=changed) as fleet:
        fleet.add_job(Sets(5))
        with pytest.raises(ZeroDivisionError, match="a bug"):
            fleet.wait(3.0)
        assert fleet.get_distributor_state().n_running == 0


def test_a_monitors_thread_that_dies_ends_the_run(tmp_path: Path) -> None:
    """No monitor may do this, but if one does, machines end, leases come back, and the reason comes out at the close."""

    class Fatal(BaseException):
        pass

    class Killer(AbstractMonitor):
        def __taskset_finish__(self, run, result) -> None:
            raise Fatal

    fleet = distributor(tmp_path, simulated(), 2)
    fleet.add_job(Sets(None), Killer())
    with pytest.raises(UsageError, match="closed"):
        fleet.wait(HANG_S)
    assert fleet.get_distributor_state().n_running == 0
    with pytest.raises(Fatal):
        fleet.close()


# Rescaling


def test_rescaling_up_is_immediate_and_down_finishes_first(tmp_path: Path) -> None:
    tally = Tally()
    kind = simulated(realtime_factor=0.1)  # a set takes 0.1 s
    with distributor(tmp_path, kind, 2) as fleet:
        fleet.add_job(Sets(None), tally)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        began_s = time.monotonic()
        fleet.set_max_machine_value(4)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 4)
        assert time.monotonic() - began_s < 0.5
        assert fleet.get_max_machine_value() == 4
        fleet.set_max_machine_value(1)
        assert len(phases(fleet)) == 4  # nobody is interrupted
        eventually(lambda: len(phases(fleet)) == 1, within_s=1.0)
        assert list(phases(fleet)) == ["qemu1"]
        fleet.shut_down_all_machines()
        wait_to_end(fleet)
    assert not tally.stopped
    assert tally.machines == {"qemu1", "qemu2", "qemu3", "qemu4"}


def test_a_surplus_machine_that_is_wanted_again_stays(tmp_path: Path) -> None:
    plan = Plan()
    with distributor(tmp_path, faulty_kind(plan, realtime_factor=0.1), 3) as fleet:
        fleet.add_job(Sets(None))
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 3)
        fleet.set_max_machine_value(1)
        fleet.set_max_machine_value(3)
        time.sleep(0.3)
        assert list(phases(fleet)) == ["qemu1", "qemu2", "qemu3"]
        assert plan.calls["open"] == 3
        fleet.kill_all_machines()
        wait_to_end(fleet)


def test_no_machine_at_all_and_then_some(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(), 0) as fleet:
        fleet.add_job(Sets(10), tally)
        assert not fleet.wait(0.05)
        assert phases(fleet) == {}
        fleet.set_max_machine_value(2)
        wait_to_end(fleet)
    tally.check_all_done_once(10)


@pytest.mark.parametrize("end", [Distributor.shut_down_all_machines, Distributor.kill_all_machines])
def test_the_end_reaches_a_waiter_where_no_machine_is(
    tmp_path: Path, end: Callable[[Distributor], None]
) -> None:
    """`machines: 0` in the control file, and then `state: drain`."""
    with distributor(tmp_path, simulated(), 0) as fleet:
        fleet.add_job(Sets(10))
        waiter, raised = in_thread(lambda: wait_to_end(fleet))
        time.sleep(0.05)
        end(fleet)
        waiter.join(2.0)
        assert not waiter.is_alive()
        assert not raised


@pytest.mark.parametrize("n", [-1, 8, 100])
def test_more_machines_than_the_limit_are_refused(tmp_path: Path, n: int) -> None:
    with distributor(tmp_path, simulated(), 3) as fleet:
        with pytest.raises(UsageError, match="the limit is 7"):
            fleet.set_max_machine_value(n)
        assert fleet.get_max_machine_value() == 3
    with pytest.raises(UsageError, match="the limit is 7"):
        distributor(tmp_path, simulated(), n)


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(realtime_factor=0.1), 9, machine_limit=9) as fleet:
        fleet.add_job(Sets(9), tally)
        wait_to_end(fleet)
    assert tally.machines == {f"qemu{i}" for i in range(1, 10)}


def test_random_rescaling_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """2,000 sets, 200 orders in quick succession, and sessions that fail now and then."""
    chance = random.Random(1)
    plan, tally = Plan(), Tally()

    def start(number: int) -> None:
        if number % 50 == 0:
            raise SessionLost("the line is dead")

    kind = faulty_kind(plan, MachinePolicy(max_tries=1000), start=start)
    with distributor(tmp_path, kind, 2) as fleet:
        fleet.add_job(Sets(2000, announced=False), tally)
        for _ in range(200):
            match chance.randrange(8):
                case 0:
                    fleet.pause()
                case 1:
                    fleet.shut_down_all_machines()
                case 2:
                    fleet.kill_all_machines()
                case _:
                    fleet.set_max_machine_value(chance.randrange(8))
                    fleet.resume()
            time.sleep(chance.random() * 0.004)
        fleet.set_max_machine_value(7)
        fleet.resume()
        assert fleet.wait(60.0), fleet.get_distributor_state()
        state = fleet.get_distributor_state()
    assert (state.n_total, state.n_done, state.n_bad, state.n_running) == (2000, 2000, 0, 0)
    tally.check_all_done_once(2000)


# Pause, drain, kill


def test_pause_keeps_the_machines_and_starts_nothing(tmp_path: Path) -> None:
    plan, tally = Plan(), Tally()
    with distributor(tmp_path, faulty_kind(plan, realtime_factor=0.2), 2) as fleet:
        fleet.add_job(Sets(40), tally)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        fleet.pause()
        eventually(lambda: list(phases(fleet).values()) == ["idle"] * 2)
        n_started = plan.calls["start"]
        assert not fleet.wait(0.15)
        state = fleet.get_distributor_state()
        assert (state.state, state.n_done, state.n_running) == (RunState.PAUSE, n_started, 0)
        assert plan.calls["start"] == n_started
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(40)
    assert plan.calls["open"] == 2


def test_a_machine_more_during_a_pause_gets_ready_and_waits(tmp_path: Path) -> None:
    with distributor(tmp_path, simulated(), 1) as fleet:
        fleet.pause()
        fleet.add_job(Sets(10))
        fleet.set_max_machine_value(3)
        eventually(lambda: list(phases(fleet).values()) == ["idle"] * 3)
        fleet.set_max_machine_value(1)
        eventually(lambda: list(phases(fleet)) == ["qemu1"])
        fleet.resume()
        wait_to_end(fleet)


def test_drain_finishes_what_runs_and_resume_the_rest(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(realtime_factor=0.2), 3) as fleet:
        fleet.add_job(Sets(20), tally)
        eventually(lambda: fleet.get_distributor_state().n_running == 3)
        fleet.shut_down_all_machines()
        wait_to_end(fleet)
        state = fleet.get_distributor_state()
        assert 3 <= state.n_done < 20
        assert state.n_running == 0
        assert not tally.stopped
        fleet.resume()
        wait_to_end(fleet)
    tally.check_all_done_once(20)


def test_an_endless_source_ends_with_the_fleet(tmp_path: Path) -> None:
    source, tally = Sets(None), Tally()
    with distributor(tmp_path, simulated(), 2) as fleet:
        fleet.add_job(source, tally)
        eventually(lambda: fleet.get_distributor_state().n_done > 20)
        assert fleet.get_distributor_state().n_total is None
        fleet.shut_down_all_machines()
        wait_to_end(fleet)
        n_done = fleet.get_distributor_state().n_done
    assert n_done == source.n_drawn  # what was drawn was measured; nothing was drawn ahead
    tally.check_all_done_once(n_done)


def test_kill_gives_leases_back_uncharged(tmp_path: Path) -> None:
    """With one try only, a charged kill would make the sets bad."""
    tally = Tally()
    policy = MachinePolicy(max_tries=1)
    with distributor(tmp_path, simulated(realtime_factor=0.001, policy=policy), 3) as fleet:
        fleet.add_job(Sets(3, period_ms=100), tally)  # 100 s each
        eventually(lambda: fleet.get_distributor_state().n_running == 3)
        began_s = time.monotonic()
        fleet.kill_all_machines()
        wait_to_end(fleet)
        assert time.monotonic() - began_s < 1.0
        state = fleet.get_distributor_state()
        assert (state.n_done, state.n_bad, state.n_running, state.machines) == (0, 0, 0, ())
    assert sum(tally.stopped.values()) == 3
    assert {result.outcome.value for result in tally.of("stop")} == {"aborted"}


def test_resume_after_a_kill_finishes_everything(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated(realtime_factor=0.2), 3) as fleet:
        fleet.add_job(Sets(12), tally)
        for _ in range(3):
            eventually(lambda: fleet.get_distributor_state().n_running > 0)
            fleet.kill_all_machines()
            fleet.resume()  # at once: the old machines are still on their way out
        wait_to_end(fleet)
    tally.check_all_done_once(12)
    assert tally.stopped


def test_a_kill_that_breaks_the_session_first_is_not_charged(tmp_path: Path) -> None:
    """The dying guest cuts the connection before the session hears of the kill: still no failure of the set."""

    class Cut(SimulationSession):
        def abort(self, error: RunnerError) -> None:
            super().abort(SessionLost("connection reset"))

    tally = Tally()
    kind = kind_of(lambda: Cut(realtime_factor=0.001), MachinePolicy(max_tries=1, max_failures=1))
    with distributor(tmp_path, kind) as fleet:
        fleet.add_job(one(), tally)
        eventually(lambda: fleet.get_distributor_state().n_running == 1)
        fleet.kill_all_machines()
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_bad == 0
    assert [result.outcome.value for result in tally.of("stop")] == ["aborted"]


def test_kill_during_the_start_of_a_machine_is_no_failure(tmp_path: Path) -> None:
    """A session that is being opened fails in its own way when it is torn down."""
    aborted = threading.Event()

    class Slow(SimulationSession):
        def open(self, deadline: Deadline) -> None:
            aborted.wait(HANG_S)
            raise SessionLost("connection reset")

        def abort(self, error: RunnerError) -> None:
            aborted.set()

    with distributor(tmp_path, kind_of(Slow, MachinePolicy(max_failures=1)), 2) as fleet:
        fleet.add_job(Sets(5))
        eventually(lambda: list(phases(fleet).values()) == ["starting"] * 2)
        time.sleep(0.05)
        fleet.kill_all_machines()
        wait_to_end(fleet)  # raises nothing
        assert fleet.get_distributor_state().n_bad == 0


def test_kill_while_idle(tmp_path: Path) -> None:
    with distributor(tmp_path, simulated(), 2) as fleet:
        fleet.pause()
        fleet.add_job(Sets(5))
        eventually(lambda: list(phases(fleet).values()) == ["idle"] * 2)
        fleet.kill_all_machines()
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_done == 0


# The end


def test_wait_has_a_timeout(tmp_path: Path) -> None:
    with distributor(tmp_path, simulated(realtime_factor=0.001)) as fleet:
        fleet.add_job(one(period_ms=100))
        began_s = time.monotonic()
        assert not fleet.wait(0.1)
        assert 0.1 <= time.monotonic() - began_s < 1.0


@pytest.mark.parametrize("n_machines", [0, 2])
def test_close_ends_a_wait_elsewhere(tmp_path: Path, n_machines: int) -> None:
    with distributor(tmp_path, simulated(realtime_factor=0.001), n_machines) as fleet:
        fleet.add_job(Sets(5, period_ms=100))
        waiter, raised = in_thread(lambda: wait_to_end(fleet))
        time.sleep(0.05)
        fleet.close()
        waiter.join(2.0)
        assert not waiter.is_alive()
        assert not raised
        fleet.close()  # again does nothing


def test_every_call_after_close_is_refused(tmp_path: Path) -> None:
    fleet = distributor(tmp_path, simulated())
    fleet.close()
    calls: list[Callable[[], object]] = [
        lambda: fleet.add_job(one()),
        lambda: fleet.set_max_machine_value(1),
        fleet.pause,
        fleet.resume,
        fleet.shut_down_all_machines,
        fleet.kill_all_machines,
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"after close\(\)") as caught:
            call()
        assert caught.value.next_step == "create a new Distributor"
    assert fleet.get_distributor_state().machines == ()


def test_closing_tells_the_monitors_everything_first(tmp_path: Path) -> None:
    tally = Tally()
    with distributor(tmp_path, simulated()) as fleet:
        fleet.add_job(Sets(100), tally)
        wait_to_end(fleet)
    tally.check_all_done_once(100)
    assert tally.told[-1] == ("close", None)
    last = tally.of("fleet")[-1]
    assert (last.n_done, last.machines) == (100, ())


def test_an_error_inside_the_block_closes_too(tmp_path: Path) -> None:
    def measure() -> None:
        with distributor(tmp_path, simulated(realtime_factor=0.001), 3) as fleet:
            fleet.add_job(Sets(None, period_ms=100))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()  # and `no_thread_left` sees that all machines are gone


# What can be seen


def test_each_machine_has_a_folder_and_a_log(tmp_path: Path) -> None:
    def event(number: int) -> None:
        if number == 1:
            raise SessionLost("the line is dead")

    with distributor(tmp_path, faulty_kind(Plan(), event=event, realtime_factor=0.5), 2) as fleet:
        fleet.add_job(Sets(4))
        wait_to_end(fleet)
    folders = sorted(path.name for path in (tmp_path / "run" / "machines").iterdir())
    assert folders == ["qemu1", "qemu2"]
    logs = [path.read_text() for path in sorted((tmp_path / "run" / "machines").glob("*/machine.log"))]
    assert sum("the line is dead" in log for log in logs) == 1  # in its own machine's log only


def test_every_change_is_told(tmp_path: Path) -> None:
    """What `on_change` announces is what one sees then: phases in their order, counts that only grow."""
    seen: list[Any] = []
    ready = threading.Event()

    def changed() -> None:
        if ready.is_set():
            seen.append(fleet.get_distributor_state())

    with distributor(tmp_path, simulated(), on_change=changed) as fleet:
        ready.set()
        fleet.add_job(Sets(3))
        wait_to_end(fleet)
        names = [state.machines[0].phase for state in seen if state.machines]
        assert Phase.RUNNING in names
        assert [state.n_done for state in seen] == sorted(state.n_done for state in seen)
        assert (seen[-1].n_done, seen[-1].machines) == (3, ())
        assert max(machine.n_done for state in seen for machine in state.machines) == 3


def test_the_state_is_plain_enough_for_json(tmp_path: Path) -> None:
    with distributor(tmp_path, simulated()) as fleet:
        assert json.dumps(fleet.get_distributor_state().state) == '"run"'


def test_kinds_are_values() -> None:
    """A policy of one's own reaches the machines' kind."""
    policy = MachinePolicy(max_tries=9)
    kind = simulated(policy=policy)
    assert isinstance(kind, MachineKind)
    assert kind.policy is policy
    with pytest.raises(UsageError, match="realtime_factor"):
        simulated(realtime_factor=-1.0).open_session(None)
