"""One runner per run folder, whatever became of the last one; and what that one has left is cleared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.qemu.console_link import LINK_NAME, write_link
from runner.run_folder.lock import RunLock, clear_leftovers
from tests.cli import ROOT

#: Takes the lock, and keeps it until its input ends; a child of its own, which it leaves, goes on sleeping.
HOLDER = """
import subprocess, sys
from pathlib import Path
from runner.run_folder.lock import RunLock
with RunLock(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
child.kill()
"""


@contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.communicate()
        os.kill(child, 9)


def test_a_second_runner_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _), pytest.raises(UsageError) as caught, RunLock(tmp_path):
        pass
    message = str(caught.value)
    for words in (f"process {process.pid} on {os.uname().nodename}, since 20", str(tmp_path), "SIGTERM"):
        assert words in message


def test_a_killed_owner_is_noticed_at_once_though_its_child_lives(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, child):
        process.kill()
        process.wait()
        assert (tmp_path / "run.lock").exists()
        os.kill(child, 0)
        with RunLock(tmp_path):
            assert f"process {os.getpid()} on" in (tmp_path / "run.lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_gone_afterwards_also_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with RunLock(tmp_path):
            assert (tmp_path / "run.lock").stat().st_mode & 0o077 == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_whoever_waits_for_the_file_does_not_get_one_that_is_removed(tmp_path: Path) -> None:
    """Owners come and go: at no time are there two, though each removes the file."""
    inside: list[int] = []

    def take(number: int) -> int:
        try:
            with RunLock(tmp_path):
                inside.append(number)
                assert inside == [number]
                inside.remove(number)
        except UsageError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        n_taken = sum(pool.map(take, range(2000)))
    assert n_taken > 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_runner_has_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    machine = tmp_path / "machines" / "qemu1"
    machine.mkdir(parents=True)
    (tmp_path / "parquet" / ".partial-x1y2").mkdir(parents=True)
    (tmp_path / "parquet" / ".partial-x1y2" / "jobs.parquet").write_text("")
    (tmp_path / "..hydra.a1b2c3d4").mkdir()
    ours = [".control.yaml.abcd_123", ".status.json.00000000", ".manifest.json.zzzzzzzz"]
    theirs = [".control.yaml.swp", "control.yaml~", ".status.json.ABCDEFGH", "results.sqlite-wal", ".notes"]
    for name in (*ours, *theirs):
        (tmp_path / name).write_text("")
    ended = subprocess.Popen(["true"])
    ended.wait()
    (machine / LINK_NAME).write_text(json.dumps({"pty": "/dev/pts/0", "pid": ended.pid, "started_ticks": 1}))
    (machine / f".{LINK_NAME}.abcdefgh").write_text("")
    (machine / "console.log").write_text("")
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / ".partial-1").write_text("")
    (tmp_path / "machines" / "qemu2").symlink_to(outside)

    clear_leftovers(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*theirs, "machines", "parquet"])
    assert list((tmp_path / "parquet").iterdir()) == []
    assert [path.name for path in machine.iterdir()] == ["console.log"]
    assert (outside / ".partial-1").exists()


def test_the_console_of_a_guest_that_lives_stays(tmp_path: Path) -> None:
    machine = tmp_path / "machines" / "qemu1"
    machine.mkdir(parents=True)
    remove = write_link(machine, "/dev/pts/0", os.getpid())
    clear_leftovers(tmp_path)
    assert (machine / LINK_NAME).exists()
    remove()


def test_there_may_be_nothing_to_clear(tmp_path: Path) -> None:
    clear_leftovers(tmp_path)
    clear_leftovers(tmp_path / "nosuch")
