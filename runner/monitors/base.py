"""What a monitor is told; own monitors override what they need."""

from __future__ import annotations

from runner.errors import RunnerError
from runner.events import Event, Run, RunResult
from runner.faults.incidents import Incident
from runner.fleet import FleetState
from runner.submission import Submission


class AbstractMonitor:
    """Told about every attempt at a task set of its job; every method may be left as it is.

    Threads: all calls to one monitor come from one thread of its own, in the order in which things happened on each machine,
    so a monitor needs no lock and may keep a file, a database connection or a progress bar. What it raises is logged and stops
    neither a machine nor another monitor. While one is blocked, or stuck in a call, no further task set is started; slow ones
    hold back the machines once a few thousand calls wait.

    For each attempt: `__taskset_start__`, `__taskset_event__` …, then exactly one of `__taskset_finish__` (it counts) and
    `__taskset_stop__` (it does not: the infrastructure failed or the operator ended it, and the set is tried again later).
    `__taskset_bad__` comes after the last attempt of a set that is given up.

    Attributes:
        required: Whether the run is pointless without this monitor: its failure then ends the run with an error.
        blocked: Empty while the monitor keeps up; otherwise why what it was told waits in memory (a full disk, a locked
            file). Looked at after each call. `idle()` is then called once a second, to try again; after the run a few
            times more, and then `close()`.
    """

    required: bool = False
    blocked: str = ""

    def open(self) -> None:
        """Called once, in the monitor's thread, before anything else."""

    def close(self) -> None:
        """Called once, in the monitor's thread, after everything else, and after the monitors that were opened before."""

    def idle(self) -> None:
        """Called, in the monitor's thread, whenever nothing waits to be told: time to flush what was held back."""

    def __submission__(self, submission: Submission) -> None:
        """Task sets were handed in; again when it becomes known how many they are."""

    def __taskset_start__(self, run: Run) -> None:
        """An attempt begins."""

    def __taskset_event__(self, run: Run, event: Event) -> None:
        """Something happened in it."""

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        """The attempt yielded a valid result; the task set is done."""

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        """The attempt ended without a valid result; `result.error` says why."""

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        """The task set is given up; `run` was its last attempt."""

    def __incident__(self, incident: Incident) -> None:
        """Something failed: in an attempt at one of this monitor's task sets, after its `__taskset_stop__`, or between two."""

    def __fleet_change__(self, state: FleetState) -> None:
        """Machines or counts changed; at most ten times a second, and always for the last change."""
