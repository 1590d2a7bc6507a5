"""What a fleet does about what fails: step by step, told to the monitors, and for a while without those that go on failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import (
    BootFailed,
    Fault,
    GuestDied,
    HostError,
    HostShortage,
    InfrastructureError,
    ProtocolError,
    SessionLost,
)
from runner.events import Event, Run, Validity
from runner.faults.incidents import Incident
from runner.faults.recovery import SAME_GUEST, STEPS, Recovery
from runner.fleet import Phase
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.sessions.simulation import SimulationSession
from runner.specs import MachinePolicy, Reset
from tests.bench_host import Benches, fault
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

BRIEFLY_ASIDE = MachinePolicy(max_failures=2, aside_s=0.02, aside_max_s=0.1)
LONG_ASIDE = MachinePolicy(max_failures=1, aside_s=600.0, aside_max_s=600.0)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Heard(Tally):
    """Keeps runs and incidents."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.incidents: list[Incident] = []

    def __taskset_start__(self, run, *_) -> None:
        super().__taskset_start__(run)
        self.runs.append(run)

    def __incident__(self, incident) -> None:
        self.incidents.append(incident)

    @property
    def steps(self) -> list[Recovery | None]:
        return [incident.recovery for incident in self.incidents]


def sessions(
    error: Callable[[], InfrastructureError],
    n_failing: int,
    *,
    regains: bool = True,
) -> tuple[type[SimulationSession], list[str]]:
    """A class whose first sets fail, and the book of what its sessions were asked to do."""
    calls: list[str] = []
    n_started = 0

    class Session(SimulationSession):
        def open(self, deadline: Deadline) -> None:
            calls.append("open")
            super().open(deadline)

        def start(self, taskset: TaskSet, deadline: Deadline) -> None:
            nonlocal n_started
            n_started += 1
            self._number = n_started
            super().start(taskset, deadline)

        def events(self, deadline: Deadline) -> Iterator[Event]:
            events = super().events(deadline)
            if self._number <= n_failing:
                list(events)
                raise error()
            return events

        def regain(self, deadline: Deadline) -> bool:
            calls.append("regain")
            return regains

    return Session, calls


# Step by step


