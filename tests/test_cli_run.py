"""Whole runs on the ideal processor: exit codes, what they leave, own classes, sweeps, the operator's signals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.exit_codes import ExitCode
from runner.fleet import RunState
from runner.operator import control
from tests.cli import ROOT, environment, run_cli, started_cli
from tests.qemu_guests import eventually

IDEAL = "machines=simulation"
FEW = (IDEAL, "tasksets.sets_per_utilization=1")
#: Five sets that take some real seconds each.
SLOW = (*FEW, "machines.session.realtime_factor=1", "machines.count=2")


def status(folder: Path, run: str = "run") -> dict[str, Any]:
    path = folder / run / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def running(folder: Path) -> int:
    return int(status(folder).get("tasksets", {}).get("running", 0))


OWN = '''
"""What a user writes: a task set, a source of them, a monitor, sessions."""

from pathlib import Path

from runner.errors import TaskSetError
from runner.model import Task, TaskSet
from runner.monitors.base import AbstractMonitor
from runner.sessions.simulation import SimulationSession


class Pair(TaskSet):
    def __init__(self, period_ns=10_000_000):
        tasks = [Task(period_ns=period_ns, wcet_ns=1_000_000, n_jobs=3, priority_rank=rank) for rank in (1, 2)]
        super().__init__(tasks=tuple(tasks), name="pair")


class Diary(AbstractMonitor):
    def __init__(self, path):
        self._path = Path(path)

    def __taskset_finish__(self, run, result):
        with self._path.open("a") as file:
            print(run.taskset.name, len(result.jobs), file=file)


class Grumpy(AbstractMonitor):
    required = True

    def __taskset_finish__(self, run, result):
        raise LookupError("not today")


class Picky(SimulationSession):
    """Takes no set of one name."""

    def __init__(self, refused):
        super().__init__()
        self._refused = refused

    def start(self, taskset, deadline):
        if taskset.name == self._refused:
            raise TaskSetError(f"{taskset.name} is not to my taste")
        super().start(taskset, deadline)


class Buggy(SimulationSession):
    def start(self, taskset, deadline):
        raise ZeroDivisionError("one of our own")
'''


@pytest.fixture
def own(tmp_path):
    """A folder with a module of the user's, which the command line finds."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_run_leaves_a_folder_that_explains_itself(tmp_path):
    done = run_cli(tmp_path, *FEW, "tasksets.seed=7", "tasksets.periods=[20ms, 50ms]")
    assert done.returncode == ExitCode.OK, done.stderr
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".hydra",
        "control.yaml",
        "distributor.log",
        "machines",
        "manifest.json",
        "parquet",
        "results.sqlite",
        "status.json",
    ]
    assert [path.name for path in (folder / "machines").iterdir()] == ["qemu1"]
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert config["tasksets"]["seed"] == 7
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["overrides"] == overrides
    assert manifest["seed"] == 7
    assert manifest["guest"] is None
    assert manifest["packages"]["hydra-core"]
    assert manifest["host"]["cpus"] == os.cpu_count()
    text = (folder / "control.yaml").read_text()
    assert control.parse(text, 7) == control.Control(1, RunState.RUN)
    assert len(re.findall(r"(?m)^# ", text)) > 5
    final = status(tmp_path)
    assert final["tasksets"] == {"total": 5, "done": 5, "bad": 0, "running": 0}
    assert final["ended"] == "every task set is done"
    assert "every task set is done: 5 done, 0 bad, of 5" in (folder / "distributor.log").read_text()


def test_run_ends_with_the_table_and_the_path_of_its_folder(tmp_path):
    done = run_cli(tmp_path, *FEW)
    lines = done.stdout.splitlines()
    assert [line.split()[:4] for line in lines if re.match(r"[01]\.\d", line)] == [
        [point, "1", schedulable, "of"]
        for point, schedulable in [("0.50", "1"), ("0.65", "1"), ("0.80", "1"), ("0.90", "1"), ("1.00", "0")]
    ]
    assert lines[-1] == "run folder: run"
    assert "5/5, 5 done, 0 bad" in done.stderr


