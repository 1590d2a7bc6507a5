"""Between a machine and the monitors of its job: who hears what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.errors import RunnerError
from runner.events import Event, Run, RunResult
from runner.faults.incidents import Incident
from runner.monitors.listener import Listener
from runner.submission import Submission

#: Method, who hears it, with what.
Call = tuple[str, tuple[Listener, ...], tuple[Any, ...]]


class MonitorChannel:
    """What the machines of one job publish through, to that job's monitors.

    Each call returns as soon as it is queued; it waits only while the queue is full. What one thread publishes arrives in
    that order. Threads: any.
    """

    def __init__(self, listeners: tuple[Listener, ...], put: Callable[[Call], None]) -> None:
        def interested(method: str) -> tuple[Listener, ...]:
            return tuple(listener for listener in listeners if listener.overrides(method))

        self._put = put
        self._submission = interested("__submission__")
        self._start = interested("__taskset_start__")
        self._event = interested("__taskset_event__")
        self._finish = interested("__taskset_finish__")
        self._stop = interested("__taskset_stop__")
        self._bad = interested("__taskset_bad__")
        self._incident = interested("__incident__")

    @property
    def wants_events(self) -> bool:
        """Whether any of the monitors listens to single events; if not, `event()` does nothing."""
        return bool(self._event)

    def submission(self, submission: Submission) -> None:
        """Task sets were handed in, or their number has become known."""
        if self._submission:
            self._put(("__submission__", self._submission, (submission,)))

    def start(self, run: Run) -> None:
        """An attempt begins."""
        if self._start:
            self._put(("__taskset_start__", self._start, (run,)))

    def event(self, run: Run, event: Event) -> None:
        """Something happened in it."""
        if self._event:
            self._put(("__taskset_event__", self._event, (run, event)))

    def finish(self, run: Run, result: RunResult) -> None:
        """It yielded a valid result."""
        if self._finish:
            self._put(("__taskset_finish__", self._finish, (run, result)))

    def stop(self, run: Run, result: RunResult) -> None:
        """It ended without a valid result."""
        if self._stop:
            self._put(("__taskset_stop__", self._stop, (run, result)))

    def bad(self, run: Run, error: RunnerError) -> None:
        """The task set is given up."""
        if self._bad:
            self._put(("__taskset_bad__", self._bad, (run, error)))

    def incident(self, incident: Incident) -> None:
        """An attempt at one of the job's sets failed, and why."""
        if self._incident:
            self._put(("__incident__", self._incident, (incident,)))
