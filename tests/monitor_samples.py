"""Task sets, runs and results for the monitors' tests, small enough to know by heart."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runner.events import ExitType, JobRecord, Outcome, Run, RunResult
from runner.model import Provenance, Task, TaskSet
from runner.monitors.base import AbstractMonitor
from runner.units import NS_PER_MS

MS = NS_PER_MS


def taskset(name: str = "pair", *, n: int = 0, target: float | None = None) -> TaskSet:
    """Two tasks with utilization 0.5, periods 10 and 20 ms; `n` makes it another set."""
    return TaskSet(
        name=name,
        tasks=(
            Task(name="fast", period_ns=10 * MS, wcet_ns=2 * MS, n_jobs=2, priority_rank=0),
            Task(name="slow", period_ns=20 * MS, wcet_ns=6 * MS, n_jobs=1, priority_rank=1, offset_ns=n),
        ),
        provenance=Provenance()
        if target is None
        else Provenance(generator="uunifast", params={"n": 2}, seed=7, utilization_target=target),
    )


def run(which: TaskSet | None = None, *, machine: str = "qemu1", attempt: int = 1, **facts: str | int) -> Run:
    """An attempt at it."""
    return Run(
        taskset=which or taskset(),
        machine=machine,
        attempt=attempt,
        facts=facts,
        started_utc=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def job(
    task_idx: int, job_idx: int, response_ns: int | None, exit_type: ExitType = ExitType.EXIT
) -> JobRecord:
    """A job of `taskset()` with this response time; None: it never ran."""
    release_ns = job_idx * 10 * MS
    return JobRecord(
        task_idx=task_idx,
        job_idx=job_idx,
        release_ns=release_ns,
        start_ns=None if response_ns is None else release_ns + 1000,
        finish_ns=None if response_ns is None else release_ns + response_ns,
        exec_ns=None if response_ns is None else 2 * MS,
        exit_type=exit_type,
        exit_code=0,
        preemptions=1,
        migrations=0,
        cpu_first=0,
        cpu_last=0,
    )


def good(slow_ns: int = 10 * MS) -> RunResult:
    """All three jobs finished; that of task `slow`, whose deadline is 20 ms, after `slow_ns`."""
    return RunResult(
        outcome=Outcome.COMPLETED,
        jobs=(job(0, 0, 2 * MS), job(1, 0, slow_ns), job(0, 1, 3 * MS)),
        t0_guest_ns=1_000_000_000,
        end_ns=20 * MS,
        wall_s=0.25,
    )


def failed(outcome: Outcome = Outcome.GUEST_CRASH) -> RunResult:
    """An attempt that does not count, though one job had come by then."""
    return RunResult(
        outcome=outcome, jobs=(job(0, 0, 2 * MS),), wall_s=0.5, error="the guest died\n  log: console.log"
    )


class Recorder(AbstractMonitor):
    """A monitor that keeps what it was told, as (method, argument)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def open(self) -> None:
        self.told.append(("open", None))

    def close(self) -> None:
        self.told.append(("close", None))

    def __taskset_start__(self, run, *_) -> None:
        self.told.append(("start", run))

    def __taskset_event__(self, run, event) -> None:
        self.told.append(("event", event))

    def __taskset_finish__(self, run, result) -> None:
        self.told.append(("finish", result))

    def __taskset_stop__(self, run, result) -> None:
        self.told.append(("stop", result))

    def __taskset_bad__(self, run, error) -> None:
        self.told.append(("bad", error))

    def __fleet_change__(self, state) -> None:
        self.told.append(("fleet", state))

    def of(self, method: str) -> list[Any]:
        """The arguments of the calls of one method."""
        return [argument for name, argument in self.told if name == method]
