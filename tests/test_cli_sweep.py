"""Sweeps that end in the middle go on: what is done is skipped, what has begun is resumed, the rest is run."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from tests.cli import processes_of, run_cli, started_cli
from tests.qemu_guests import PATIENCE_S, eventually
from tests.test_cli_resume import assert_complete, assert_private, content, manifest, n_done, status

IDEAL = ("machines=simulation", "tasksets.utilizations=[0.5,0.7]", "tasksets.sets_per_utilization=2")
SWEPT = "tasksets.seed=1,2,3"
SWEEP = ("--multirun", "hydra.sweep.dir=sweep", *IDEAL, SWEPT)
SLOW = (*SWEEP, "machines.session.realtime_factor=4")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
N_SETS = 4


def stopped(folder: Path, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    """A sweep that gets this signal in the middle of its second run."""
    with started_cli(folder, *SLOW) as process:
        assert eventually(lambda: n_done(folder, "sweep/1") >= 1, within_s=PATIENCE_S)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert not (folder / "sweep" / "2").exists()
    return subprocess.CompletedProcess((), process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep was killed in its second run; to be copied."""
    folder = tmp_path_factory.mktemp("killed")
    stopped(folder, signal.SIGKILL)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Where a sweep is complete, to be copied; and what it has said."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_cli(folder, *SWEEP)
    assert done.returncode == ExitCode.OK, done.stderr
    return folder, done


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder / "sweep", to / "sweep")
    return to


def assert_all_done(folder: Path) -> None:
    for run in ("0", "1", "2"):
        assert_complete(folder, f"sweep/{run}", N_SETS)
        assert manifest(folder, f"sweep/{run}")["seed"] == int(run) + 1
    assert sorted(path.name for path in (folder / "sweep").iterdir()) == ["0", "1", "2", "multirun.yaml"]
    assert_private(folder / "sweep")


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Where its runs are, in the order in which they ended."""
    return [line for line in done.stdout.splitlines() if line.startswith(("complete", "run folder"))]


def test_killed_sweep_goes_on_where_it_stopped(tmp_path, killed):
    copied(killed, tmp_path)
    first = content(tmp_path / "sweep" / "0")
    done = run_cli(tmp_path, "resume=sweep")
    assert done.returncode == ExitCode.OK, done.stderr
    assert told(done) == ["complete: sweep/0", "run folder: sweep/1", "run folder: sweep/2"]
    assert content(tmp_path / "sweep" / "0") == first
    assert_all_done(tmp_path)
    assert len(manifest(tmp_path, "sweep/1")["resumed"]) == 1


def test_interrupted_sweep_says_how_to_go_on(tmp_path):
    ended = stopped(tmp_path, signal.SIGINT)
    assert ended.returncode == ExitCode.STOPPED
    assert ended.stderr.splitlines()[-1] == "to go on: python -m runner resume=sweep"
    assert ended.stderr.count("to go on: ") == 1
    done = run_cli(tmp_path, "--multirun", "resume=sweep", *JOBLIB)  # another launcher changes nothing
    assert done.returncode == ExitCode.OK, done.stderr
    assert sorted(told(done)) == ["complete: sweep/0", "run folder: sweep/1", "run folder: sweep/2"]
    assert_all_done(tmp_path)


def test_nothing_is_left_to_do_of_a_whole_sweep(tmp_path, whole):
    folder, done = whole
    assert_all_done(folder)
    titles = [line for line in done.stderr.splitlines() if line.startswith("run ")]
    assert titles == [f"run {number}/3 tasksets.seed={number}" for number in (1, 2, 3)]
    assert "sweep: 12/12, 12 done, 0 bad, runs 3/3" in done.stderr
    assert "task sets: " not in done.stderr  # one bar for all
    before = content(copied(folder, tmp_path) / "sweep")
    again = run_cli(tmp_path, "resume=sweep", *JOBLIB)
    assert again.returncode == ExitCode.OK
    assert again.stdout.splitlines() == [f"complete: sweep/{run}" for run in "012"]
    # It is nobody else's place.
    refused = run_cli(tmp_path, *SWEEP)
    assert refused.returncode == ExitCode.USAGE
    assert "holds another sweep" in refused.stderr
    assert content(tmp_path / "sweep") == before


def test_one_run_of_a_sweep_can_be_resumed_by_itself(tmp_path, killed):
    done = run_cli(copied(killed, tmp_path), "resume=sweep/1")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path, "sweep/1", N_SETS)
    assert not (tmp_path / "sweep" / "2").exists()


def test_changed_sweep_is_refused_with_the_difference(tmp_path, killed):
    before = content(copied(killed, tmp_path) / "sweep")
    for overrides, words in {
        ("machines.limit=3", "tasksets.seed=5,2"): (
            "machines.limit: 7 → 3",
            'run 0: "tasksets.seed=1" → "tasksets.seed=5"',
            'run 2: "tasksets.seed=3" → (not there)',
        ),
        # What has begun is what it is.
        ("tasksets.seed=1,5,3", "changes=accept"): ("run 1 of the sweep has begun, with tasksets.seed=2",),
    }.items():
        refused = run_cli(tmp_path, "resume=sweep", *overrides)
        assert refused.returncode == ExitCode.USAGE
        assert "Traceback" not in refused.stderr
        for word in words:
            assert word in refused.stderr
    before.pop("run.lock")  # of the one that was killed
    assert content(tmp_path / "sweep") == before


def test_sweep_may_be_added_to(tmp_path, whole):
    copied(whole[0], tmp_path)
    added = ("tasksets.seed=1,2,3,4", "machines.limit=5")
    done = run_cli(tmp_path, "resume=sweep", *added, "changes=accept")
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.count("complete: ") == 3
    assert_complete(tmp_path, "sweep/3", N_SETS)


def test_sweeps_keep_their_numbers_and_folders(tmp_path):
    """Two keys, and folders that are named for the values."""
    named = "hydra.sweep.subdir=${tasksets.seed}-${repeat}"
    swept = ("tasksets.seed=1,2", "repeat=1,2")
    assert run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", named, *IDEAL, *swept).returncode == 0
    done = run_cli(tmp_path, "resume=sweep", "repeat=1,2", "tasksets.seed=1,2")
    names = ["1-1", "1-2", "2-1", "2-2"]
    assert done.stdout.splitlines() == [f"complete: sweep/{name}" for name in names]


#: Task sets that cannot be had as long as a file lies about.
MOODY = """
from pathlib import Path

