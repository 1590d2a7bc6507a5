"""What people read while a run goes on: the log and the standard output, line by line."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import GuestDied, UsageError
from runner.events import StartEvent
from runner.monitors.base import AbstractMonitor
from runner.monitors.digest import Digest
from runner.monitors.logging import LoggingMonitor
from runner.monitors.stdout import StdoutMonitor
from tests.monitor_samples import MS, failed, good, run, taskset

ID = taskset().taskset_id
STARTED = f"pair [{ID}], 2 tasks, utilization 0.5"
FINISHED = f"pair [{ID}], completed, 3 jobs, 1 missed, worst response 1.05 D, 0.250 s"
STOPPED = f"pair [{ID}], guest_crash in attempt 2: the guest died"


def live(monitor: AbstractMonitor) -> None:
    """One attempt that counts, and one that does not and is the last."""
    first, second = run(), run(attempt=2)
    monitor.__taskset_start__(first)
    monitor.__taskset_event__(first, StartEvent(5))
    monitor.__taskset_finish__(first, good(slow_ns=21 * MS))
    monitor.__taskset_start__(second)
    monitor.__taskset_stop__(second, failed())
    monitor.__taskset_bad__(second, GuestDied("qemu1: the guest died", log_path=Path("console.log")))


def test_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    live(LoggingMonitor())
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("runner.tasksets", "INFO", f"qemu1: start {STARTED}"),
        ("runner.tasksets", "DEBUG", f"qemu1: {ID} StartEvent(t0_guest_ns=5)"),
        ("runner.tasksets", "INFO", f"qemu1: finish {FINISHED}"),
        ("runner.tasksets", "INFO", f"qemu1: start {STARTED}, attempt 2"),
        ("runner.tasksets", "WARNING", f"qemu1: stop {STOPPED}"),
        (
            "runner.tasksets",
            "ERROR",
            f"qemu1: bad pair [{ID}], given up after 2 attempts: qemu1: the guest died (log: console.log)",
        ),
    ]


def test_the_logs_level_and_name(caplog):
    caplog.set_level(logging.INFO)
    monitor = LoggingMonitor(level="warning", logger="mine")
    monitor.__taskset_start__(run())
    assert [(record.name, record.levelname) for record in caplog.records] == [("mine", "WARNING")]


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="level is 'LOUD'") as caught:
        LoggingMonitor(level="LOUD")
    assert "INFO" in caught.value.next_step


def test_the_standard_output(capsys):
    live(StdoutMonitor())
    assert capsys.readouterr().out.splitlines() == [
        f"qemu1   run   {STARTED}",
        f"qemu1   done  {FINISHED}",
        f"qemu1   run   {STARTED}, attempt 2",
        f"qemu1   again {STOPPED}",
        f"qemu1   bad   pair [{ID}]: qemu1: the guest died",
    ]


def test_lines_go_where_they_are_told():
    stream = io.StringIO()
    StdoutMonitor(stream).__taskset_start__(run())
    assert stream.getvalue() == f"qemu1   run   {STARTED}\n"


def test_the_worst_response_is_relative_to_each_tasks_own_deadline():
    """Task `fast` takes 3 of its 10 ms, `slow` 5 of its 20: the shorter response is the worse one."""
    digest = Digest.of(run(), good(slow_ns=5 * MS))
    assert digest == Digest(n_jobs=3, n_missed=0, schedulable=True, worst_response=0.3)


def test_no_job_has_no_worst_response():
    assert Digest.of(run(), replace(good(), jobs=())).worst_response is None
