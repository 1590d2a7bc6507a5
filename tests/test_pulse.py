"""Whether a run goes on, as told from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.paths import RunPaths
from runner.run_folder.lock import RunLock
from runner.run_folder.pulse import Pulse, read_pulse


def write(folder: Path, **content: object) -> RunPaths:
    (folder / "status.json").write_text(json.dumps({"pid": 7, "ended": None, **content}))
    return RunPaths(folder)


def test_a_run_goes_on_while_somebody_holds_its_lock(tmp_path):
    machine = {"phase": "aside", "taskset_id": None, "done": 3, "until_utc": "2026-01-01T00:00:00+00:00"}
    paths = write(
        tmp_path,
        # What an earlier runner said, whose run was resumed.
        ended="stopped by the operator",
        observed={"by_machine": {"qemu1": machine, "qemu2": 7}},
        held="the disk is full",
        allowed={"shortage": "little memory"},
    )
    with RunLock(tmp_path):
        found = read_pulse(paths)
    assert (found.goes_on, found.ended) == (True, None)
    assert (found.held, found.shortage) == ("the disk is full", "little memory")
    assert found.machines["qemu1"].phase == "aside"
    assert found.machines["qemu1"].n_done == 3
    assert found.machines["qemu2"].phase == ""
    found = read_pulse(paths)
    assert (found.goes_on, found.ended, found.machines) == (False, "stopped by the operator", {})


def test_a_lock_that_a_killed_runner_left_is_nobodys(tmp_path):
    paths = write(tmp_path)
    paths.lock.write_text("process 7 on nowhere\n")
    assert not read_pulse(paths).goes_on


def test_to_ask_does_not_stand_in_a_runners_way(tmp_path):
    paths = write(tmp_path)
    with RunLock(tmp_path):
        assert read_pulse(paths).goes_on
    read_pulse(paths)
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"desired": 3, "observed": {"by_machine": []}}']
)  # fmt: skip
def test_a_damaged_status_tells_nothing(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    found = read_pulse(RunPaths(tmp_path))
    assert found in (Pulse(), Pulse(known=True))