from runner.tasksets.uunifast import UUniFastTaskSets


class Moody(UUniFastTaskSets):
    def variants(self):
        if Path("broken").exists() and self.seed == 2:
            raise RuntimeError("out of order")
        yield from super().variants()
"""


@pytest.mark.parametrize("launcher", [(), JOBLIB, ("hydra/launcher=submitit_local",)])
def test_run_that_failed_is_tried_again(tmp_path, launcher):
    """It alone; its failure has kept no other from being done."""
    (tmp_path / "own.py").write_text(MOODY)
    (tmp_path / "broken").touch()
    ended = run_cli(tmp_path, *SWEEP[:-1], "tasksets.seed=1,2", "tasksets._target_=own.Moody", *launcher)
    assert ended.returncode == ExitCode.BUG, ended.stderr
    assert "out of order" in ended.stderr
    assert "to go on: python -m runner resume=sweep" in ended.stderr
    assert "runs 1/2, 0 at work, 1 failed" in ended.stderr
    (tmp_path / "broken").unlink()
    done = run_cli(tmp_path, "resume=sweep")
    assert done.returncode == ExitCode.OK, done.stderr
    assert sorted(told(done)) == ["complete: sweep/0", "run folder: sweep/1"]
    for run in ("0", "1"):
        assert_complete(tmp_path, f"sweep/{run}", N_SETS)


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_jobs_of_a_launcher_are_stopped_and_go_on(tmp_path, signals):
    """The command alone is told; it tells the runs that have begun, and none begins any more."""
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=1", *JOBLIB) as process:
        assert eventually(lambda: n_done(tmp_path, "sweep/0") >= 1, within_s=PATIENCE_S)
        for number in signals:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert stderr.splitlines()[-1] == "to go on: python -m runner resume=sweep"
    assert "Traceback" not in stderr
    assert not (tmp_path / "sweep" / "2").exists()
    assert not (tmp_path / "sweep" / ".jobs").exists()
    assert eventually(lambda: not processes_of(tmp_path), within_s=PATIENCE_S)
    if signals[0] is signal.SIGINT:
        return
    # It goes on as it was begun: by joblib.
    done = run_cli(tmp_path, "resume=sweep", "machines.session.realtime_factor=null", "changes=accept")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_all_done(tmp_path)


def test_no_process_of_a_launcher_outlives_it(tmp_path):
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=1", *JOBLIB) as process:
        assert eventually(lambda: n_done(tmp_path, "sweep/1") >= 1, within_s=PATIENCE_S)
        pids = [int(status(tmp_path, f"sweep/{run}")["pid"]) for run in "01"]
        process.kill()
        process.wait()
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=PATIENCE_S)
    assert not (tmp_path / "sweep" / "2").exists()
    assert manifest(tmp_path, "sweep/1")["ended"]["exit_code"] == ExitCode.STOPPED


def test_one_runner_per_sweep(tmp_path):
    with started_cli(tmp_path, *SWEEP, "machines.session.realtime_factor=0.01") as process:
        assert eventually(
            lambda: status(tmp_path, "sweep/0").get("tasksets", {}).get("running") == 1, within_s=PATIENCE_S
        )
        refused = run_cli(tmp_path, "resume=sweep")
        assert refused.returncode == ExitCode.USAGE
        assert f"process {process.pid} on" in refused.stderr


def test_no_run_begins_unless_all_can(tmp_path):
    refused = run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *IDEAL, "machines.count=1,9")
    assert refused.returncode == ExitCode.USAGE
    assert "run 1 of the sweep (machines.count=9): " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweep").exists()


def test_runs_see_their_folder_and_environment_before_they_begin(tmp_path):
    own = ("+hydra.job.env_set.WHERE=there", "reuse=null,${hydra:runtime.output_dir}/${oc.env:WHERE}")
    ended = run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *IDEAL, *own)
    assert_complete(tmp_path, "sweep/0", N_SETS)
    assert "sweep/1/there" in ended.stderr  # is refused by the run itself: there is no earlier run


def test_damaged_sweep_is_refused_by_name(tmp_path, killed):
    path = copied(killed, tmp_path) / "sweep" / "multirun.yaml"
    path.write_text(path.read_text()[:200])
    refused = run_cli(tmp_path, "resume=sweep")
    assert refused.returncode == ExitCode.USAGE
    assert "multirun.yaml is damaged" in refused.stderr
