"""How many machines all runs of this computer have together: seats, and runs that share them."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.admission.seats import Seats
from runner.exit_codes import ExitCode
from tests.cli import ROOT, run_cli, started_cli
from tests.qemu_guests import PATIENCE_S, eventually
from tests.test_cli_resume import ask, assert_complete, status


def test_seats_are_had_once(tmp_path):
    one, other = Seats(4, tmp_path), Seats(4, tmp_path)
    assert (one.hold(3), other.hold(3)) == (3, 1)
    assert other.hold(0) == 0
    assert (one.hold(9), other.hold(1)) == (4, 0)
    one.hold(2)
    assert (other.hold(4), one.held, other.held) == (2, 2, 2)
    one.hold(0)
    other.hold(0)


@settings(max_examples=50)
@given(
    limits=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=20),
)
def test_no_run_sees_more_machines_than_it_allows(tmp_path_factory, limits, steps):
    """Of the runs that say `n` at most, and those that say less, no more than `n` machines are ever there."""
    folder = tmp_path_factory.mktemp("seats")
    runs = [Seats(limit, folder) for limit in limits]
    try:
        for which, n in steps:
            seats = runs[which % len(runs)]
            before = seats.held
            held = seats.hold(n)
            assert held == seats.held <= min(n, seats.limit)
            assert held >= min(n, before)
            for limit in limits:
                assert sum(one.held for one in runs if one.limit <= limit) <= limit
    finally:
        for seats in runs:
            seats.hold(0)


def test_seats_of_who_was_killed_are_free(tmp_path):
    text = (
        "import sys, time; from pathlib import Path; from runner.admission.seats import Seats\n"
        "seats = Seats(2, Path(sys.argv[1])); print(seats.hold(2), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", text, str(tmp_path)]
    seats = Seats(2, tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        assert seats.hold(2) == 0
        process.kill()
        process.wait()
    assert seats.hold(2) == 2
    seats.hold(0)


def n_machines(folder: Path, run: str) -> int:
    return int(status(folder, run).get("observed", {}).get("machines", 0))


def allowed(folder: Path, run: str) -> dict[str, Any]:
    return dict(status(folder, run).get("allowed", {"shortage": None}))


def test_two_runs_share_what_the_computer_may_have(tmp_path):
    """The second waits, says so, and gets what the first gives back."""
    mine = {"RTFLEET_CACHE": str(tmp_path / "cache")}
    sets = ("machines=simulation", "tasksets.utilizations=[0.5]", "tasksets.sets_per_utilization=500")
    wanted = (*sets, "machines.count=4", "machines.admission.computer_limit=4")
    slow = "machines.session.realtime_factor=1"
    with started_cli(tmp_path, *wanted, slow, "hydra.run.dir=first", env=mine) as first:
        assert eventually(lambda: n_machines(tmp_path, "first") == 4, within_s=PATIENCE_S)
        with started_cli(tmp_path, *wanted, slow, "hydra.run.dir=second", env=mine) as second:
            assert eventually(lambda: allowed(tmp_path, "second")["shortage"], within_s=PATIENCE_S)
            assert n_machines(tmp_path, "second") == allowed(tmp_path, "second")["machines"] == 0
            assert "other runs have the rest of the 4 machines" in allowed(tmp_path, "second")["shortage"]
            (tmp_path / "first" / "control.yaml").write_text("machines: 1\nstate: run\n")
            assert eventually(lambda: n_machines(tmp_path, "second") == 3, within_s=PATIENCE_S)
            assert n_machines(tmp_path, "first") == 1
            (tmp_path / "first" / "control.yaml").write_text("machines: 1\nstate: drain\n")
            assert first.wait(timeout=PATIENCE_S) == ExitCode.STOPPED
            assert eventually(lambda: n_machines(tmp_path, "second") == 4, within_s=PATIENCE_S)
            (tmp_path / "second" / "control.yaml").write_text("machines: 4\nstate: kill\n")
            _, stderr = second.communicate(timeout=PATIENCE_S)
    assert "0 at most: other runs have the rest" in stderr


def test_limits_that_make_no_sense_are_refused(tmp_path):
    refused = run_cli(tmp_path, "machines=simulation", "machines.admission.computer_limit=0")
    assert refused.returncode == ExitCode.USAGE
    assert "machines.admission.computer_limit is 0" in refused.stderr


@pytest.mark.guest
def test_jobs_of_a_sweep_have_no_more_guests_than_one_run(tmp_path):
    """Two at a time, each of which wants two guests, where one run may have two."""
    few = ("tasksets.utilizations=[0.3]", "tasksets.sets_per_utilization=8", "tasksets.hyperperiods=2")
    at_once = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "tasksets.seed=1,2")
    fleet = ("machines.count=2", "machines.limit=2")
    done = run_cli(tmp_path, "--multirun", "hydra.sweep.dir=sweep", *few, *fleet, *at_once)
    assert done.returncode == ExitCode.OK, done.stderr
    changes: list[tuple[float, int]] = []
    for run in "01":
        assert_complete(tmp_path, f"sweep/{run}", 8)
        for started_utc, wall_s in ask(tmp_path, "SELECT started_utc, wall_s FROM runs", f"sweep/{run}"):
            began_s = datetime.fromisoformat(started_utc).timestamp()
            changes += [(began_s, 1), (began_s + wall_s, -1)]
    assert max(accumulate(change for _, change in sorted(changes))) <= 2