def test_garbage_is_met_with_a_question_first(tmp_path: Path) -> None:
    """And the guest stays, with the line to it."""
    session, calls = sessions(lambda: ProtocolError("garbage"), 1)
    benches, heard = Benches(), Heard()
    with distributor(tmp_path, benches.kind(session=session)) as fleet:
        fleet.add_job(Sets(2), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(2)
    assert calls == ["open", "regain"]
    assert len(benches.hosts) == 1
    assert heard.steps == [Recovery.MESSAGE]
    assert [run.recovery for run in heard.runs] == [None, Recovery.MESSAGE, None]
    assert [run.position for run in heard.runs] == [1, 2, 3], "what ran in vain has run all the same"


def test_the_steps_go_up_as_long_as_nothing_helps(tmp_path: Path) -> None:
    session, calls = sessions(lambda: ProtocolError("garbage"), 5)
    benches, heard = Benches(), Heard()
    policy = MachinePolicy(max_failures=9, max_guest_tries=9)
    with distributor(tmp_path, benches.kind(policy, session=session)) as fleet:
        fleet.add_job(one(), heard)
        wait_to_end(fleet)
        assert fleet.get_distributor_state().recoveries == dict.fromkeys(STEPS, 1)
    heard.check_all_done_once(1)
    assert heard.steps == list(STEPS)
    assert [run.recovery for run in heard.runs] == [None, *STEPS]
    assert calls == ["open", "regain", "open", "open", "open", "open"]
    assert [host.recovery for host in benches.hosts] == [Recovery.SNAPSHOT, *STEPS[2:]]
    assert [incident.attempt for incident in heard.incidents] == [1, 2, 3, 4, 5]
    benches.check_all_stopped()


def test_a_question_that_is_not_answered_is_not_the_last_resort(tmp_path: Path) -> None:
    """Both steps belong to one failed attempt; each is told."""
    session, calls = sessions(lambda: ProtocolError("garbage"), 1, regains=False)
    benches, heard = Benches(), Heard()
    with distributor(tmp_path, benches.kind(session=session)) as fleet:
        fleet.add_job(one(), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(1)
    assert calls == ["open", "regain", "open"]
    assert len(benches.hosts) == 1
    assert heard.steps == [Recovery.MESSAGE, Recovery.TASK_LOADER]


@pytest.mark.parametrize(
    ("reset", "validity"),
    [(Reset.TASKSET, None), (Reset.TASKSET, Validity.EXACT), (Reset.MACHINE, Validity.EXACT)],
)
def test_where_results_repeat_a_guest_that_failed_measures_nothing_more(
    tmp_path: Path, reset: Reset, validity: Validity | None
) -> None:
    session, calls = sessions(lambda: ProtocolError("garbage"), 1)
    benches, heard = Benches(), Heard()
    kind = replace(benches.kind(session=session, reset=reset), validity=validity)
    assert not kind.steps & SAME_GUEST
    with distributor(tmp_path, kind) as fleet:
        fleet.add_job(one(), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(1)
    assert heard.steps == [Recovery.SNAPSHOT]
    assert len(benches.hosts) == 2
    assert "regain" not in calls


def test_what_was_prepared_is_given_up_when_more_is_called_for(tmp_path: Path) -> None:
    """A guest per set: the next one was made ready from the snapshot that is not trusted any more."""
    session, _ = sessions(lambda: GuestDied("sick"), 2)
    benches, heard = Benches(), Heard()
    policy = MachinePolicy(max_failures=9)
    with distributor(tmp_path, benches.kind(policy, session=session, reset=Reset.TASKSET)) as fleet:
        fleet.add_job(Sets(4), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(4)
    assert heard.steps == [Recovery.SNAPSHOT, Recovery.COLD_BOOT]
    assert [host.recovery for host in benches.hosts].count(Recovery.COLD_BOOT) == 1
    benches.check_all_stopped()


# Told to the monitors


def test_an_incident_says_all_that_is_known(tmp_path: Path) -> None:
    session, _ = sessions(lambda: GuestDied("the guest panicked", fault=Fault.TASKSET), 9)
    heard, stranger = Heard(), Heard()
    with distributor(tmp_path, kind_of(session, MachinePolicy(max_tries=2))) as fleet:
        fleet.pause()
        fleet.add_job(one(5), heard)
        fleet.add_job(Sets(0), stranger)
        fleet.resume()
        wait_to_end(fleet)
    first, last = heard.incidents
    assert (first.what, first.fault, first.machine) == ("the guest panicked", Fault.TASKSET, "qemu1")
    assert (first.taskset_id, first.submission, first.set_idx) == (one(5).taskset_id, 1, 0)
    assert [first.attempt, last.attempt, first.repetition] == [1, 2, 1]
    assert (first.aside_s, first.evidence) == (None, "")
    assert last.evidence == f"bad/0-{one(5).taskset_id}"
    assert (tmp_path / "run" / last.evidence / "error.txt").exists()
    assert stranger.incidents == []


def test_a_start_that_fails_is_told_to_all(tmp_path: Path) -> None:
    benches, heard, other = Benches(start=fault(lambda: BootFailed("no ready"), 1)), Heard(), Heard()
    with distributor(tmp_path, benches.kind()) as fleet:
        fleet.add_job(one(1), heard)
        fleet.add_job(one(2), other)
        wait_to_end(fleet)
    (incident,) = heard.incidents
    assert (incident.fault, incident.taskset_id, incident.recovery) == (Fault.GUEST, None, Recovery.SNAPSHOT)
    assert [one.what for one in other.incidents] in (["no ready"], [])  # it may have come too late to hear it


def test_a_kill_is_no_incident(tmp_path: Path) -> None:
    heard = Heard()
    with distributor(tmp_path, Benches().kind(realtime_factor=0.001)) as fleet:
        fleet.add_job(one(), heard)
        eventually(lambda: fleet.get_distributor_state().n_running == 1)
        fleet.kill_all_machines()
        wait_to_end(fleet)
    assert heard.incidents == []
    assert heard.stopped


# Poison


def test_a_set_that_ruins_every_guest_is_bad_and_the_machine_is_not_to_blame(tmp_path: Path) -> None:
    """Its guests merely look sick; that the others' do not tells them apart."""
    poison = one(2).taskset_id

    class Sick(SimulationSession):
        def start(self, taskset: TaskSet, deadline: Deadline) -> None:
            if taskset.taskset_id == poison:
                raise ProtocolError("garbage")
            super().start(taskset, deadline)

    heard = Heard()
    with distributor(tmp_path, kind_of(Sick, MachinePolicy(max_failures=2, max_guest_tries=99))) as fleet:
        fleet.add_job(Sets(6), heard)
        wait_to_end(fleet)
        state = fleet.get_distributor_state()
    assert (state.n_done, state.n_bad) == (5, 1)
    assert heard.bad == {poison: 1}
    assert [one.fault for one in heard.incidents] == [Fault.GUEST, *[Fault.TASKSET] * 3]
    assert not [one for one in heard.incidents if one.aside_s is not None]


def test_a_full_disk_costs_no_verdict(tmp_path: Path) -> None:
    session, _ = sessions(lambda: GuestDied("panic", fault=Fault.TASKSET), 9)
    heard = Heard()
    with distributor(tmp_path, kind_of(session)) as fleet:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "bad").write_text("in the way")
        fleet.add_job(one(), heard)
        wait_to_end(fleet)
    assert sum(heard.bad.values()) == 1
    assert {incident.evidence for incident in heard.incidents} == {""}


# This computer


def test_what_this_computer_broke_waits_for_a_moment(tmp_path: Path) -> None:
    """Far more often than a set may ruin its guest."""
    session, _ = sessions(lambda: GuestDied("somebody ended QEMU", fault=Fault.HOST), 2)
    heard = Heard()
    policy = MachinePolicy(max_tries=1, max_guest_tries=1)
    began_s = time.monotonic()
    with distributor(tmp_path, kind_of(session, policy)) as fleet:
        fleet.add_job(one(), heard)
        wait_to_end(fleet)
    assert time.monotonic() - began_s >= 0.5 + 1.0
    heard.check_all_done_once(1)
    assert [incident.fault for incident in heard.incidents] == [Fault.HOST] * 2


def test_a_shortage_at_work_puts_the_machine_aside_and_loses_no_lease(tmp_path: Path) -> None:
    plan, heard = Plan(), Heard()
    kind = faulty_kind(plan, BRIEFLY_ASIDE, start=failing(lambda: HostShortage("no descriptors"), 1))
    with distributor(tmp_path, kind) as fleet:
        fleet.add_job(Sets(3), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(3)
    (incident,) = heard.incidents
    assert (incident.fault, incident.aside_s is not None) == (Fault.HOST, True)


# Aside


def test_a_machine_comes_back_on_probation_and_is_trusted_after_a_success(tmp_path: Path) -> None:
    """Two starts fail, and it is put aside; one more, and it is so again; then it works, and may fail once as in the beginning."""
    plan, heard = Plan(), Heard()
    kind = faulty_kind(plan, BRIEFLY_ASIDE, open=failing(lambda: SessionLost("no"), 1, 2, 3))
    kind = replace(kind, open_session=_spent_after(kind, 3))
    with distributor(tmp_path, kind) as fleet:
        fleet.add_job(Sets(6), heard)
        wait_to_end(fleet)
    heard.check_all_done_once(6)
    told = [(incident.what, incident.aside_s is not None) for incident in heard.incidents]
    assert told == [("no", False), ("no", True), ("no", True), ("worn out", False)]


def _spent_after(kind: MachineKind, n_sets: int) -> Callable[..., SimulationSession]:
    """Sessions that break after so many sets."""

    def open_session(host: object) -> SimulationSession:
        session = kind.open_session(None)
        assert isinstance(session, SimulationSession)
        start, n_started = session.start, 0

        def worn(taskset: TaskSet, deadline: Deadline) -> None:
            nonlocal n_started
            n_started += 1
            if n_started > n_sets:
                raise SessionLost("worn out")
            start(taskset, deadline)

        session.start = worn  # type: ignore[method-assign]
        return session

    return open_session


def test_others_go_on_while_one_is_aside(tmp_path: Path) -> None:
    benches, heard = Benches(start=fault(lambda: HostShortage("no memory"), 1)), Heard()
    with distributor(tmp_path, benches.kind(LONG_ASIDE, realtime_factor=1.0), 3) as fleet:
        fleet.add_job(Sets(30), heard)
        # Until when, is known once the machine has ended.
        eventually(lambda: any(machine.until for machine in fleet.get_distributor_state().machines))
        state = fleet.get_distributor_state()
        (aside,) = (machine for machine in state.machines if machine.phase is Phase.ASIDE)
        wait_to_end(fleet)
    heard.check_all_done_once(30)
    assert aside.name not in {run.machine for run in heard.runs}


@pytest.mark.parametrize("end", ["kill_all_machines", "shut_down_all_machines", "close"])
def test_who_is_aside_keeps_nobody_waiting(tmp_path: Path, end: str) -> None:
    benches = Benches(start=fault(lambda: BootFailed("no ready")))
    with distributor(tmp_path, benches.kind(LONG_ASIDE), 2) as fleet:
        fleet.add_job(Sets(3))
        eventually(lambda: list(phases(fleet).values()) == ["aside"] * 2)
        assert not fleet.wait(0.05), "there is work, and hope"
        began_s = time.monotonic()
        getattr(fleet, end)()
        if end != "close":
            wait_to_end(fleet)
        assert time.monotonic() - began_s < 5.0
    benches.check_all_stopped()


@pytest.mark.parametrize(
    "again", [lambda fleet: fleet.set_max_machine_value(1), lambda fleet: fleet.resume()]
)
def test_the_operator_ends_a_quarantine(tmp_path: Path, again: Callable[..., None]) -> None:
    benches, heard = Benches(start=fault(lambda: BootFailed("no ready"), 1)), Heard()
    with distributor(tmp_path, benches.kind(LONG_ASIDE)) as fleet:
        fleet.add_job(Sets(3), heard)
        eventually(lambda: phases(fleet) == {"qemu1": "aside"})
        again(fleet)
        wait_to_end(fleet)
    heard.check_all_done_once(3)


def test_a_run_that_has_measured_is_given_up_later(tmp_path: Path) -> None:
    """Three rounds for what never worked, eight for what did."""
    broken = threading.Event()

    class Breaking(SimulationSession):
        def open(self, deadline: Deadline) -> None:
            if broken.is_set():
                raise HostShortage("no memory any more")
            super().open(deadline)

        def start(self, taskset: TaskSet, deadline: Deadline) -> None:
            if broken.is_set():
                raise SessionLost("gone")
            super().start(taskset, deadline)
            broken.set()

    heard = Heard()
    policy = MachinePolicy(aside_s=0.01, aside_max_s=0.02)
    with distributor(tmp_path, kind_of(Breaking, policy)) as fleet:
        fleet.add_job(Sets(3), heard)
        with pytest.raises(HostError, match="8 x host, last: no memory any more") as caught:
            fleet.wait(HANG_S)
        assert fleet.get_distributor_state().n_running == 0
    assert "1 x guest, last: gone" in caught.value.what
    assert len(heard.finished) == 1
