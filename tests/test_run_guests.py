"""The main job on real guests: measured, steered while it runs, and gone without a trace."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.exit_codes import ExitCode
from tests.cli import processes_of, run_cli, started_cli
from tests.qemu_guests import PATIENCE_S, eventually

pytestmark = pytest.mark.guest

#: More than any test waits for; each set takes about a second.
LONG = ("tasksets.sets_per_utilization=200", "tasksets.hyperperiods=15")
VALID = "outcome IN ('completed', 'timeout')"
FEW = ("tasksets.sets_per_utilization=1", "tasksets.hyperperiods=1")


def status(folder: Path) -> dict[str, Any]:
    path = folder / "run" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def n_done(folder: Path) -> int:
    return int(status(folder).get("tasksets", {}).get("done", 0))


def phases(folder: Path) -> list[str]:
    machines = status(folder).get("observed", {}).get("by_machine", {})
    return sorted(machine["phase"] for machine in machines.values())


def guests(folder: Path) -> list[str]:
    """The machines that have a guest. Each has one, and at most another that is made ready or was just used."""
    running = [command.split() for command in processes_of(folder) if "qemu-system" in command]
    of_machine = Counter(words[words.index("-name") + 1] for words in running)
    assert not of_machine or max(of_machine.values()) <= 2
    return sorted(of_machine)


def query(folder: Path, sql: str, run: str = "run") -> list[tuple[Any, ...]]:
    path = folder / run / "results.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def steer(folder: Path, machines: int, state: str) -> None:
    (folder / "run" / "control.yaml").write_text(f"machines: {machines}\nstate: {state}\n")


def assert_nothing_is_left(folder: Path) -> None:
    assert eventually(lambda: not processes_of(folder), within_s=2.0), processes_of(folder)
    strays = [
        str(path)
        for path in (folder / "run").rglob("*")
        if not path.is_dir() and (not path.is_file() or path.name.startswith("."))
    ]
    assert strays == []


def test_default_run_measures_twenty_sets(tmp_path):
    done = run_cli(tmp_path)
    assert done.returncode == ExitCode.OK, done.stderr
    assert status(tmp_path)["tasksets"] == {"total": 20, "done": 20, "bad": 0, "running": 0}
    # A row per job. What an overloaded set could not even begin before its end was stopped then, and has no start.
    jobs = "SELECT count(*), count(release_ns), count(start_ns), count(finish_ns) FROM jobs WHERE exit_type"
    (normal,) = query(tmp_path, f"{jobs} = 'EXIT'")
    (stopped,) = query(tmp_path, f"{jobs} = 'EXIT_EXTERNAL'")
    assert normal[0] > 1000
    assert normal == (normal[0],) * 4
    assert stopped[0] == stopped[1] == stopped[3]
    assert [(normal[0] + stopped[0],)] == query(
        tmp_path, "SELECT sum(tasks.n_jobs) FROM runs JOIN tasks USING (taskset_id)"
    )
    points = query(tmp_path, "SELECT utilization, n_tasksets FROM acceptance")
    assert points == [(0.5, 4), (0.65, 4), (0.8, 4), (0.9, 4), (1.0, 4)]
    table = [line.split()[:2] for line in done.stdout.splitlines() if line[:2] in ("0.", "1.")]
    assert table == [["0.50", "4"], ["0.65", "4"], ["0.80", "4"], ["0.90", "4"], ["1.00", "4"]]
    assert done.stdout.splitlines()[-1] == "run folder: run"
    guest = json.loads((tmp_path / "run" / "manifest.json").read_text())["guest"]
    assert len(guest["image_sha256"]) == 64
    assert guest["qemu"].startswith("QEMU emulator version")
    assert "rt" in guest["kernel_release"]
    own = sorted(path.name for path in (tmp_path / "run" / "machines" / "qemu1").iterdir())
    # Whoever had to make the snapshot has its logs, too.
    assert [name for name in own if not name.startswith("snapshot-")] == [
        "console.log",
        "machine.log",
        "qemu.stderr",
    ]
    assert_nothing_is_left(tmp_path)


def test_fleet_follows_the_control_file(tmp_path):
    """Two guests busy; then four, one, none: each within a second, as `status.json` shows and the processes prove."""
    with started_cli(tmp_path, *LONG, "machines.count=2") as process:
        assert eventually(lambda: phases(tmp_path) == ["running"] * 2, within_s=PATIENCE_S)
        assert guests(tmp_path) == ["qemu1", "qemu2"]

        steer(tmp_path, 4, "run")
        assert eventually(lambda: len(phases(tmp_path)) == 4, within_s=1.0), status(tmp_path)
        assert status(tmp_path)["desired"] == {"machines": 4, "state": "run"}
        assert eventually(lambda: phases(tmp_path) == ["running"] * 4), status(tmp_path)
        assert len(guests(tmp_path)) == 4

        n_before = n_done(tmp_path)
        steer(tmp_path, 1, "run")
        assert eventually(lambda: status(tmp_path)["desired"]["machines"] == 1, within_s=1.0)
        # The surplus ones finish their task sets first.
        assert eventually(lambda: phases(tmp_path) == ["running"], within_s=20.0), status(tmp_path)
        assert eventually(lambda: len(guests(tmp_path)) == 1, within_s=2.0)
        assert n_done(tmp_path) >= n_before + 3
        assert query(tmp_path, f"SELECT count(*) FROM runs WHERE NOT {VALID}") == [(0,)]

        steer(tmp_path, 1, "kill")
        assert eventually(lambda: status(tmp_path)["observed"]["state"] == "kill", within_s=1.0)
        assert eventually(lambda: not guests(tmp_path), within_s=1.0)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "Traceback" not in stderr
    assert status(tmp_path)["ended"] == "stopped by the operator"
    assert status(tmp_path)["tasksets"]["bad"] == 0
    assert_nothing_is_left(tmp_path)


def test_paused_run_starts_nothing_and_goes_on_later(tmp_path):
    with started_cli(tmp_path, "tasksets.sets_per_utilization=2", "tasksets.hyperperiods=6") as process:
        assert eventually(lambda: n_done(tmp_path) >= 1, within_s=PATIENCE_S)
        steer(tmp_path, 1, "pause")
        assert eventually(lambda: status(tmp_path)["observed"]["state"] == "pause", within_s=1.0)
        assert eventually(lambda: phases(tmp_path) == ["idle"]), status(tmp_path)
        n_paused = n_done(tmp_path)
        assert n_paused < 10
        time.sleep(0.5)
        assert n_done(tmp_path) == n_paused
        assert len(guests(tmp_path)) == 1, "machines stay"
        steer(tmp_path, 1, "run")
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK, stderr
    assert n_done(tmp_path) == 10
    assert_nothing_is_left(tmp_path)


def test_killed_runner_leaves_no_guest(tmp_path):
    with started_cli(tmp_path, *LONG, "machines.count=2") as process:
        assert eventually(lambda: phases(tmp_path) == ["running"] * 2, within_s=PATIENCE_S)
        assert guests(tmp_path) == ["qemu1", "qemu2"]
        process.kill()
        process.wait()
        assert_nothing_is_left(tmp_path)


def test_interrupted_run_keeps_what_it_measured(tmp_path):
    with started_cli(tmp_path, *LONG) as process:
        assert eventually(lambda: n_done(tmp_path) >= 1, within_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == ExitCode.STOPPED, stderr
    assert "run folder: run" in stdout
    done = n_done(tmp_path)
    assert query(tmp_path, f"SELECT count(*) FROM runs WHERE {VALID}") == [(done,)]
    assert query(tmp_path, "SELECT count(*) FROM runs WHERE n_jobs IS NULL") == [(0,)]
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("machines", "arch"), [("amd64", "amd64"), ("ssh", "arm64"), ("host_clock", "amd64")]
)
def test_other_machines_measure_too(tmp_path, machines, arch):
    done = run_cli(tmp_path, f"machines={machines}", *FEW, "tasksets.utilizations=[0.2, 0.3]")
    assert done.returncode == ExitCode.OK, done.stderr
    rows = query(tmp_path, f"SELECT arch, outcome, validity FROM runs WHERE {VALID}")
    validities: dict[str, set[str | None]] = {
        "amd64": {"exact"},
        "ssh": {None},
        # Whether it was disturbed depends on who else uses this computer.
        "host_clock": {"undisturbed", "disturbed"},
    }
    assert [row[:2] for row in rows] == [(arch, "completed")] * 2
    assert {row[2] for row in rows} <= validities[machines]
    assert_nothing_is_left(tmp_path)


def test_a_guest_for_all_sets_measures_too(tmp_path):
    """And goes on where the last set left it."""
    done = run_cli(tmp_path, "machines.reset=machine", *FEW)
    assert done.returncode == ExitCode.OK, done.stderr
    starts = [ns for (ns,) in query(tmp_path, "SELECT t0_guest_ns FROM runs ORDER BY started_utc")]
    assert starts == sorted(set(starts))
    assert len(starts) == 5
    assert_nothing_is_left(tmp_path)


def test_what_was_measured_is_not_measured_again(tmp_path):
    """Nor is a guest started for it."""
    assert run_cli(tmp_path, *FEW, "repeat=2").returncode == ExitCode.OK
    measured = query(tmp_path, "SELECT taskset_id, table_sha256 FROM runs ORDER BY run_id")
    assert len(measured) == 10
    assert len(set(measured)) == 5
    done = run_cli(tmp_path, *FEW, "repeat=2", "reuse=run", "hydra.run.dir=again")
    assert done.returncode == ExitCode.OK, done.stderr
    reused = "SELECT taskset_id, table_sha256 FROM runs WHERE reused_from IS NOT NULL ORDER BY run_id"
    assert query(tmp_path, reused, run="again") == measured
    assert not list((tmp_path / "again").rglob("console.log"))


RUINOUS = """
# @package _global_
defaults: [{override /tasksets: explicit}]
tasksets:
  tasksets:
    - {name: panic, tasks: [{period: null, workload: executable, workload_args: {path: panic.sh}}]}
    - {name: orphan, tasks: [{period: null, workload: executable, workload_args: {path: orphan.sh}}]}
    - {name: overload, stop: 1s, tasks: [{period: 20ms, wcet: 20ms, n_jobs: 50}, {period: 20ms, wcet: 40ms, n_jobs: 50}]}
    - {name: normal, tasks: [{period: 20ms, wcet: 5ms, n_jobs: 10}]}
