"""`python -m runner.rehearse`: every fault, on the config that it applies to; and that it sees a run that does not survive."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from runner.rehearsal.catalogue import FAULTS
from tests.cli import environment, processes_of
from tests.qemu_guests import eventually

#: So that what can only be noticed by its taking too long is noticed soon.
IMPATIENT = ("machines.policy.taskset_timeout_s=4", "machines.policy.taskset_timeout_factor=2")
SMALL = ("tasksets.utilizations=[0.3, 0.5]", "tasksets.sets_per_utilization=2", "tasksets.hyperperiods=1")
HANG_S = 280.0
#: Of which nothing is to do with guests.
OF_THE_RUN = [
    "disk_full",
    "database_down",
    "clock_jump",
    "control_garbage",
    "monitor_raises",
    "monitor_stuck",
    "runner_killed",
    "runner_terminated",
    "interrupted",
]
OF_GUESTS = [one.name for one in FAULTS if one.name not in OF_THE_RUN and not one.name.startswith("ssh")]


def rehearse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner.rehearse", "--sets", "4", *arguments, *SMALL, *IMPATIENT],
        cwd=folder,
        env={**environment(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def survived(done: subprocess.CompletedProcess[str], *names: str) -> None:
    """Every one of these faults came about, and the run survived it."""
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.search(r"  ok$", line)]
    assert sorted(row[0] for row in rows) == sorted(names), done.stdout


def nothing_is_left(folder: Path) -> None:
    assert list(folder.glob("rtfleet-rehearsal-*")) == []
    assert eventually(lambda: not processes_of(folder)), processes_of(folder)


def test_a_simulation_survives_every_fault(tmp_path):
    done = rehearse(tmp_path, "machines=simulation")
    guests_only = {"qemu_stopped", "qmp_gone", "ssh_black_hole", "snapshot_damaged", "memory_refused"}
    survived(done, *(one.name for one in FAULTS if one.name not in guests_only))
    reasons = [line for line in done.stdout.splitlines() if " does not apply: " in line]
    assert {line.split()[0] for line in reasons} == guests_only, (
        "what does not apply is said, with the reason"
    )
    assert "bit for bit" in done.stdout
    nothing_is_left(tmp_path)


@pytest.mark.guest
def test_guests_with_a_mailbox_survive_every_fault_of_guests(tmp_path):
    """The data are equal bit for bit, whatever happened."""
    done = rehearse(tmp_path, "--faults", ",".join(OF_GUESTS))
    survived(done, *OF_GUESTS)
    assert "bit for bit" in done.stdout
    nothing_is_left(tmp_path)


@pytest.mark.guest
def test_guests_over_ssh_survive_what_happens_to_lines(tmp_path):
    names = ("ssh_reset", "ssh_black_hole", "garbage_message", "torn_message", "loader_killed")
    survived(rehearse(tmp_path, "machines=ssh", "--faults", ",".join(names)), *names)
    nothing_is_left(tmp_path)


@pytest.mark.guest
def test_guests_survive_faults_in_pairs(tmp_path):
    done = rehearse(tmp_path, "--pairs", "--seed", "7", "--faults", "runner_killed,disk_full,guest_panic")
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    assert "3 of 3 survived" in done.stdout
    nothing_is_left(tmp_path)


def test_a_run_that_does_not_survive_is_found_out(tmp_path):
    """A set that may be tried but once is given up for a fault that was not its own."""
    done = rehearse(
        tmp_path, "machines=simulation", "machines.policy.max_guest_tries=1", "--faults", "garbage_message"
    )
    assert done.returncode == ExitCode.BUG, done.stdout
    assert "1 sets are bad, and 0 without the fault" in done.stdout
    assert "0 of 1 survived" in done.stdout
    (kept,) = tmp_path.glob("rtfleet-rehearsal-*")
    assert (kept / "1" / "run" / "results.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--faults", "flood"), "no fault is called 'flood'"),
        (("machines=gone",), "machines has no option 'gone'"),
        (("monitors=[logging]", "machines=simulation"), "no monitor keeps a data set"),
        (("machines=simulation", "machines.count=9"), "machines.count is 9"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, arguments, words):
    done = rehearse(tmp_path, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    nothing_is_left(tmp_path)


def test_faults_are_listed_with_the_reason_of_their_deadline(tmp_path):
    done = rehearse(tmp_path, "--list")
    assert all(one.name in done.stdout and one.source in done.stdout for one in FAULTS)


def test_ctrl_c_ends_a_rehearsal_in_order(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "runner.rehearse",
            "machines=simulation",
            "machines.session.realtime_factor=1",
        ],
        cwd=tmp_path,
        env={**environment(tmp_path), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        running = tmp_path.glob
        assert eventually(lambda: bool(list(running("rtfleet-*/reference/run/status.json"))), within_s=HANG_S)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HANG_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == ExitCode.STOPPED, stderr
    assert stderr == "stopped\n"
    nothing_is_left(tmp_path)
