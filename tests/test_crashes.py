"""Nothing is lost and nothing doubled: some of the crashes and kills that the programs beside this file try by the thousand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import ROOT

HANG_S = 280.0


def figures(program: str, folder: Path, *options: str) -> tuple[dict[str, int], str]:
    """The last row of the table that a program prints, by column, and all that it has printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{program}", f"--folder={folder}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    head = re.search(r"^mode +operation +(.*)$", done.stdout, re.MULTILINE)
    total = re.search(r"^all +(.*)$", done.stdout, re.MULTILINE)
    assert head is not None
    assert total is not None
    return dict(zip(head[1].split(), map(int, total[1].split()), strict=True)), done.stdout


def assert_nothing_was_found(found: dict[str, int]) -> None:
    assert {name: found[name] for name in ("lost", "doubled", "differing", "wrong")} == {
        "lost": 0,
        "doubled": 0,
        "differing": 0,
        "wrong": 0,
    }


@pytest.mark.parametrize(("subject", "every"), [("shell", "97"), ("command-line", "113"), ("program", "400")])
def test_a_run_that_crashes_at_a_write_is_gone_on_with(tmp_path: Path, subject: str, every: str) -> None:
    """In each way to crash, at some of its writes, renames and fsyncs; every second one twice."""
    modes = ["kill", "torn", "power", "power-names", "power-some"] if subject != "program" else ["kill"]
    options = [f"--mode={mode}" for mode in modes]
    found, output = figures(
        "crash_every_write", tmp_path, f"--subject={subject}", f"--every={every}", "--seed=150", *options
    )
    assert_nothing_was_found(found)
    assert found["cases"] >= 5 * (subject != "program")
    assert {line.split(":")[0] for line in output.splitlines() if "undisturbed" in line} == set(modes)
    assert list(tmp_path.iterdir()) == []


def test_runners_that_are_killed_at_any_instant_lose_nothing(tmp_path: Path) -> None:
    found, _ = figures("kill_randomly", tmp_path, "--runs=8")
    assert_nothing_was_found(found)
    assert found["cases"] >= 8
    assert found["resumed"] + found["anew"] >= 8


@pytest.mark.guest
def test_no_guest_outlives_a_runner_that_is_killed_and_its_data_are_the_same(tmp_path: Path) -> None:
    found, _ = figures("kill_randomly", tmp_path, "--runs=0", "--guests=2", "--seed=1")
    assert_nothing_was_found(found)
    assert found["cases"] >= 2


def test_what_is_lost_is_found(tmp_path: Path) -> None:
    """The examiner is of no use if it does not see it: without fsync a loss of power takes what was said to be safe."""
    careless = (
        "import sys, runpy\n"
        "from runner.data import ledger\n"
        "prepare = ledger.Ledger._prepare\n"
        "def carelessly(self, database):\n"
        "    prepare(self, database)\n"
        "    database.execute('PRAGMA synchronous = OFF')\n"
        "ledger.Ledger._prepare = carelessly\n"
        "sys.argv[:1] = ['tests.crash_every_write']\n"
        "runpy.run_module('tests.crash_every_write', run_name='__main__')\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            careless,
            f"--folder={tmp_path}",
            "--subject=shell",
            "--every=47",
            "--mode=power",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"\d+ lost", done.stdout), done.stdout
