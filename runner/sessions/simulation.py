"""The session without a guest: task sets run on an ideal processor that is computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from enum import Enum
from typing import ClassVar

from runner.deadline import Deadline
from runner.errors import RunnerError, SessionLost, UsageError
from runner.events import EndEvent, Event, JobEvent, TaskDoneEvent
from runner.model import TaskSet
from runner.sessions.base import AbstractSession
from runner.simulator import Simulation
from runner.text.excerpt import excerpt
from runner.units import NS_PER_S


class _Phase(Enum):
    """Where the session is in its life; it only moves downwards."""

    #: `open()` is next.
    NEW = "not open yet"
    #: Takes task sets.
    OPEN = "open"
    #: Of no further use.
    CLOSED = "closed"


class SimulationSession(AbstractSession):
    """Task sets on `runner.simulator`, for dry runs, tests of everything above, and comparison of measured with ideal.

    Guarantees: the events depend on nothing but the task set (and on the instant of a `stop`).
    Threads: `stop` may be called from any thread, too.

    Args:
        realtime_factor: Simulated seconds per real second: 1.0 takes as long as a guest would; None: as fast as possible.

    Raises:
        UsageError: when the factor is not more than 0.
    """

    #: What it yields is computed from the task set alone, as `runner.simulator` does. Not inherited: a class that changes it does not.
    ideal: ClassVar[bool] = True

    def __init__(self, *, realtime_factor: float | None = None) -> None:
        number = isinstance(realtime_factor, int | float) and realtime_factor > 0
        if realtime_factor is not None and not number:
            raise UsageError(
                f"realtime_factor is {excerpt(realtime_factor)}, must be a number, and more than 0",
                next_step="leave it out for a simulation as fast as possible",
            )
        self._factor = realtime_factor
        self._phase = _Phase.NEW
        self._simulation: Simulation | None = None
        self._began_s = 0.0
        self._error: RunnerError | None = None
        # Set by whatever a wait for simulated time must not outlast: stop, abort, close.
        self._hurry = threading.Event()

    def open(self, deadline: Deadline) -> None:
        """Nothing to connect to; only makes the session usable."""
        self._check_phase("open", _Phase.NEW)
        self._phase = _Phase.OPEN

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Check that the set can be simulated; its simulated time begins now."""
        self._check_phase("start")
        if self._simulation is not None:
            raise UsageError(
                "SimulationSession.start(): a task set is running",
                next_step="read events() to the end, or close the session",
            )
        self._simulation = Simulation(taskset)
        self._hurry.clear()
        if self._error is not None:  # an abort that came while the flag was cleared
            raise self._error
        self._began_s = time.monotonic()

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """What the simulation yields, each at its time if there is a `realtime_factor`."""
        self._check_phase("events")
        if self._simulation is None:
            raise UsageError("SimulationSession.events(): no task set was started", next_step="call start()")
        return self._paced(self._simulation, deadline)

    def stop(self, deadline: Deadline) -> None:
        """End the set at its next event, which is not waited for."""
        self._check_phase("stop")
        if self._simulation is not None:
            self._simulation.stop()
            self._hurry.set()

    def close(self) -> None:
        """Forget the set that runs, if any."""
        self._phase = _Phase.CLOSED
        self._simulation = None
        self._hurry.set()

    def abort(self, error: RunnerError) -> None:
        """Wake `events()` and have every call raise `error`."""
        self._error = self._error or error
        self._hurry.set()

    def _check_phase(self, method: str, needed: _Phase = _Phase.OPEN) -> None:
        if self._error is not None:
            raise self._error
        if self._phase is not needed:
            raise UsageError(
                f"SimulationSession.{method}(): the session is {self._phase.value}",
                next_step="call open() first" if self._phase is _Phase.NEW else "make a new session",
            )

    def _paced(self, simulation: Simulation, deadline: Deadline) -> Iterator[Event]:
        for event in simulation.events():
            self._wait_until(_instant_ns(event), deadline)
            if self._hurry.is_set():
                self._check_phase("events")
            if isinstance(event, EndEvent):
                self._simulation = None
            yield event

    def _wait_until(self, at_ns: int, deadline: Deadline) -> None:
        """Let real time catch up with simulated time; returns early when there is reason to hurry."""
        now_s = time.monotonic()
        if self._factor is not None:
            due_s = self._began_s + at_ns / NS_PER_S / self._factor
            if due_s > now_s and self._hurry.wait(min(due_s, deadline.at_s) - now_s):
                return
            now_s = max(now_s, min(due_s, deadline.at_s))
        if now_s >= deadline.at_s:
            raise SessionLost(
                f"the simulated task set was not over within {deadline.budget_s:g} s",
                next_step="allow more time, or raise realtime_factor" if self._factor else "allow more time",
            )


def _instant_ns(event: Event) -> int:
    """When it happened, after the start instant."""
    match event:
        case JobEvent(job):
            return job.finish_ns or job.release_ns or 0
        case TaskDoneEvent(t_ns=t_ns) | EndEvent(t_ns=t_ns):
            return t_ns
        case _:
            return 0
