"""Runs that end in the middle, however, and go on where they stopped: nothing is lost, nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.exit_codes import ExitCode
from tests.cli import processes_of, run_cli, started_cli
from tests.qemu_guests import PATIENCE_S, eventually

IDEAL = ("machines=simulation", "tasksets.utilizations=[0.5,0.7,0.9]", "tasksets.sets_per_utilization=2")
#: Six sets of about half a second each, two at a time: time enough to end it in the middle, also on a busy computer.
SLOW = (*IDEAL, "machines.session.realtime_factor=2", "machines.count=2")
N_SETS = 6
HINT = "to go on: python -m runner resume=run"


def status(folder: Path, run: str = "run") -> dict[str, Any]:
    path = folder / run / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def n_done(folder: Path, run: str = "run") -> int:
    return int(status(folder, run).get("tasksets", {}).get("done", 0))


def manifest(folder: Path, run: str = "run") -> dict[str, Any]:
    return dict(json.loads((folder / run / "manifest.json").read_text()))


def ask(folder: Path, sql: str, run: str = "run") -> list[tuple[Any, ...]]:
    with contextlib.closing(
        sqlite3.connect(f"file:{folder / run / 'results.sqlite'}?mode=ro", uri=True)
    ) as data:
        return data.execute(sql).fetchall()


def n_recorded(folder: Path) -> int:
    """How many sets the ledger holds as done: a moment later than the status tells it."""
    try:
        return int(ask(folder, "SELECT count(*) FROM ledger WHERE state = 'done'")[0][0])
    except sqlite3.OperationalError:  # not there yet
        return 0


#: What was measured, without who measured it when.
JOBS = (
    "SELECT tasksets.taskset_id, repetition, task_idx, job_idx, release_ns, start_ns, finish_ns, exit_type"
    " FROM jobs JOIN runs USING (run_id) JOIN tasksets USING (taskset_id) ORDER BY 1, 2, 3, 4"
)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_private(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        assert path.lstat().st_mode & 0o077 == 0, path


def assert_complete(folder: Path, run: str = "run", n_sets: int = N_SETS) -> None:
    """Every set once, the data whole, and nothing lies about."""
    assert status(folder, run)["tasksets"] == {"total": n_sets, "done": n_sets, "bad": 0, "running": 0}
    ledger = "SELECT count(*), count(DISTINCT taskset_id), sum(state = 'done') FROM ledger"
    assert ask(folder, ledger, run) == [(n_sets, n_sets, n_sets)]
    valid = "SELECT count(*), count(DISTINCT taskset_id) FROM runs WHERE outcome IN ('completed', 'timeout')"
    assert ask(folder, valid, run) == [(n_sets, n_sets)]
    assert manifest(folder, run)["ended"]["exit_code"] == 0
    names = sorted(path.name for path in (folder / run).iterdir())
    assert names == [
        ".hydra",
        "control.yaml",
        "distributor.log",
        "machines",
        "manifest.json",
        "parquet",
        "results.sqlite",
        "status.json",
    ]
    assert_private(folder / run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run is that nobody has interrupted; to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_cli(folder, *IDEAL).returncode == ExitCode.OK
    return folder


@pytest.fixture(scope="module")
def undisturbed(whole: Path) -> list[tuple[Any, ...]]:
    """What it measures."""
    return ask(whole, JOBS)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was killed in the middle; to be copied."""
    folder = tmp_path_factory.mktemp("killed")
    stopped(folder, signal.SIGKILL)
    return folder


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was stopped in order; to be copied."""
    folder = tmp_path_factory.mktemp("drained")
    stopped(folder, signal.SIGTERM)
    return folder


def copied(folder: Path, to: Path) -> None:
    shutil.copytree(folder / "run", to / "run")


def stopped(
    folder: Path, *signals: signal.Signals, when: Callable[[], bool] | None = None, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A slow run that gets these signals once some of its sets are done, and is waited for."""
    ready = when or (lambda: n_recorded(folder) >= 1)
    arguments = more if "resume=run" in more else (*more, *SLOW)
    with started_cli(folder, *arguments) as process:
        assert eventually(ready, within_s=PATIENCE_S), status(folder)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.2)  # two presses of a human's finger
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode is not None
    return subprocess.CompletedProcess((), process.returncode, stdout, stderr)