def test_run_folder_is_named_for_date_and_time_unless_told_otherwise(tmp_path):
    done = run_cli(tmp_path, *FEW, "hydra.verbose=false")
    assert done.returncode == ExitCode.OK
    assert re.fullmatch(r"run folder: outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", done.stdout.splitlines()[-1])
    assert len(list(tmp_path.glob("outputs/*/*/results.sqlite"))) == 1


def test_whoever_reads_along_may_leave(tmp_path):
    """`python -m runner | head -1`"""
    with started_cli(tmp_path, *FEW) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK, stderr
    assert "Traceback" not in stderr


def test_results_are_readable_while_the_run_goes_on(tmp_path):
    with started_cli(tmp_path, *FEW, "machines.session.realtime_factor=4") as process:
        assert eventually(lambda: 1 <= status(tmp_path).get("tasksets", {}).get("done", 0) < 5, within_s=30)
        path = tmp_path / "run" / "results.sqlite"

        def n_runs() -> int:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])

        assert eventually(lambda: n_runs() >= 1)
        assert process.poll() is None


def test_own_task_set_and_monitor_come_in_through_the_config(own):
    done = run_cli(
        own,
        IDEAL,
        "tasksets=custom",
        "tasksets._target_=own.Pair",
        "+tasksets.period_ns=20000000",
        "+monitors.diary._target_=own.Diary",
        "+monitors.diary.path=${run_folder}/diary",
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert (own / "run" / "diary").read_text() == "pair 6\n"


def test_own_class_that_raises_is_named_with_its_key(own):
    done = run_cli(own, "tasksets=custom", "tasksets._target_=own.Pair", "+tasksets.period_ns=x")
    assert done.returncode == ExitCode.USAGE
    assert "own.Pair cannot be made" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (own / "run" / "distributor.log").read_text()


def test_bad_set_is_reported_and_the_run_goes_on(own):
    done = run_cli(
        own,
        "machines=custom",
        "machines.session._target_=own.Picky",
        "+machines.session.refused=u0.8-0",
        "tasksets.sets_per_utilization=1",
    )
    assert done.returncode == ExitCode.BAD_TASKSETS, done.stderr
    assert "some task sets are bad; why: python -m runner.why run\n" in done.stderr
    assert status(own)["tasksets"] == {"total": 5, "done": 4, "bad": 1, "running": 0}
    assert "not to my taste" in (own / "run" / "distributor.log").read_text()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("machines.session._target_=own.Buggy", "one of our own"),
        ("+monitors.own._target_=own.Grumpy", "not today"),
    ],
)
def test_bug_ends_the_run_with_the_traceback_in_the_log_only(own, override, words):
    """A monitor that is `required`, and whatever a machine did not expect."""
    done = run_cli(own, *FEW, override)
    assert done.returncode == ExitCode.BUG
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert "run/distributor.log" in done.stderr
    log = (own / "run" / "distributor.log").read_text()
    assert "Traceback" in log
    assert "own.py" in log
    assert status(own)["ended"].startswith("failed: ")


def interrupt_when(
    folder: Path, process: subprocess.Popen[str], ready: Callable[[], bool], *signals: signal.Signals
) -> None:
    for number in signals:
        assert eventually(ready, within_s=30), status(folder)
        process.send_signal(number)
        time.sleep(0.3)  # two presses of a human's finger


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_drains(tmp_path, number):
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=4") as process:
        interrupt_when(tmp_path, process, lambda: running(tmp_path) == 2, number)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "Traceback" not in stderr
    final = status(tmp_path)
    assert final["tasksets"]["running"] == 0
    assert 2 <= final["tasksets"]["done"] < 5
    assert final["desired"]["state"] == final["observed"]["state"] == "drain"
    assert final["ended"] == "stopped by the operator"
    assert "run folder: run" in stdout


def test_second_interrupt_kills(tmp_path):
    """A run of sets that would take minutes ends at once."""
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=0.01") as process:
        interrupt_when(tmp_path, process, lambda: running(tmp_path) == 2, signal.SIGINT, signal.SIGINT)
        began_s = time.monotonic()
        _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began_s < 2.0
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "Traceback" not in stderr
    assert status(tmp_path)["observed"]["state"] == "kill"
    assert status(tmp_path)["tasksets"]["done"] == 0


