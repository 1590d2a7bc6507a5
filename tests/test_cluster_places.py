"""Where workers can be: on a cluster that runs already, and behind SSH; for SLURM see `test_slurm`."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from tests.cli import ROOT, RUN_TIMEOUT_S, run_cli, started_cli
from tests.dask_processes import RunningCluster, running_cluster
from tests.fleet_samples import eventually
from tests.ssh_server import processes_with, ssh_server

SETS = ("machines=simulation", "machines.session.realtime_factor=8", "monitors=[sqlite,logging]")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path / "cluster") as one:
        yield one


def measured_by(run: Path) -> Counter[str]:
    """Worker -> task sets that it measured; each set was measured once."""
    with closing(sqlite3.connect(run / "results.sqlite")) as data:
        rows = data.execute(
            "SELECT taskset_id, json_extract(facts_json, '$.worker') FROM runs JOIN tasksets USING (taskset_id)"
            " WHERE outcome = 'completed' AND state = 'done'"
        ).fetchall()
    assert len({taskset_id for taskset_id, _ in rows}) == len(rows)
    return Counter(worker.rpartition("-")[0] for _, worker in rows)


def n_done(run: Path) -> int:
    """As the run itself tells, while it goes on."""
    path = run / "status.json"
    return int(json.loads(path.read_text())["tasksets"]["done"]) if path.exists() else 0


def test_a_cluster_that_runs_is_used_and_left_as_it_was(tmp_path, cluster):
    cluster.join("first", n_guests=2)
    there = ("machines/cluster=scheduler", f"machines.cluster.dask.address={cluster.address}")
    many = (*SETS, *there, "machines.count=4")
    with started_cli(tmp_path, *many, "tasksets.sets_per_utilization=16") as process:
        eventually(lambda: n_done(tmp_path / "run") > 2, RUN_TIMEOUT_S)
        cluster.join("second", n_guests=2)
        _, error = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == ExitCode.OK, error
    by = measured_by(tmp_path / "run")
    assert by.total() == 80
    assert by.keys() == {"first", "second"}
    assert not cluster.traces()
    assert sorted(cluster.workers) == ["first", "second"]
    again = run_cli(tmp_path, *many, "tasksets.sets_per_utilization=1", "hydra.run.dir=again")
    assert again.returncode == ExitCode.OK, again.stderr
    assert measured_by(tmp_path / "again").total() == 5
    assert not cluster.traces()
    assert not list(cluster.folder.glob("rtfleet-*"))


def test_workers_are_started_over_ssh_and_end_with_the_run(tmp_path):
    token = str(tmp_path)
    session = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "RTFLEET_TEST": token}
    with ssh_server(tmp_path / "ssh", session) as server:
        how = (
            f"port: {server.port}, client_keys: ['{server.client_key}'], known_hosts: '{server.known_hosts}'"
        )
        done = run_cli(
            tmp_path,
            *SETS,
            "machines/cluster=ssh",
            "machines.cluster.dask.hosts=[127.0.0.1,127.0.0.1,127.0.0.1]",
            f"+machines.cluster.dask.connect_options={{{how}}}",
            "+machines.cluster.dask.scheduler_options={host: 127.0.0.1}",
            "+machines.cluster.dask.worker_options.host=127.0.0.1",
            "machines.cluster.guests_per_worker=2",
            "machines.count=4",
            "tasksets.sets_per_utilization=8",
        )
        assert done.returncode == ExitCode.OK, done.stderr
        by = measured_by(tmp_path / "run")
        assert by.total() == 40
        eventually(lambda: not processes_with("RTFLEET_TEST", token), 30.0)