ENDS = {
    "SIGKILL": ((signal.SIGKILL,), -signal.SIGKILL),
    "SIGTERM": ((signal.SIGTERM,), ExitCode.STOPPED),
    "Ctrl-C": ((signal.SIGINT,), ExitCode.STOPPED),
    "Ctrl-C twice": ((signal.SIGINT, signal.SIGINT), ExitCode.STOPPED),
}


@pytest.mark.parametrize("end", ENDS)
def test_run_goes_on_where_it_stopped(tmp_path, undisturbed, end):
    signals, code = ENDS[end]
    ended = stopped(tmp_path, *signals)
    assert ended.returncode == code, ended.stderr
    n_before = n_recorded(tmp_path)
    assert 1 <= n_before < N_SETS
    if code == ExitCode.STOPPED:
        assert ended.stderr.splitlines()[-1] == HINT
        assert manifest(tmp_path)["ended"]["exit_code"] == ExitCode.STOPPED
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.splitlines()[-1] == "run folder: run"
    assert_complete(tmp_path)
    assert ask(tmp_path, JOBS) == undisturbed
    (resumed,) = manifest(tmp_path)["resumed"]
    assert resumed["changes"] == {}
    log = (tmp_path / "run" / "distributor.log").read_text()
    assert f"resumed: {n_before} done, 0 bad" in log
    assert log.count("resumed: ") == 1


def test_run_may_be_killed_again_and_again(tmp_path, undisturbed):
    """Also in the middle of being resumed, and at moments that nobody chose."""
    stopped(tmp_path, signal.SIGKILL, when=(tmp_path / "run" / "results.sqlite").exists)
    for delay_s in (0.3, 0.6, 0.9, 1.2):
        with started_cli(tmp_path, "resume=run") as process:
            time.sleep(delay_s)
            process.kill()
            process.wait()
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    assert ask(tmp_path, JOBS) == undisturbed


def test_run_that_is_complete_says_so_and_changes_nothing(tmp_path, whole):
    copied(whole, tmp_path)
    before = content(tmp_path / "run")
    for more in ((), ("machines.count=3",), ("changes=accept", "tasksets.seed=9")):
        done = run_cli(tmp_path, "resume=run", *more)
        assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "complete: run\n", "")
    assert content(tmp_path / "run") == before


PICKY = """
from runner.errors import TaskSetError
from runner.sessions.simulation import SimulationSession


class Picky(SimulationSession):
    def start(self, taskset, deadline):
        if taskset.name == "u0.7-0":
            raise TaskSetError("not to my taste")
        super().start(taskset, deadline)
"""


def test_bad_sets_stay_bad_and_the_code_stays_what_it_was(tmp_path):
    (tmp_path / "own.py").write_text(PICKY)
    picky = ("machines=custom", "machines.session._target_=own.Picky", *IDEAL[1:])
    for arguments in (picky, ("resume=run",)):
        assert run_cli(tmp_path, *arguments).returncode == ExitCode.BAD_TASKSETS
    assert status(tmp_path)["tasksets"]["bad"] == 1


def test_run_that_ended_before_its_end_was_noted_is_finished(tmp_path, whole):
    """All is measured, but the runner died before Parquet and manifest were written."""
    copied(whole, tmp_path)
    known = manifest(tmp_path)
    del known["ended"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(known))
    shutil.rmtree(tmp_path / "run" / "parquet")
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    assert (tmp_path / "run" / "parquet" / "jobs.parquet").exists()


