"""A disk that is really full while a run goes on: the run pauses, loses nothing, and goes on when there is room."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.exit_codes import ExitCode
from tests.fleet_samples import eventually
from tests.small_disk import SmallDisk, small_disk

#: No test waits for so long; reaching it is a hang.
PATIENCE_S = 120.0
#: Some 20 sets a second; warnings come to the terminal.
SIMULATED = (
    "machines=simulation",
    "machines.count=3",
    "machines.session.realtime_factor=3",
    "monitors=[logging,sqlite]",
)
FIVE_HUNDRED = ("tasksets.sets_per_utilization=100", "tasksets.hyperperiods=1")
NO_RESERVE = "machines.admission.disk_reserve_mib=0"


class Told:
    """The lines that a process says on its standard error, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def saying(self, words: str) -> bool:
        """Whether it has said that; a process that ended instead fails."""
        if any(words in line for line in list(self.lines)):
            return True
        assert self.process.poll() is None, self.lines
        return False

    def end(self) -> int:
        """Wait for the process; its exit code."""
        code = self.process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        return code


@contextmanager
def running(disk: SmallDisk, *arguments: str) -> Iterator[Told]:
    process = disk.start(sys.executable, "-m", "runner", "hydra.run.dir=run", "report=false", *arguments)
    told = Told(process)
    try:
        yield told
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        told.end()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


QUERY = """
import json, sqlite3, sys
print(json.dumps(sqlite3.connect("file:run/results.sqlite?mode=ro", uri=True).execute(sys.argv[1]).fetchall()))
"""


def query(disk: SmallDisk, sql: str) -> list[list[Any]]:
    """By somebody who only looks."""
    out, err = disk.start(sys.executable, "-c", QUERY, sql).communicate(timeout=PATIENCE_S)
    assert not err
    return list(json.loads(out))


def n_written(disk: SmallDisk) -> int:
    ((n,),) = query(disk, "SELECT count(*) FROM runs")
    return int(n)


def wait_for_results(disk: SmallDisk, told: Told, n: int) -> None:
    """Until so many sets are done; a run that ends instead fails."""

    def enough() -> bool:
        assert told.process.poll() is None, told.lines
        path = disk.seen / "run" / "status.json"
        return path.exists() and bool(json.loads(path.read_text())["tasksets"]["done"] >= n)

    eventually(enough, PATIENCE_S)


def status(disk: SmallDisk) -> dict[str, Any]:
    return dict(json.loads((disk.seen / "run" / "status.json").read_text()))


def check_done_once(disk: SmallDisk, n: int) -> None:
    assert query(disk, "SELECT count(*), count(DISTINCT taskset_id) FROM tasksets WHERE state = 'done'") == [
        [n, n]
    ]
    assert query(disk, "SELECT count(*), count(DISTINCT taskset_id) FROM runs") == [[n, n]]
    assert query(disk, "SELECT sum(n_jobs) FROM runs") == query(disk, "SELECT count(*) FROM jobs")
    assert query(disk, "PRAGMA integrity_check") == [["ok"]]


def resume(disk: SmallDisk) -> None:
    process = disk.start(sys.executable, "-m", "runner", "resume=run")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK, out + err


def fill_until_held(disk: SmallDisk, told: Told) -> None:
    """Whatever the run itself gives back meanwhile is taken as well."""

    def held() -> bool:
        disk.fill()
        return told.saying("held, no further task set is started: monitor SQLiteMonitor is blocked")

    eventually(held, PATIENCE_S)


def test_a_run_on_a_full_disk_pauses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path, size_mib=24) as disk,
        running(disk, *SIMULATED, *FIVE_HUNDRED, NO_RESERVE) as told,
    ):
        wait_for_results(disk, told, 20)
        fill_until_held(disk, told)
        n_before = n_written(disk)
        assert n_before < 500
        threading.Event().wait(2.5)  # it tries again meanwhile, to no avail
        assert told.process.poll() is None
        assert n_written(disk) == n_before
        disk.make_room()
        eventually(
            lambda: told.saying("no longer held by the monitor SQLiteMonitor; task sets are started"),
            PATIENCE_S,
        )
        assert told.end() == ExitCode.OK, told.lines
        check_done_once(disk, 500)
        assert status(disk)["ended"] == "every task set is done"
        assert status(disk)["held"] is None
        assert sum("held, no further" in line for line in told.lines) == 1


def test_a_run_that_is_ended_on_a_full_disk_says_what_is_missing_and_can_be_resumed(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path, size_mib=24) as disk,
        running(disk, *SIMULATED, *FIVE_HUNDRED, NO_RESERVE) as told,
    ):
        wait_for_results(disk, told, 20)
        fill_until_held(disk, told)
        told.process.send_signal(signal.SIGINT)
        assert told.end() == ExitCode.HOST, told.lines
        *_, words = (line for line in told.lines if line.startswith("error: "))
        missing = re.search(
            r"results cannot be written to .*: .*full.*; (\d+) attempts wait in memory", words
        )
        assert missing, words
        assert int(missing[1]) > 0
        # Those in the file are whole.
        n = n_written(disk)
        assert 0 < n < 500
        check_done_once(disk, n)
        disk.make_room()
        resume(disk)
        check_done_once(disk, 500)


