"""How a run on a cluster ends, and how workers leave it: by a signal, by silence on either side; nothing is left behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import threading
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import distributed

from runner import simulated
from runner.cluster.agent import Agent
from runner.cluster.crew import Crew
from runner.cluster.messages import Assignment, Order
from runner.cluster.pool import Equipment, pool
from runner.distributor import Distributor
from runner.exit_codes import ExitCode
from tests.cli import processes_of, run_cli, started_cli
from tests.cluster_samples import (
    WAIT_S,
    Tables,
    local_cluster,
    sets,
    setup_in,
    signal_a_worker,
    simulated_kind,
)
from tests.fleet_samples import eventually

N_SETS = 60
RUN = (
    "machines=simulation",
    "machines/cluster=local",
    "machines.count=4",
    "machines.session.realtime_factor=0.1",
    "tasksets.utilizations=[0.7]",
    "tasksets.periods=[10ms,20ms]",
    f"tasksets.sets_per_utilization={N_SETS}",
    "monitors=[logging,sqlite]",
    "machines.cluster.checked_share=0.2",
)


def done(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return int(json.loads((folder / "run" / "status.json").read_text())["tasksets"]["done"])
    return 0


def interrupted(folder: Path, *arguments: str, at: int, number: signal.Signals) -> None:
    """A run that is ended by the signal when so many sets are done."""
    with started_cli(folder, *arguments) as process:
        eventually(lambda: done(folder) >= at, WAIT_S)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal tells the workers, too
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "Traceback" not in stderr
    assert at <= done(folder) < N_SETS
    assert not processes_of(folder)
    assert not (folder / "run" / "dask").exists()


def test_a_signal_ends_a_run_on_a_cluster_in_order_and_it_can_be_resumed(tmp_path):
    interrupted(tmp_path, *RUN, at=4, number=signal.SIGINT)
    interrupted(tmp_path, "resume=run", at=done(tmp_path) + 4, number=signal.SIGTERM)
    changes = ("machines/cluster=none", "machines.session.realtime_factor=null", "changes=accept")
    resumed = run_cli(tmp_path, "resume=run", *changes)
    assert resumed.returncode == ExitCode.OK, resumed.stderr
    with closing(sqlite3.connect(tmp_path / "run" / "results.sqlite")) as data:
        ledger = data.execute("SELECT set_idx, state FROM ledger ORDER BY set_idx").fetchall()
        n_runs = data.execute("SELECT count(*), count(DISTINCT taskset_id) FROM valid_runs").fetchone()
    assert ledger == [(k, "done") for k in range(N_SETS)]
    assert n_runs == (N_SETS, N_SETS)


def test_a_worker_that_nobody_asks_any_more_ends_its_machines(tmp_path):
    """As when the coordinator was killed."""
    kind = partial(simulated_kind, realtime_factor=0.01)
    agent = Agent(setup_in(tmp_path, kind, silence_s=0.5)("w", 7))
    batch = tuple(Assignment(number, one) for number, one in enumerate(sets(4).variants()))
    assert agent.exchange(Order(n_machines=2, batch=batch)).open
    eventually(
        lambda: not any(one.name.startswith(("silence", "qemu")) for one in threading.enumerate()), WAIT_S
    )
    assert not agent.exchange(Order(n_machines=2)).open


def test_a_worker_that_answers_nothing_is_lost_and_its_sets_are_done_elsewhere(tmp_path):
    made: list[Any] = []
    pids: list[int] = []
    crew = Crew(per_computer=7)
    kind = partial(simulated_kind, realtime_factor=2.0)
    equipment = Equipment(setup=setup_in(tmp_path, kind), answer_s=3.0)
    with pool(partial(local_cluster, made, 2), crew, equipment, tmp_path / "dask"):
        tables = Tables({10: lambda: pids.append(signal_a_worker(made, signal.SIGSTOP))})
        try:
            with Distributor(4, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
                eventually(lambda: crew.n_workers == 2, WAIT_S)
                fleet.add_job(sets(80), tables)
                assert fleet.wait(WAIT_S)
                state = fleet.get_distributor_state()
                assert crew.n_workers == 1
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    assert len(pids) == 1
    assert (state.n_done, state.n_bad) == (80, 0)
    assert set(tables.times.values()) == {1}


def test_all_workers_are_seen_and_stay_as_long_as_they_are_there(tmp_path, caplog):
    """What Dask's client keeps of the scheduler has five workers at most, and none every other second: it is not to be relied on."""
    n_workers = 6
    cluster: Any = distributed.LocalCluster
    make = partial(
        cluster,
        n_workers=n_workers,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": ":0"},
    )
    crew = Crew(per_computer=7)
    kind = partial(simulated_kind, realtime_factor=0.01)  # a set takes 4 s
    with (
        caplog.at_level(logging.INFO, "runner.cluster"),
        pool(make, crew, Equipment(setup=setup_in(tmp_path, kind)), tmp_path / "dask"),
        Distributor(6, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet,
    ):
        eventually(lambda: crew.n_workers == n_workers, WAIT_S)
        fleet.add_job(sets(6), tables := Tables())
        assert fleet.wait(WAIT_S)
        assert crew.n_workers == n_workers
    assert len({run.machine for run in tables.runs}) >= 3
    assert sum("joined" in one.getMessage() for one in caplog.records) == n_workers
