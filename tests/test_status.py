"""`status.json`: always whole, never late, never more often than it should."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runner.faults.recovery import Recovery
from runner.fleet import FleetState, MachineState, Phase, RunState
from runner.operator.control import Control
from runner.operator.status import INTERVAL_S, StatusWriter
from tests.fleet_samples import eventually


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Fleet:
    """A fleet whose state the test sets; counts how often it is asked."""

    def __init__(self) -> None:
        self.n_done = 0
        self.n_asked = 0

    def __call__(self) -> FleetState:
        self.n_asked += 1
        return FleetState(
            state=RunState.RUN,
            desired_machines=3,
            machines=(
                MachineState("qemu1", Phase.RUNNING, "0123456789abcdef", 5),
                MachineState("qemu2", Phase.IDLE),
                MachineState("qemu3", Phase.CLOSED, None, 2),
                MachineState("qemu4", Phase.FAILED),
                MachineState("qemu5", Phase.ASIDE, until=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ),
            recoveries={Recovery.SNAPSHOT: 2},
            n_total=100,
            n_done=self.n_done,
            n_bad=1,
            n_running=1,
        )


def read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_desired_and_observed_stand_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with StatusWriter(path, Fleet()) as status:
        first = read(path)  # there from the beginning
        assert first["desired"] == {"machines": 3, "state": "run"}
        assert first["observed"] == {
            "machines": 2,
            "state": "run",
            "by_machine": {
                "qemu1": {"phase": "running", "taskset_id": "0123456789abcdef", "done": 5},
                "qemu2": {"phase": "idle", "taskset_id": None, "done": 0},
                "qemu5": {
                    "phase": "aside",
                    "taskset_id": None,
                    "done": 0,
                    "until_utc": "2026-01-02T03:04:05+00:00",
                },
            },
            "recoveries": {"snapshot": 2},
        }
        assert first["tasksets"] == {"total": 100, "done": 0, "bad": 1, "running": 1}
        assert (first["pid"], first["ended"], first["control_error"]) == (os.getpid(), None, None)
        assert abs((datetime.fromisoformat(first["updated_utc"]) - datetime.now(UTC)).total_seconds()) < 5
        status.control(Control(5, RunState.PAUSE))
        eventually(lambda: read(path)["desired"] == {"machines": 5, "state": "pause"}, 1.0)


def test_a_control_file_that_cannot_be_followed_is_shown_until_it_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with StatusWriter(path, Fleet()) as status:
        status.control(Control(5, RunState.PAUSE))
        status.control(None, "state is 'stop', line 2")
        eventually(lambda: read(path)["control_error"] == "state is 'stop', line 2", 1.0)
        assert read(path)["desired"] == {"machines": 5, "state": "pause"}  # the last valid content
        status.control(Control(1, RunState.RUN))
        eventually(lambda: read(path)["control_error"] is None, 1.0)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """And nothing but the file is left in the folder."""
    path, fleet = tmp_path / "status.json", Fleet()
    stop = threading.Event()
    n_read = 0
    with StatusWriter(path, fleet) as status:

        def touch() -> None:
            while not stop.wait(0.0005):
                fleet.n_done += 1
                status.touch()

        toucher = threading.Thread(target=touch)
        toucher.start()
        try:
            until_s = time.monotonic() + 1.0
            last = 0
            while time.monotonic() < until_s:
                done = read(path)["tasksets"]["done"]
                assert done >= last
                last = done
                n_read += 1
        finally:
            stop.set()
            toucher.join()
    assert n_read > 50
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_it_is_written_ten_times_a_second_at_most(tmp_path: Path) -> None:
    fleet = Fleet()
    began_s = time.monotonic()
    with StatusWriter(tmp_path / "status.json", fleet) as status:
        while time.monotonic() - began_s < 1.0:
            status.touch()
            time.sleep(0.0005)
    took_s = time.monotonic() - began_s
    assert 5 <= fleet.n_asked <= took_s / INTERVAL_S + 3  # the first and the last come on top


def test_it_costs_nothing_while_nothing_changes(tmp_path: Path) -> None:
    fleet = Fleet()
    with StatusWriter(tmp_path / "status.json", fleet):
        time.sleep(0.3)
        assert fleet.n_asked == 1


def test_the_last_state_is_written_at_the_end(tmp_path: Path) -> None:
    path, fleet = tmp_path / "status.json", Fleet()
    with StatusWriter(path, fleet) as status:
        status.touch()
        eventually(lambda: fleet.n_asked == 2, 1.0)
        fleet.n_done = 99  # without a touch, and within the interval
        status.end("every task set is done")
    final = read(path)
    assert (final["tasksets"]["done"], final["ended"]) == (99, "every task set is done")


def test_it_ends_at_once(tmp_path: Path) -> None:
    with StatusWriter(tmp_path / "status.json", Fleet()):
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 0.5


def test_a_disk_error_is_reported_once_and_writing_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path, fleet = folder / "status.json", Fleet()
    with StatusWriter(path, fleet) as status:
        shutil.rmtree(folder)
        n_asked = [fleet.n_asked]
        for _ in range(3):
            status.touch()
            eventually(lambda: fleet.n_asked > n_asked[-1], 1.0)
            n_asked.append(fleet.n_asked)
        folder.mkdir()  # the disk is back
        status.touch()
        eventually(path.exists, 1.0)
    assert caplog.text.count("cannot be written") == 1
    assert str(path) in caplog.text


def test_a_file_system_without_room_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A folder that takes no files at all, whoever asks."""
    with StatusWriter(Path("/proc/status.json"), Fleet()) as status:
        status.touch()
    assert caplog.text.count("cannot be written") == 1