@pytest.mark.parametrize("state", ["drain", "kill"])
def test_control_file_ends_the_run_before_its_end(tmp_path, state):
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=4") as process:
        assert eventually(lambda: running(tmp_path) == 2, within_s=30)
        (tmp_path / "run" / "control.yaml").write_text(f"machines: 2\nstate: {state}\n")
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert (status(tmp_path)["tasksets"]["done"] >= 2) is (state == "drain")


SWEEP = ("--multirun", "hydra.sweep.dir=sweep", *FEW)


def test_sweep_makes_one_folder_per_run(tmp_path):
    done = run_cli(tmp_path, *SWEEP, "tasksets.seed=1,2")
    assert done.returncode == ExitCode.OK, done.stderr
    for number in (0, 1):
        folder = tmp_path / "sweep" / str(number)
        assert json.loads((folder / "manifest.json").read_text())["seed"] == number + 1
        assert (folder / "results.sqlite").exists()
        assert ".hydra" in {path.name for path in folder.iterdir()}
        assert "5 done" in (folder / "distributor.log").read_text()
    assert done.stdout.count("run folder: sweep/") == 2


def test_sweep_with_a_run_that_cannot_begin_goes_on_and_tells(tmp_path):
    done = run_cli(tmp_path, *SWEEP, "reuse=nowhere,null")
    assert done.returncode == ExitCode.USAGE
    assert "nowhere" in done.stderr
    assert status(tmp_path, "sweep/1")["tasksets"]["done"] == 5


def test_interrupt_ends_the_whole_sweep(tmp_path):
    with started_cli(
        tmp_path, *SWEEP, "tasksets.seed=1,2,3", "machines.session.realtime_factor=4"
    ) as process:
        interrupt_when(
            tmp_path,
            process,
            lambda: status(tmp_path, "sweep/0").get("tasksets", {}).get("running") == 1,
            signal.SIGINT,
        )
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "sweep" / "1").exists()


def test_help_shows_examples_groups_and_exit_codes(tmp_path):
    done = run_cli(tmp_path, "--help")
    assert done.returncode == ExitCode.OK
    for words in (
        "python -m runner machines.count=2",
        "monitors: ",
        "  ssh_port: null",
        "Exit codes:",
        "README.md",
    ):
        assert words in done.stdout
    assert not (tmp_path / "run").exists()


def test_shell_completes_options_and_keys(tmp_path):
    """Hydra's completion, in a real bash."""
    command = tmp_path / "rtfleet"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom runner.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    script = """
    eval "$(rtfleet -sc install=bash)"
    COMP_CWORD=1 COMP_LINE="rtfleet $1" COMP_POINT=$((8 + ${#1}))
    hydra_bash_completion
    echo "${COMPREPLY[@]}"
    """
    shown = {}
    for typed in ("machines=a", "machines.qemu.ssh"):
        done = subprocess.run(
            ["bash", "-c", script, "bash", typed],
            env={**environment(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        shown[typed] = done.stdout.split()
    assert shown == {
        "machines=a": ["machines=amd64", "machines=arm64"],
        "machines.qemu.ssh": ["machines.qemu.ssh_port="],
    }


def test_built_package_brings_its_config(tmp_path):
    """What `pip install` would copy, started from elsewhere."""
    source = tmp_path / "source"
    for name in ("runner", "host_setup", "conf"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import setuptools; setuptools.setup(script_args=['--quiet', 'build', '--build-base=../build'])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build], cwd=source, check=True, capture_output=True, timeout=60
    )
    done = run_cli(tmp_path, *FEW, env={"PYTHONPATH": str(tmp_path / "build" / "lib")})
    assert done.returncode == ExitCode.OK, done.stderr
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["git"] is None


def test_warning_does_not_garble_the_progress_bar(own):
    """On a terminal: the bar's line is cleared first, and drawn again."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    with started_cli(own, *FEW, "+monitors.own._target_=own.Grumpy", stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's end when the last program has closed it
            while part := os.read(ours, 4096):
                shown += part
        process.wait(30)
    os.close(ours)
    # How often it was drawn before depends on how busy this computer is.
    assert re.search(rb"task sets: .*[0-5]/5", shown)
    assert b"\r\x1b[2Kerror: monitor Grumpy failed" in shown
    assert b"Traceback" not in shown
