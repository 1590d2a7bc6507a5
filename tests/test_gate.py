"""What this computer is short of, on whole fleets: fewer machines, or none that gets a task set, until there is enough again."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner import simulated
from runner.admission import gate
from runner.admission.capacity import MIB, Needs, Reserves
from runner.admission.readings import read_host
from runner.distributor import Distributor
from runner.errors import HostError, HostShortage
from runner.machines.kinds import qemu_by_mailbox
from runner.monitors import listener
from runner.specs import MachinePolicy, QemuSpec
from runner.submission import Submission
from tests.fleet_samples import (
    Plan,
    Sets,
    Tally,
    distributor,
    eventually,
    failing,
    faulty_kind,
    phases,
    wait_to_end,
)
from tests.test_monitor_trouble import Blockable, Pipe

SLOW = simulated(realtime_factor=0.2)
NEED_BYTES = 2 << 30


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "INTERVAL_S", 0.05)
    monkeypatch.setattr(listener, "RETRY_S", 0.05)


def hungry(tmp_path: Path, room_for: float) -> dict[str, object]:
    """Machines of 2 GiB, and a reserve that leaves memory for so many of them. Other tests take and give back less."""
    available = read_host(tmp_path).memory_available_bytes
    return {
        "kind": replace(SLOW, needs=Needs(memory_bytes=NEED_BYTES)),
        "reserves": Reserves(memory_mib=(available - int(room_for * NEED_BYTES)) // MIB),
        "folder": tmp_path / "run",
    }


def test_too_little_memory_means_fewer_machines_said_once(tmp_path: Path, caplog) -> None:
    tally = Tally()
    with Distributor(5, **hungry(tmp_path, 2.5)) as fleet:  # type: ignore[arg-type]
        fleet.add_job(Sets(20), tally)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 2)
        state = fleet.get_distributor_state()
        assert (state.desired_machines, state.allowed_machines) == (5, 2)
        assert state.shortage.startswith("memory for 2: ")
        assert state.held == ""
        wait_to_end(fleet)
    tally.check_all_done_once(20)
    assert tally.machines == {"qemu1", "qemu2"}
    said = [line for line in caplog.messages if "fewer machines than wanted, 2 at most: memory for 2" in line]
    assert len(said) == 1


def test_one_machine_is_tried_however_little_there_is(tmp_path: Path) -> None:
    with Distributor(3, **hungry(tmp_path, -1.0)) as fleet:  # type: ignore[arg-type]
        fleet.add_job(Sets(3))
        wait_to_end(fleet)
        assert fleet.get_distributor_state().n_done == 3


def test_more_memory_than_there_is_ends_it_before_anything_is_started(tmp_path: Path) -> None:
    kind = replace(SLOW, needs=Needs(memory_bytes=1 << 60))
    with pytest.raises(HostError, match=r"a machine needs .* of memory, this computer has"):
        distributor(tmp_path, kind)
    with pytest.raises(HostError, match="are to stay free on the run folder's disk"):
        distributor(tmp_path, SLOW, reserves=Reserves(disk_mib=1 << 40))


def test_machines_follow_the_memory_down_and_up_again(tmp_path: Path, caplog) -> None:
    """Surplus ones finish their task set. Somebody takes as much as two and a half of them away, and gives it back."""
    arguments = hungry(tmp_path, 3.8)
    tally = Tally()
    with Distributor(3, **arguments) as fleet:  # type: ignore[arg-type]
        fleet.add_job(Sets(None), tally)
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 3)
        eater = bytearray(b"x") * (5 << 30)
        eventually(
            lambda: len(phases(fleet)) == 1 and fleet.get_distributor_state().allowed_machines == 1, 60
        )
        del eater
        eventually(lambda: list(phases(fleet).values()) == ["running"] * 3, 60)
        fleet.shut_down_all_machines()
        wait_to_end(fleet)
    assert not tally.bad
    assert not tally.stopped  # nobody was interrupted
    assert sum("fewer machines" in line for line in caplog.messages) == 1
    assert sum("as many machines as wanted again" in line for line in caplog.messages) == 1


def test_a_port_that_is_taken_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        spec = QemuSpec(ssh_port=port - 1)
        with pytest.raises(HostShortage, match=f"port {port} of 127.0.0.1, which machine 2 needs") as caught:
            distributor(tmp_path, qemu_by_mailbox(spec), 2)
    assert f"(process {os.getpid()})" in caught.value.what
    assert caught.value.where == "machines.qemu.ssh_port"
    assert not (tmp_path / "run").exists()


def test_a_blocked_monitor_holds_the_queue_and_lets_it_go(tmp_path: Path, caplog) -> None:
    tally, monitor = Tally(), Blocking()
    with distributor(tmp_path, SLOW, 2) as fleet:
        fleet.add_job(Sets(12), [tally, monitor])
        eventually(lambda: fleet.get_distributor_state().held == "monitor Blocking is blocked: no room")
        eventually(
            lambda: set(phases(fleet).values()) == {"idle"}
        )  # what ran has finished, the machines stay
        n_started = sum(tally.started.values())
        assert n_started < 12
        assert not fleet.wait(0.3)
        assert sum(tally.started.values()) == n_started
        monitor.room.set()
        wait_to_end(fleet)
        assert fleet.get_distributor_state().held == ""
    tally.check_all_done_once(12)
    assert (
        caplog.messages.count("held, no further task set is started: monitor Blocking is blocked: no room")
        == 1
    )
    assert caplog.messages.count("no longer held by the monitor Blocking; task sets are started") == 1


def test_reasons_and_the_operators_pause_hold_together(tmp_path: Path) -> None:
    first, second = Blocking(), Blocking()
    with distributor(tmp_path, SLOW) as fleet:
        fleet.add_job(Sets(6), [first, second])
        eventually(lambda: fleet.get_distributor_state().held.count("no room") == 2)
        eventually(lambda: set(phases(fleet).values()) == {"idle"})
        n_done = fleet.get_distributor_state().n_done
        fleet.pause()
        first.room.set()
        eventually(lambda: fleet.get_distributor_state().held.count("no room") == 1)
        fleet.resume()  # the other one still holds
        assert not fleet.wait(0.3)
        fleet.pause()
        second.room.set()
        eventually(lambda: fleet.get_distributor_state().held == "")
        assert not fleet.wait(0.3)
        assert fleet.get_distributor_state().n_done == n_done
        fleet.resume()
        wait_to_end(fleet)


@pytest.mark.parametrize("how", ["shut_down_all_machines", "kill_all_machines"])
def test_the_operator_can_end_what_is_held(tmp_path: Path, how: str, monkeypatch) -> None:
    monkeypatch.setattr(listener, "LAST_TRIES_S", 0.2)
    monitor = Blocking()
    with distributor(tmp_path, SLOW, 2) as fleet:
        fleet.add_job(Sets(50), monitor)
        eventually(lambda: fleet.get_distributor_state().held != "")
        getattr(fleet, how)()
        wait_to_end(fleet)
    assert monitor.told[-1] == ("close", None)


def test_a_run_ends_when_its_last_result_is_written(tmp_path: Path) -> None:
    """All sets are measured, but the disk is full: that pauses a run up to its very end."""
    monitor = Blocking()
    with distributor(tmp_path, simulated()) as fleet:
        fleet.add_job(Sets(1), monitor)
        eventually(lambda: fleet.get_distributor_state().n_done == 1)
        assert not fleet.wait(0.3)
        monitor.room.set()
        wait_to_end(fleet)
        assert monitor.n_kept == 0


def test_a_disk_that_has_less_than_the_reserve_holds_before_writes_fail(tmp_path: Path) -> None:
    free_mib = read_host(tmp_path).disk_free_bytes // MIB
    with distributor(tmp_path, simulated(), reserves=Reserves(disk_mib=free_mib + 1000)) as fleet:
        fleet.add_job(Sets(5))
        assert not fleet.wait(0.3)
        state = fleet.get_distributor_state()
        assert state.machines == ()
        assert state.n_running == state.n_done == 0
        assert "(machines.admission.disk_reserve_mib)" in state.held


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(listener, "STUCK_S", 0.3)
    monitor = Pipe()
    yield monitor
    monitor.shut()


def test_a_monitor_stuck_on_a_pipe_holds_the_run_which_goes_on_when_it_is_read(
    tmp_path: Path, pipe: Pipe
) -> None:
    data = Tally()
    data.required = True
    with distributor(tmp_path, simulated(realtime_factor=1.0), 2) as fleet:
        fleet.add_job(Sets(400), [pipe, data])
        eventually(lambda: "monitor Pipe is stuck in __taskset_event__" in fleet.get_distributor_state().held)
        eventually(lambda: set(phases(fleet).values()) == {"idle"})
        # The data set has all that was measured.
        eventually(lambda: sum(data.finished.values()) == fleet.get_distributor_state().n_done)
        n_done = fleet.get_distributor_state().n_done
        assert 0 < n_done < 400
        assert not fleet.wait(0.3)
        assert fleet.get_distributor_state().n_done == n_done
        pipe.read_on()
        wait_to_end(fleet)
    data.check_all_done_once(400)


def short(number: int) -> None:
    raise HostShortage("no memory for its mailbox")


def test_a_shortage_that_does_not_pass_ends_the_run(tmp_path: Path) -> None:
    plan = Plan()
    with distributor(tmp_path, faulty_kind(plan, MachinePolicy(aside_s=0.1), open=short), 2) as fleet:
        fleet.add_job(Sets(10))
        with pytest.raises(HostError, match="no memory for its mailbox"):
            fleet.wait(20)
    assert plan.calls["open"] > 2


def test_a_runner_that_has_no_memory_for_a_moment_tries_again(tmp_path: Path) -> None:
    """What Python itself raises then is no bug that ends the run."""
    plan, tally = Plan(), Tally()
    with distributor(tmp_path, faulty_kind(plan, open=failing(MemoryError, 1, 2, 3)), 2) as fleet:
        fleet.add_job(Sets(10), tally)
        eventually(lambda: "no memory left" in fleet.get_distributor_state().shortage)
        wait_to_end(fleet)
    tally.check_all_done_once(10)
    assert plan.calls["open"] <= 6  # once a look, not again and again


def test_a_runner_that_never_has_memory_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SHORT_S", 0.3)
    plan = Plan()
    with distributor(tmp_path, faulty_kind(plan, open=failing(MemoryError)), 2) as fleet:
        fleet.add_job(Sets(10))
        with pytest.raises(HostShortage, match="no memory left for the runner itself"):
            fleet.wait(20)
    assert plan.calls["open"] > 2


def test_a_shortage_while_the_run_is_held_costs_no_machine_its_standing(tmp_path: Path) -> None:
    """Guests cannot be started on a full disk; there will be room again, however late."""
    plan, tally, monitor = Plan(), Tally(), Blocking()
    starting = threading.Event()

    def fault(number: int) -> None:
        if not monitor.room.is_set():
            # It begins to start while all is well.
            eventually(lambda: fleet.get_distributor_state().held != "")
            starting.set()
            raise HostShortage("the disk is full")

    policy = MachinePolicy(aside_s=600.0, aside_max_s=600.0, max_asides=1)
    with distributor(tmp_path, faulty_kind(plan, policy, open=fault)) as fleet:
        fleet.add_job(Sets(5), [tally, monitor])
        eventually(lambda: plan.calls["open"] == 1)
        monitor.blocked = "no room"
        channel = fleet._dispatcher.channel((monitor,))
        channel.submission(Submission(number=9, source="a test"))
        assert starting.wait(5)
        assert not fleet.wait(0.5)
        monitor.room.set()
        wait_to_end(fleet)
    tally.check_all_done_once(5)


class Blocking(Blockable):
    """Blocked from its first result on."""

    def __taskset_event__(self, run, event) -> None:
        """Not kept: there are many."""

    def __submission__(self, submission) -> None:
        """Called for any job: time to look at `blocked`."""

    def __taskset_finish__(self, run, result) -> None:
        if not self.room.is_set():
            self.n_kept += 1
            self.blocked = "no room"

    required = True