def test_one_runner_per_folder(tmp_path):
    with started_cli(tmp_path, *SLOW, "machines.session.realtime_factor=0.01") as process:
        assert eventually(
            lambda: status(tmp_path).get("tasksets", {}).get("running") == 2, within_s=PATIENCE_S
        )
        log = (tmp_path / "run" / "distributor.log").read_text()
        for arguments in (("resume=run",), SLOW):
            refused = run_cli(tmp_path, *arguments)
            assert refused.returncode == ExitCode.USAGE
            assert f"process {process.pid} on {os.uname().nodename}" in refused.stderr
            assert "Traceback" not in refused.stderr
        assert "Traceback" not in (tmp_path / "run" / "distributor.log").read_text()[len(log) :]
        process.kill()
        process.wait()
    assert (tmp_path / "run" / "run.lock").exists()
    fast = "machines.session.realtime_factor=null"
    assert run_cli(tmp_path, "resume=run", fast, "changes=accept").returncode == ExitCode.OK
    assert_complete(tmp_path)


def test_changed_config_is_refused_key_by_key_unless_accepted(tmp_path, drained):
    copied(drained, tmp_path)
    before = content(tmp_path / "run")
    added = ("machines.count=4", "~monitors.summary", "machines.session.realtime_factor=null")
    refused = run_cli(tmp_path, "resume=run", *added)
    assert refused.returncode == ExitCode.USAGE
    for words in (
        "machines.count: 2 → 4",
        "machines.session.realtime_factor: 2 → null",
        'monitors.summary._target_: "runner.monitors.summary.SummaryMonitor" → (not there)',
        "changes=accept",
    ):
        assert words in refused.stderr
    after = content(tmp_path / "run")
    assert after.pop("distributor.log").startswith(before.pop("distributor.log"))
    assert after == before
    done = run_cli(tmp_path, "resume=run", *added, "changes=accept")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    (resumed,) = manifest(tmp_path)["resumed"]
    assert resumed["changes"]["machines.count"] == [2, 4]
    assert "machines: 4" in (tmp_path / "run" / "control.yaml").read_text()


def test_accepted_changes_hold_from_then_on(tmp_path, drained):
    copied(drained, tmp_path)
    stopped(
        tmp_path,
        signal.SIGKILL,
        when=lambda: status(tmp_path).get("desired", {}).get("machines") == 1,
        more=("resume=run", "machines.count=1", "machines.session.realtime_factor=1", "changes=accept"),
    )
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    first, second = manifest(tmp_path)["resumed"]
    assert first["changes"] == {"machines.count": [2, 1], "machines.session.realtime_factor": [2, 1]}
    assert second["changes"] == {}


def test_other_task_sets_are_refused_even_if_accepted(tmp_path, drained):
    copied(drained, tmp_path)
    refused = run_cli(tmp_path, "resume=run", "tasksets.seed=99", "changes=accept")
    assert refused.returncode == ExitCode.USAGE
    assert "yields another one" in refused.stderr


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("packages", "rtfleet"), "0.0.1", 'rtfleet: "0.0.1" → '),
        (("simulator",), 0, "simulator: 0 → "),
        (("guest",), {"image_sha256": "ab" * 32}, f'guest image: "{"ab" * 29}'),
    ],
)
def test_another_program_simulator_or_image_is_refused(tmp_path, drained, place, value, words):
    copied(drained, tmp_path)
    known = manifest(tmp_path)
    inner = known
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(known))
    refused = run_cli(tmp_path, "resume=run")
    assert refused.returncode == ExitCode.USAGE
    assert words in refused.stderr
    assert run_cli(tmp_path, "resume=run", "changes=accept").returncode == ExitCode.OK


