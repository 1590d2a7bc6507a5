"""What a worker's report means to the coordinator: the run that monitors are told of, and its result."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from runner.cluster.messages import Report
from runner.cluster.wire import events, jobs
from runner.events import Event, Run, RunResult
from runner.queue.lease import Lease


def run_of(lease: Lease, report: Report, worker: str) -> Run:
    """The attempt as if it had been made here, on the machine `WORKER.qemu1`."""
    return Run(
        taskset=lease.taskset,
        machine=f"{worker}.{report.machine}",
        attempt=lease.attempt,
        repetition=lease.repetition,
        submission=lease.job.submission,
        set_idx=lease.set_idx,
        position=report.position,
        recovery=report.recovery,
        identity=report.identity,
        facts=report.facts,
        started_utc=report.started_utc,
    )


def result_of(report: Report) -> RunResult:
    """Its result, with its jobs."""
    return replace(report.result, jobs=jobs(report.events))


def replayed(lease: Lease, report: Report, run: Run, happened: deque[Event]) -> RunResult:
    """Tell the monitors what happened, and return what came of it.

    Raises:
        RunnerError: the attempt failed.
    """
    if report.error is not None or lease.job.channel.wants_events:
        for event in events(report.events):
            lease.job.channel.event(run, event)
            happened.append(event)
    if report.error is not None:
        raise report.error
    return result_of(report)
