"""A fleet over several worker processes: whatever happens to them, each task set is done once, with the table of one computer."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cluster_proof import RunFolder, options_of
from runner import simulated
from runner.cluster.crew import Crew
from runner.cluster.pool import Equipment, pool
from runner.cluster.shares import Seat, shares
from runner.distributor import Distributor
from runner.errors import HostError
from runner.machines.station import MachineKind
from runner.qemu.image import GuestImage
from tests.cli import run_cli, started_cli
from tests.cluster_samples import (
    WAIT_S,
    Tables,
    alone,
    guest_kind,
    in_process,
    local_cluster,
    sets,
    setup_in,
    signal_a_worker,
    simulated_kind,
)
from tests.fleet_samples import eventually


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process and no thread of ours outlives a test; what Dask keeps for the next client is its own."""
    before = set(threading.enumerate())
    yield
    assert not multiprocessing.active_children()
    ours = ("worker-", "members", "qemu", "gate", "silence")
    left = [one.name for one in set(threading.enumerate()) - before if one.name.startswith(ours)]
    assert not left


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9)), max_size=8),
    st.integers(1, 9),
)
def test_machines_are_dealt_out_within_all_bounds(n_machines, places, per_computer):
    seats = [Seat(worker=str(k), computer=host, capacity=room) for k, (host, room) in enumerate(places)]
    dealt = shares(n_machines, seats, per_computer=per_computer)
    assert dealt.keys() == {seat.worker for seat in seats}
    for host in "abc":
        open_ended = [dealt[seat.worker] for seat in seats if seat.computer == host and seat.capacity is None]
        assert sum(open_ended) <= per_computer
    assert all(dealt[seat.worker] <= seat.capacity for seat in seats if seat.capacity is not None)
    room = sum(seat.capacity for seat in seats if seat.capacity is not None)
    room += per_computer * len({seat.computer for seat in seats if seat.capacity is None})
    assert sum(dealt.values()) == min(n_machines, room)
    more = shares(n_machines + 1, seats, per_computer=per_computer)
    assert sum(more[worker] != dealt[worker] for worker in dealt) <= 1


def test_a_result_that_is_lost_on_its_way_is_measured_again_elsewhere_and_counts_once(tmp_path):
    with in_process(tmp_path, "a", "b") as (crew, (first, _)):
        tables = Tables({40: first.cut.set})
        with Distributor(4, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
            fleet.add_job(sets(400), tables)
            assert fleet.wait(WAIT_S)
            state = fleet.get_distributor_state()
    assert (state.n_done, state.n_bad) == (400, 0)
    assert set(tables.times.values()) == {1}
    assert first.lost is not None
    assert tables.tables == alone(simulated(), 400, tmp_path)


def test_drain_ends_what_runs_and_kill_at_once_and_what_was_leased_is_pending(tmp_path):
    for end in ("shut_down_all_machines", "kill_all_machines"):
        with in_process(tmp_path, "a", "b", factor=2.0) as (crew, _):
            stop = threading.Event()
            tables = Tables({5: stop.set})
            with Distributor(3, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
                fleet.add_job(sets(1000), tables)
                assert stop.wait(WAIT_S)
                getattr(fleet, end)()
                assert fleet.wait(WAIT_S)
                stopped = fleet.get_distributor_state()
                assert (stopped.n_running, stopped.n_bad) == (0, 0)
                assert stopped.n_done < 1000
        assert set(tables.times.values()) == {1}


def test_without_any_worker_the_run_ends_with_an_error(tmp_path):
    crew = Crew(per_computer=7, patience_s=0.1)
    with Distributor(1, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
        fleet.add_job(sets(1))
        with pytest.raises(HostError, match="no worker"):
            fleet.wait(WAIT_S)


def eventful(
    tmp_path: Path, kind: MachineKind, setup: Any, n: int, image: GuestImage | None
) -> tuple[Tables, Distributor]:
    """A run in which a worker is killed, one is added, and the fleet goes 1 → 6 → 2."""
    made: list[Any] = []
    crew = Crew(per_computer=7)
    at = [n // 8, n // 4, n // 3, n // 2]
    with (
        pool(partial(local_cluster, made, 3), crew, Equipment(setup=setup, image=image), tmp_path / "dask"),
        Distributor(1, machine_limit=20, kind=kind, crew=crew, folder=tmp_path) as fleet,
    ):
        tables = Tables(
            {
                at[0]: lambda: fleet.set_max_machine_value(6),
                at[1]: lambda: signal_a_worker(made),
                at[2]: lambda: made[0].scale(4),
                at[3]: lambda: fleet.set_max_machine_value(2),
            }
        )
        eventually(lambda: crew.n_workers == 3, WAIT_S)
        fleet.add_job(sets(n), tables)
        assert fleet.wait(WAIT_S)
        state = fleet.get_distributor_state()
        assert (state.n_done, state.n_bad, state.n_running) == (n, 0, 0)
    assert set(tables.times.values()) == {1}
    assert len(tables.tables) == n
    assert not (tmp_path / "dask").exists()
    return tables, fleet


def test_real_workers_come_and_go_and_every_set_is_done_once(tmp_path):
    kind = partial(simulated_kind, realtime_factor=2.0)
    tables, _ = eventful(tmp_path, simulated(), setup_in(tmp_path, kind), 240, None)
    assert tables.tables == alone(simulated(), 240, tmp_path)
    assert len({run.facts["worker"] for run in tables.runs}) >= 2
    assert all(run.facts["host_id"] and run.facts["host_cpu"] for run in tables.runs)


@pytest.mark.guest
def test_guests_on_workers_that_come_and_go_measure_what_one_computer_does(tmp_path):
    image = GuestImage.current("amd64")
    setup = setup_in(tmp_path, guest_kind, image)
    tables, _ = eventful(tmp_path, guest_kind(None), setup, 24, image)
    assert tables.tables == alone(guest_kind(None), 24, tmp_path)


def test_the_control_file_rescales_the_whole_fleet(tmp_path):
    sets_of_run = options_of(40, "simulation")
    on_cluster, alone_ = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "alone")
    slowly = ("machines/cluster=local", "machines.session.realtime_factor=0.4")
    with started_cli(tmp_path, *sets_of_run, *slowly) as process:
        eventually(lambda: on_cluster.n_done >= 3, WAIT_S)
        on_cluster.rescale(6)
        eventually(lambda: len(on_cluster.machines) == 6, WAIT_S / 4)
        on_cluster.rescale(2)
        eventually(lambda: len(on_cluster.machines) == 2, WAIT_S / 4)
        _, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, stderr
    assert run_cli(tmp_path, *sets_of_run, "hydra.run.dir=alone").returncode == 0
    account = on_cluster.account()
    assert (account["done"], account["doubled"], account["attempts"]) == (40, 0, 40)
    assert on_cluster.digests() == alone_.digests()


def test_who_has_no_dask_is_told_what_to_install(tmp_path):
    program = (
        "import sys; sys.modules['distributed'] = None\n"
        "from runner.__main__ import main\n"
        f"sys.argv = ['runner', 'machines=simulation', 'machines/cluster=local', 'hydra.run.dir={tmp_path}/r',"
        " 'tasksets.n_tasks=1', 'tasksets.utilizations=[0.5]', 'tasksets.sets_per_utilization=1',"
        " 'tasksets.periods=[10ms]']\n"
        "sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "rtfleet[cluster]" in ended.stderr