def test_changed_config_file_is_noticed(tmp_path):
    """Of a folder of the user's, whose flag need not be given again; from wherever the run is resumed."""
    own = tmp_path / "conf" / "experiment" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nmachines: {limit: 3}\n")
    stopped(tmp_path, signal.SIGTERM, more=("--config-dir", "conf", "experiment=own"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own.write_text("# @package _global_\nmachines: {limit: 5}\n")
    refused = run_cli(elsewhere, "resume=../run")
    assert refused.returncode == ExitCode.USAGE
    assert "machines.limit: 3 → 5" in refused.stderr
    own.write_text("# @package _global_\nmachines: {limit: 3}\n")
    assert run_cli(elsewhere, "resume=../run").returncode == ExitCode.OK
    assert_complete(tmp_path)


def test_run_folder_may_have_moved(tmp_path, killed):
    copied(killed, tmp_path)
    (tmp_path / "run").rename(tmp_path / "a b")
    done = run_cli(tmp_path, "resume=a b")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path, "a b")
    assert not (tmp_path / "run").exists()


#: The old control file, and what is wanted then: machines, state, and whether the file stays.
CONTROLS = {
    "as it was left": ("# mine\nmachines: 1\nstate: run\n", (1, "run"), True),
    "drain": ("# mine\nmachines: 3\nstate: drain\n", (3, "run"), False),
    "kill": ("machines: 1\nstate: kill\n", (1, "run"), False),
    "garbage": ("machines: [\n", (2, "run"), False),
    "more than the limit": ("machines: 99\nstate: run\n", (2, "run"), False),
    "no file": (None, (2, "run"), False),
    "no text": ("\xff\0", (2, "run"), False),
}


@pytest.mark.parametrize("case", CONTROLS)
def test_old_control_file_is_followed_but_for_the_end_that_it_asked_for(tmp_path, killed, case):
    text, wanted, stays = CONTROLS[case]
    copied(killed, tmp_path)
    path = tmp_path / "run" / "control.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="latin-1")
        path.chmod(0o600)
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    assert status(tmp_path)["desired"] == {"machines": wanted[0], "state": wanted[1]}
    assert (path.read_text() == text) is stays
    assert f"machines: {wanted[0]}" in path.read_text()


def test_paused_run_stays_paused_and_says_so(tmp_path, killed):
    copied(killed, tmp_path)
    path = tmp_path / "run" / "control.yaml"
    path.write_text("machines: 2\nstate: pause\n")
    n_before = n_recorded(tmp_path)
    with started_cli(tmp_path, "resume=run") as process:
        assert eventually(
            lambda: status(tmp_path).get("observed", {}).get("state") == "pause", within_s=PATIENCE_S
        )
        time.sleep(1.0)
        assert n_done(tmp_path) == n_before
        path.write_text("machines: 2\nstate: run\n")
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK, stderr
    assert "says pause" in stderr
    assert_complete(tmp_path)


def test_run_without_a_data_set_cannot_be_resumed(tmp_path):
    stopped(
        tmp_path,
        signal.SIGINT,
        signal.SIGINT,
        when=lambda: status(tmp_path).get("tasksets", {}).get("running") == 2,
        more=("monitors=[logging]",),
    )
    refused = run_cli(tmp_path, "resume=run")
    assert refused.returncode == ExitCode.USAGE
    assert "keeps no data set" in refused.stderr
    assert "sqlite" in refused.stderr


NOT_RESUMED = {
    "no folder": ("resume=nosuch", "nosuch is no folder"),
    "a folder without a run": ("resume=.", "holds no run that had begun"),
    "one run taken for a sweep": ("--multirun", "holds one run, and no sweep"),
    "another folder, too": ("hydra.run.dir=other", "resume= says where the run is"),
    "no such answer": ("changes=maybe", "changes is 'maybe'"),
}


@pytest.mark.parametrize("case", NOT_RESUMED)
def test_what_cannot_be_resumed_says_why(tmp_path, whole, case):
    copied(whole, tmp_path)
    argument, words = NOT_RESUMED[case]
    refused = run_cli(tmp_path, *(() if argument.startswith("resume") else ("resume=run",)), argument)
    assert refused.returncode == ExitCode.USAGE
    assert words in refused.stderr
    assert "  next:  " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_changes_are_accepted_of_something_only(tmp_path):
    refused = run_cli(tmp_path, *IDEAL, "changes=accept")
    assert refused.returncode == ExitCode.USAGE
    assert "goes with resume=" in refused.stderr


DAMAGES = {
    "config": (".hydra/config.yaml", b"a: ["),
    "tags": (".hydra/config.yaml", b"a: !!python/object/apply:os.system [touch x]\n"),
    "Hydra's part": (".hydra/hydra.yaml", b"hydra: {}\n"),
    "no text": (".hydra/hydra.yaml", b"\xff\xfe\0"),
    "nothing": (".hydra/hydra.yaml", b""),
    "manifest": ("manifest.json", b'{"version": 1'),
    "manifest that is none": ("manifest.json", b"[" * 100_000),
    "data set": ("results.sqlite", b"no database at all, but as long as one has to be" * 100),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_refused_by_name(tmp_path, killed, case):
    copied(killed, tmp_path)
    name, damage = DAMAGES[case]
    for path in (tmp_path / "run").glob(f"{name}*"):
        path.unlink()
    (tmp_path / "run" / name).write_bytes(damage)
    refused = run_cli(tmp_path, "resume=run")
    assert refused.returncode in (ExitCode.USAGE, ExitCode.HOST), refused.stderr
    assert name.split("/")[0] in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "x").exists()


def test_run_that_was_stored_but_had_not_begun_is_started(tmp_path, killed):
    """As a crash between config and manifest leaves it; and one before both is told."""
    copied(killed, tmp_path)
    record = tmp_path / "run" / ".hydra"
    kept = content(record)
    shutil.rmtree(tmp_path / "run")
    record.mkdir(parents=True)
    for name, text in kept.items():
        (record / name).write_bytes(text)
        (record / name).chmod(0o600)
    for folder in (record, record.parent):
        folder.chmod(0o700)
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    assert "resumed" not in manifest(tmp_path)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run" / "..hydra.abcdefgh").mkdir(parents=True)
    refused = run_cli(tmp_path, "resume=run")
    assert refused.returncode == ExitCode.USAGE
    assert "nothing was measured" in refused.stderr


def test_config_can_be_shown_of_a_run(tmp_path, killed):
    copied(killed, tmp_path)
    shown = run_cli(tmp_path, "--cfg", "job", "--package", "machines.count", "resume=run")
    assert (shown.returncode, shown.stdout) == (0, "2\n")


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether it has a handler for SIGTERM: Python has none by itself, our first line sets it."""
    caught = re.search(r"(?m)^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_the_first_second_ends_with_a_line(tmp_path, number):
    """Wherever it hits: imports, composing, checking, the first machines."""
    for delay_s in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2):
        folder = tmp_path / f"{delay_s}"
        folder.mkdir()
        with started_cli(folder, *SLOW) as process:
            assert eventually(partial(listens, process), within_s=PATIENCE_S)
            time.sleep(delay_s)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in stderr, (delay_s, stderr)
        if "6/6, 6 done" in stderr:  # a quick computer had measured everything, or was about to
            assert process.returncode in (ExitCode.OK, ExitCode.STOPPED), (delay_s, stderr)
        else:
            assert process.returncode == ExitCode.STOPPED, (delay_s, stderr)
            assert re.search(r"stopped before anything was measured|to go on: ", stderr), (delay_s, stderr)
        assert [path.name for path in folder.rglob("*") if path.name.startswith((".", "run.lock"))] in (
            [],
            [".hydra"],
        )


@pytest.mark.guest
def test_killed_run_on_guests_goes_on(tmp_path):
    """The same tables, bit for bit, as if nobody had pulled the plug."""
    few = ("tasksets.utilizations=[0.3,0.5]", "tasksets.sets_per_utilization=3", "tasksets.hyperperiods=4")
    calm = tmp_path / "calm"
    calm.mkdir()
    assert run_cli(calm, *few).returncode == ExitCode.OK
    with started_cli(tmp_path, *few, "machines.count=2") as process:
        assert eventually(lambda: n_done(tmp_path) >= 1, within_s=PATIENCE_S)
        process.kill()
        process.wait()
    assert eventually(lambda: not processes_of(tmp_path), within_s=5.0)
    done = run_cli(tmp_path, "resume=run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert_complete(tmp_path)
    assert ask(tmp_path, JOBS) == ask(calm, JOBS)
    assert eventually(lambda: not processes_of(tmp_path / "run"), within_s=5.0)