def test_killed_on_a_full_disk_it_can_be_resumed(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path, size_mib=24) as disk,
        running(disk, *SIMULATED, *FIVE_HUNDRED, NO_RESERVE) as told,
    ):
        wait_for_results(disk, told, 20)
        fill_until_held(disk, told)
        n = n_written(disk)
        os.killpg(told.process.pid, signal.SIGKILL)
        told.end()
        disk.make_room()
        check_done_once(disk, n)
        resume(disk)
        check_done_once(disk, 500)


def test_a_disk_that_gets_low_holds_the_run_before_anything_fails(tmp_path: Path) -> None:
    """And the operator's drain works while it is held."""
    reserve = "machines.admission.disk_reserve_mib=8"
    with small_disk(tmp_path, size_mib=32) as disk, running(disk, *SIMULATED, *FIVE_HUNDRED, reserve) as told:
        wait_for_results(disk, told, 20)
        disk.fill(leave_bytes=6 << 20)
        eventually(
            lambda: told.saying("held, no further task set is started: the run folder's disk has"), PATIENCE_S
        )
        eventually(lambda: status(disk)["tasksets"]["running"] == 0, PATIENCE_S)
        assert "machines.admission.disk_reserve_mib" in status(disk)["held"]
        assert status(disk)["observed"]["machines"] == 3
        disk.make_room()
        eventually(lambda: told.saying("no longer held by the disk; task sets are started"), PATIENCE_S)
        eventually(
            lambda: status(disk)["held"] is None and status(disk)["tasksets"]["running"] > 0, PATIENCE_S
        )
        disk.fill(leave_bytes=6 << 20)
        eventually(lambda: status(disk)["held"] is not None, PATIENCE_S)
        (disk.seen / "run" / "control.yaml").write_text("machines: 3\nstate: drain\n")
        assert told.end() == ExitCode.STOPPED, told.lines
        check_done_once(disk, n_written(disk))
        assert n_written(disk) == status(disk)["tasksets"]["done"] < 500


def test_a_disk_smaller_than_the_reserve_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path, size_mib=16) as disk, running(disk, "machines=simulation") as told:
        assert told.end() == ExitCode.HOST
        text = "".join(told.lines)
        assert "64 MiB are to stay free on the run folder's disk, which holds 16 MiB in all" in text
        assert "where: machines.admission.disk_reserve_mib" in text


@pytest.mark.guest
def test_a_run_with_a_real_guest_pauses_on_a_full_disk_too(tmp_path: Path) -> None:
    # A second or so each.
    arguments = (
        "tasksets.sets_per_utilization=2",
        "tasksets.hyperperiods=15",
        "monitors=[logging,sqlite]",
        NO_RESERVE,
    )
    with small_disk(tmp_path, size_mib=24) as disk, running(disk, *arguments) as told:
        wait_for_results(disk, told, 2)
        fill_until_held(disk, told)
        n_before = n_written(disk)
        assert n_before < 10
        threading.Event().wait(2.0)
        assert told.process.poll() is None
        disk.make_room()
        assert told.end() == ExitCode.OK, told.lines
        check_done_once(disk, 10)


NO_INODES = """
import logging, sys, threading
from pathlib import Path
from runner import simulated
from runner.admission.capacity import Reserves
from tests.fleet_samples import Sets, Tally, distributor, eventually, phases, wait_to_end
logging.basicConfig(stream=sys.stderr, format="%(message)s")
tally = Tally()
with distributor(Path("."), simulated(realtime_factor=0.2), 1, reserves=Reserves(disk_mib=0)) as fleet:
    fleet.add_job(Sets(None), tally)
    eventually(lambda: list(phases(fleet).values()) == ["running"])
    names = []
    try:
        for number in range(100):
            Path(f"file{number}").touch()
            names.append(f"file{number}")
    except OSError as exc:
        print(exc.strerror)
    fleet.set_max_machine_value(3)
    eventually(lambda: "short of something" in fleet.get_distributor_state().shortage)
    n_done = fleet.get_distributor_state().n_done
    eventually(lambda: fleet.get_distributor_state().n_done > n_done + 3)  # the one that runs goes on
    for name in names:
        Path(name).unlink()
    eventually(lambda: list(phases(fleet).values()) == ["running"] * 3)
    eventually(lambda: fleet.get_distributor_state().shortage == "")
    fleet.shut_down_all_machines()
    wait_to_end(fleet)
assert not tally.bad and not tally.stopped
print("done")
"""


def test_a_machine_that_cannot_be_started_for_want_of_a_file_is_tried_again(tmp_path: Path) -> None:
    """A disk that takes no more files: its folder cannot be made."""
    with small_disk(tmp_path, size_mib=4, inodes=30) as disk:
        process = disk.start(sys.executable, "-c", NO_INODES)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert out.splitlines() == ["No space left on device", "done"]
    assert err.count("fewer machines than wanted") == 1
    assert err.count("as many machines as wanted again") == 1
