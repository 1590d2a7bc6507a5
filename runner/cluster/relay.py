"""The monitor of a worker's fleet: keeps what happens until the coordinator asks for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from runner.cluster.messages import Assignment, Report
from runner.cluster.wire import Packed, packed
from runner.errors import MachineKilled, RunnerError
from runner.events import Event, Outcome, Run, RunResult
from runner.faults.incidents import Incident
from runner.monitors.base import AbstractMonitor


class Relay(AbstractMonitor):
    """Takes down one report for each assignment that has ended.

    Memory: what was reported and not fetched; the coordinator's credit bounds that.
    Threads: any.
    """

    required = True

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Of each batch, by its number at the worker's distributor.
        self._batches: dict[int, list[Assignment]] = {}
        self._n_open: dict[int, int] = {}
        self._events: dict[str, list[Packed]] = {}
        self._stopped: dict[str, RunResult] = {}
        self._reports: list[Report] = []
        self._incidents: list[Incident] = []

    def expect(self, number: int, batch: Sequence[Assignment]) -> None:
        """The next `add_job` hands in this batch."""
        with self._changed:
            self._batches[number] = list(batch)
            self._n_open[number] = len(batch)

    @property
    def n_open(self) -> int:
        """Assignments that have not ended."""
        with self._changed:
            return sum(self._n_open.values())

    def fetch(self, wait_s: float) -> tuple[tuple[Report, ...], tuple[Incident, ...]]:
        """What is new; waits until half of what there is to do is done, and returns what there is when the time is over."""
        with self._changed:
            n_open = sum(self._n_open.values())
            self._changed.wait_for(
                lambda: len(self._reports) >= max(1, (n_open + len(self._reports)) // 2), wait_s
            )
            reports, self._reports = tuple(self._reports), []
            incidents, self._incidents = tuple(self._incidents), []
        return reports, incidents

    def wake(self) -> None:
        """Nothing more is to be waited for."""
        with self._changed:
            self._changed.notify_all()

    def __taskset_event__(self, run: Run, event: Event) -> None:
        self._events.setdefault(run.run_id, []).append(packed(event))

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._report(run, result, None)

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        if result.outcome is Outcome.ABORTED:
            self._report(run, result, MachineKilled(result.error))
        else:
            self._stopped[run.run_id] = result

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        result = self._stopped.pop(run.run_id, None) or RunResult(outcome=Outcome.INFRA_ERROR)
        self._report(run, result, error)

    def __incident__(self, incident: Incident) -> None:
        with self._changed:
            self._incidents.append(incident)
            self._changed.notify_all()

    def _report(self, run: Run, result: RunResult, error: RunnerError | None) -> None:
        events = tuple(self._events.pop(run.run_id, ()))
        with self._changed:
            batch = self._batches.get(run.submission)
            if batch is None:  # was given up with its fleet
                return
            report = Report(
                number=batch[run.set_idx].number,
                machine=run.machine,
                position=run.position,
                recovery=run.recovery,
                identity=run.identity,
                facts=run.facts,
                started_utc=run.started_utc,
                result=replace(result, jobs=()),
                events=events,
                error=error,
            )
            self._reports.append(report)
            self._n_open[run.submission] -= 1
            if not self._n_open[run.submission]:
                del self._batches[run.submission], self._n_open[run.submission]
            self._changed.notify_all()
