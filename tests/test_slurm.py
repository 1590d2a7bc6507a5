"""Workers that are jobs of a real SLURM; see `tests.slurm_node` for how to ask for these tests."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from tests.cli import RUN_TIMEOUT_S, processes_of, run_cli, started_cli
from tests.fleet_samples import eventually
from tests.slurm_node import SlurmNode, asked, slurm_node

pytestmark = asked

SLURM = (
    "machines/cluster=slurm",
    "machines.cluster.dask.memory=1GB",
    "+machines.cluster.dask.interface=lo",
    "monitors=[sqlite,logging]",
)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmNode]:
    with slurm_node() as node:
        yield node


@pytest.fixture
def env(slurm: SlurmNode, tmp_path: Path) -> dict[str, str]:
    """What Dask's workers keep besides goes with the test."""
    return {**slurm.environment, "TMPDIR": str(tmp_path)}


def done_where(run: Path) -> list[tuple[int, str]]:
    """Of each task set that is done: how often it was measured, and by which worker."""
    with closing(sqlite3.connect(run / "results.sqlite")) as data:
        return data.execute(
            "SELECT count(*), max(json_extract(facts_json, '$.worker')) FROM runs JOIN tasksets USING (taskset_id)"
            " WHERE outcome = 'completed' AND state = 'done' GROUP BY taskset_id"
        ).fetchall()


def table_of(run: Path) -> dict[str, str]:
    """Task set -> digest of its job table."""
    with closing(sqlite3.connect(run / "results.sqlite")) as data:
        return dict(data.execute("SELECT taskset_id, table_sha256 FROM runs").fetchall())


def n_done(run: Path) -> int:
    """As the run itself tells, while it goes on."""
    path = run / "status.json"
    return int(json.loads(path.read_text())["tasksets"]["done"]) if path.exists() else 0


def gone(slurm: SlurmNode) -> None:
    eventually(lambda: not slurm.jobs(), 30.0)


def test_jobs_measure_all_sets_and_are_gone_afterwards(tmp_path, slurm, env):
    before = slurm.jobs(ended=True).keys()
    done = run_cli(
        tmp_path,
        *SLURM,
        "machines=simulation",
        "machines.count=4",
        "machines.session.realtime_factor=2",
        "tasksets.sets_per_utilization=8",
        env=env,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    measured = done_where(tmp_path / "run")
    assert [n for n, _ in measured] == [1] * 40
    assert len({worker for _, worker in measured}) == 2
    gone(slurm)
    assert len(slurm.jobs(ended=True).keys() - before) == 2


@pytest.mark.guest
def test_guests_in_jobs_measure_what_they_measure_here(tmp_path, slurm, env):
    few = ("machines=amd64", "machines.count=2", "tasksets.sets_per_utilization=1")
    done = run_cli(tmp_path, *SLURM, *few, env=env)
    assert done.returncode == ExitCode.OK, done.stderr
    gone(slurm)
    here = run_cli(tmp_path, *few, "monitors=[sqlite]", "hydra.run.dir=here")
    assert here.returncode == ExitCode.OK, here.stderr
    tables = [table_of(tmp_path / run) for run in ("run", "here")]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 5
    assert list((tmp_path / "run" / "workers").glob("*/machines/qemu1/console.log"))
    assert not processes_of(tmp_path)


def test_a_job_that_is_cancelled_loses_nothing(tmp_path, slurm, env):
    slow = ("machines=simulation", "machines.session.realtime_factor=2", "tasksets.sets_per_utilization=8")
    with started_cli(tmp_path, *SLURM, *slow, "machines.count=4", env=env) as process:
        eventually(lambda: n_done(tmp_path / "run") > 4, RUN_TIMEOUT_S)
        slurm.run("scancel", min(slurm.jobs()))
        _, error = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == ExitCode.OK, error
    assert [n for n, _ in done_where(tmp_path / "run")] == [1] * 40
    gone(slurm)


def test_jobs_of_a_run_that_was_killed_end_by_themselves(tmp_path, slurm, env):
    slow = ("machines=simulation", "machines.session.realtime_factor=1", "tasksets.sets_per_utilization=8")
    with started_cli(tmp_path, *SLURM, *slow, "+machines.cluster.dask.death_timeout=15", env=env) as process:
        eventually(lambda: n_done(tmp_path / "run") > 1, RUN_TIMEOUT_S)
        process.send_signal(signal.SIGKILL)
        process.wait(RUN_TIMEOUT_S)
    gone(slurm)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("+machines.cluster.dask.queue=nowhere",), "invalid partition"),
        (("machines.cluster.dask.memory=9000GB",), "not available"),
    ],
)
def test_what_slurm_refuses_ends_the_run_before_anything_is_submitted(tmp_path, slurm, env, wrong, said):
    before = slurm.jobs(ended=True).keys()
    done = run_cli(tmp_path, *SLURM, "machines=simulation", *wrong, env=env)
    assert done.returncode == ExitCode.HOST, done.stderr
    assert "SLURM does not take such a job" in done.stderr
    assert said in done.stderr
    assert slurm.jobs(ended=True).keys() == before


def test_the_runs_of_a_sweep_are_jobs_of_their_own(tmp_path, slurm, env):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    before = slurm.jobs(ended=True).keys()
    done = run_cli(
        tmp_path,
        "--multirun",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.mem_gb=1",
        "hydra.sweep.dir=sweep",
        "machines=simulation",
        "tasksets.sets_per_utilization=1",
        "tasksets.seed=1,2,3",
        env=env,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert [n_done(tmp_path / "sweep" / str(number)) for number in range(3)] == [5, 5, 5]
    gone(slurm)
    assert len(slurm.jobs(ended=True).keys() - before) == 3