"""


def test_what_ruins_its_guest_is_recorded_and_the_run_goes_on(tmp_path):
    (tmp_path / "panic.sh").write_text(
        "#!/bin/sh\necho 1 > /proc/sys/kernel/sysrq\necho c > /proc/sysrq-trigger\n"
    )
    (tmp_path / "orphan.sh").write_text("#!/bin/sh\nkill -9 $(pidof taskloader)\n")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "ruin.yaml").write_text(RUINOUS)
    done = run_cli(tmp_path, "--config-dir=conf", "experiment=ruin", "machines.policy.max_tries=2")
    assert done.returncode == ExitCode.BAD_TASKSETS, done.stderr
    outcomes = query(
        tmp_path,
        "SELECT name, outcome, count(*), min(error <> '') FROM runs JOIN tasksets USING (taskset_id) GROUP BY 1, 2 ORDER BY 1",
    )
    assert outcomes == [
        ("normal", "completed", 1, None),
        ("orphan", "guest_crash", 2, 1),
        ("overload", "timeout", 1, None),
        ("panic", "guest_crash", 2, 1),
    ]
    assert query(tmp_path, "SELECT name FROM tasksets WHERE state = 'bad' ORDER BY 1") == [
        ("orphan",),
        ("panic",),
    ]
    assert_nothing_is_left(tmp_path)
