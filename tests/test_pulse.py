"""Whether a run goes on, as told from outside."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.paths import RunPaths
from runner.pulse import Pulse, read_pulse

LONG_AGO = "2001-01-01T00:00:00+00:00"


def write(folder: Path, **content: object) -> RunPaths:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"pid": os.getpid(), "started_utc": now, "ended": None, **content}
    (folder / "status.json").write_text(json.dumps(status))
    return RunPaths(folder)


def test_a_run_goes_on_while_its_process_lives(tmp_path):
    machine = {"phase": "aside", "taskset_id": None, "done": 3, "until_utc": "2026-01-01T00:00:00+00:00"}
    observed = {"by_machine": {"qemu1": machine, "qemu2": 7}}
    found = read_pulse(write(tmp_path, observed=observed, held="the disk is full"))
    assert found.goes_on
    assert found.held == "the disk is full"
    assert found.machines["qemu1"].phase == "aside"
    assert found.machines["qemu1"].n_done == 3
    assert found.machines["qemu2"].phase == ""


def test_another_process_with_its_number_is_not_it(tmp_path):
    assert not read_pulse(write(tmp_path, started_utc=LONG_AGO)).goes_on


@pytest.mark.parametrize("pid", [None, 0, -1, 2**40, 2**100, True, "1", [1]])
def test_a_process_that_cannot_be_is_gone(tmp_path, pid):
    assert not read_pulse(write(tmp_path, pid=pid)).goes_on


def test_one_that_said_how_it_ended_has_ended(tmp_path):
    found = read_pulse(write(tmp_path, ended="stopped by the operator"))
    assert (found.goes_on, found.ended) == (False, "stopped by the operator")


def test_the_lock_knows_better_than_the_status(tmp_path):
    paths = write(tmp_path, pid=2**22 + 1, ended="stopped by the operator")
    with paths.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = read_pulse(paths)
        assert (found.goes_on, found.ended) == (True, None)
    # Left behind by a runner that was killed; ours is another process.
    write(tmp_path)
    assert not read_pulse(paths).goes_on


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"desired": 3, "observed": {"by_machine": []}}']
)  # fmt: skip
def test_a_damaged_status_tells_nothing(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    found = read_pulse(RunPaths(tmp_path))
    assert found in (Pulse(), Pulse(known=True))
