"""Sweeps that end in the middle go on: what is done is skipped, what has begun is resumed, the rest is run."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from tests.cli import run_cli, started_cli
from tests.qemu_guests import PATIENCE_S, eventually
from tests.test_cli_resume import assert_complete, assert_private, content, manifest, n_done, status

IDEAL = ("machines=simulation", "tasksets.utilizations=[0.5,0.7]", "tasksets.sets_per_utilization=2")
SWEPT = "tasksets.seed=1,2,3"
SWEEP = ("--multirun", "hydra.sweep.dir=sweep", *IDEAL, SWEPT)
SLOW = (*SWEEP, "machines.session.realtime_factor=4")
N_SETS = 4


def stopped(folder: Path, *signals: signal.Signals) -> subprocess.CompletedProcess[str]:
    """A sweep that gets these signals in the middle of its second run."""
    with started_cli(folder, *SLOW) as process:
        assert eventually(lambda: n_done(folder, "sweep/1") >= 1, within_s=PATIENCE_S)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.2)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert not (folder / "sweep" / "2").exists()
    return subprocess.CompletedProcess((), process.returncode, stdout, stderr)


@pytest.mark.parametrize("flags", [("--multirun",), ()])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_sweep_goes_on_where_it_stopped(tmp_path, flags, number):
    ended = stopped(tmp_path, number)
    if number is signal.SIGINT:
        assert ended.returncode == ExitCode.STOPPED
        assert ended.stderr.splitlines()[-1] == "to go on: python -m runner resume=sweep"
        assert ended.stderr.count("to go on: ") == 1
    first = content(tmp_path / "sweep" / "0")
    done = run_cli(tmp_path, *flags, "resume=sweep")
    assert done.returncode == ExitCode.OK, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("complete", "run folder"))]
    assert lines == ["complete: sweep/0", "run folder: sweep/1", "run folder: sweep/2"]
    assert content(tmp_path / "sweep" / "0") == first
    for run in ("0", "1", "2"):
        assert_complete(tmp_path, f"sweep/{run}", N_SETS)
        assert manifest(tmp_path, f"sweep/{run}")["seed"] == int(run) + 1
    assert len(manifest(tmp_path, "sweep/1")["resumed"]) == 1
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "1", "2", "multirun.yaml"]
    assert_private(tmp_path / "sweep")
    # Once more: nothing is left to do.
    before = content(tmp_path / "sweep")
    again = run_cli(tmp_path, "resume=sweep")
    assert again.returncode == ExitCode.OK
    assert again.stdout.splitlines() == [f"complete: sweep/{run}" for run in "012"]
    assert content(tmp_path / "sweep") == before


def test_one_run_of_a_sweep_can_be_resumed_by_itself(tmp_path):
    stopped(tmp_path, signal.SIGKILL)
    done = run_cli(tmp_path, "resume=sweep/1")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path, "sweep/1", N_SETS)
    assert not (tmp_path / "sweep" / "2").exists()
    assert run_cli(tmp_path, "resume=sweep").returncode == ExitCode.OK
    assert_complete(tmp_path, "sweep/2", N_SETS)


def test_changed_sweep_is_refused_with_the_difference(tmp_path):
    stopped(tmp_path, signal.SIGKILL)
    before = content(tmp_path / "sweep")
    for override, words in {
        "machines.limit=3": "machines.limit: 7 → 3",
        "tasksets.seed=1,2": 'run 2: "tasksets.seed=3" → (not there)',
        "tasksets.seed=1,2,3,4": 'run 3: (not there) → "tasksets.seed=4"',
        "tasksets.seed=5,2,3": 'run 0: "tasksets.seed=1" → "tasksets.seed=5"',
    }.items():
        refused = run_cli(tmp_path, "resume=sweep", override)
        assert refused.returncode == ExitCode.USAGE
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    # What has begun is what it is.
    refused = run_cli(tmp_path, "resume=sweep", "tasksets.seed=1,5,3", "changes=accept")
    assert refused.returncode == ExitCode.USAGE
    assert "run 1 of the sweep has begun, with tasksets.seed=2" in refused.stderr
    before.pop("run.lock")  # of the one that was killed
    assert content(tmp_path / "sweep") == before


def test_sweep_may_be_added_to(tmp_path):
    assert run_cli(tmp_path, *SWEEP).returncode == ExitCode.OK
    added = ("tasksets.seed=1,2,3,4", "machines.limit=5")
    done = run_cli(tmp_path, "resume=sweep", *added, "changes=accept")
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.count("complete: ") == 3
    assert_complete(tmp_path, "sweep/3", N_SETS)
    assert run_cli(tmp_path, "resume=sweep").stdout.count("complete: ") == 4


def test_sweeps_keep_their_numbers_and_folders(tmp_path):
    """Two keys, and folders that are named for the values."""
    named = "hydra.sweep.subdir=${tasksets.seed}-${repeat}"
    swept = ("tasksets.seed=1,2", "repeat=1,2")
    assert run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", named, *IDEAL, *swept).returncode == 0
    done = run_cli(tmp_path, "resume=sweep", "repeat=1,2", "tasksets.seed=1,2")
    names = ["1-1", "1-2", "2-1", "2-2"]
    assert done.stdout.splitlines() == [f"complete: sweep/{name}" for name in names]


def test_sweep_does_not_take_another_ones_folder(tmp_path):
    assert run_cli(tmp_path, *SWEEP).returncode == ExitCode.OK
    before = content(tmp_path / "sweep")
    refused = run_cli(tmp_path, *SWEEP)
    assert refused.returncode == ExitCode.USAGE
    assert "holds another sweep" in refused.stderr
    assert content(tmp_path / "sweep") == before


def test_one_runner_per_sweep(tmp_path):
    with started_cli(tmp_path, *SWEEP, "machines.session.realtime_factor=0.01") as process:
        assert eventually(
            lambda: status(tmp_path, "sweep/0").get("tasksets", {}).get("running") == 1, within_s=PATIENCE_S
        )
        for folder in ("sweep", "sweep/0"):
            refused = run_cli(tmp_path, f"resume={folder}")
            assert refused.returncode == ExitCode.USAGE
            assert f"process {process.pid} on" in refused.stderr


@pytest.mark.parametrize(
    ("swept", "words"),
    [
        ("machines.count=1,9", "run 1 of the sweep (machines.count=9): "),
        ("tasksets.periods=[20ms],[twenty]", "run 1 of the sweep (tasksets.periods=[twenty]): "),
        ("machines=simulation,nowhere", "run 1 of the sweep (machines=nowhere): machines has no option"),
        ("repeat=1,many", "run 1 of the sweep (repeat=many): "),
    ],
)
def test_no_run_begins_unless_all_can(tmp_path, swept, words):
    refused = run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *IDEAL, swept)
    assert refused.returncode == ExitCode.USAGE
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweep").exists()


def test_runs_see_their_folder_and_environment_before_they_begin(tmp_path):
    own = ("+hydra.job.env_set.WHERE=there", "reuse=null,${hydra:runtime.output_dir}/${oc.env:WHERE}")
    ended = run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *IDEAL, *own)
    assert_complete(tmp_path, "sweep/0", N_SETS)
    assert "sweep/1/there" in ended.stderr  # is refused by the run itself: there is no earlier run


def test_sweep_tells_how_far_it_is(tmp_path):
    done = run_cli(tmp_path, *SWEEP)
    told = [line for line in done.stderr.splitlines() if line.startswith("run ")]
    assert told == ["run 1/3 tasksets.seed=1", "run 2/3 tasksets.seed=2", "run 3/3 tasksets.seed=3"]


def test_sweep_without_a_sweep_is_one_run(tmp_path):
    assert run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *IDEAL).returncode == ExitCode.OK
    assert_complete(tmp_path, "sweep/0", N_SETS)


def test_damaged_sweep_is_refused_by_name(tmp_path):
    assert run_cli(tmp_path, *SWEEP).returncode == ExitCode.OK
    path = tmp_path / "sweep" / "multirun.yaml"
    path.write_text(path.read_text()[:200])
    refused = run_cli(tmp_path, "resume=sweep")
    assert refused.returncode == ExitCode.USAGE
    assert "multirun.yaml is damaged" in refused.stderr


def test_other_sweepers_are_refused(tmp_path):
    refused = run_cli(tmp_path, *SWEEP, "hydra.sweeper._target_=own.Sweeper")
    assert refused.returncode == ExitCode.USAGE
    assert "hydra/sweeper is not basic" in refused.stderr
