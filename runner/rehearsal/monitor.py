"""A monitor that tells the rehearsal what monitors are told, and fails or hangs when it is asked to."""

from __future__ import annotations

from runner.errors import RunnerError
from runner.events import Run, RunResult
from runner.faults.incidents import Incident
from runner.fleet import FleetState
from runner.monitors.base import AbstractMonitor
from runner.rehearsal.link import ask

#: The answer upon which it fails; it hangs as long as it gets none.
RAISE = "raise"


class RehearsalMonitor(AbstractMonitor):
    """Passes on what happens.

    Args:
        link: Where the rehearsal listens.
    """

    def __init__(self, link: str) -> None:
        self._link = link

    def _tell(self, what: str, run: Run | None = None, **facts: object) -> None:
        if run is not None:
            facts |= {"machine": run.machine, "set_idx": run.set_idx, "taskset_id": run.taskset.taskset_id}
        if ask(self._link, what, **facts) == RAISE:
            raise RuntimeError(f"the rehearsal wants this monitor to fail in {what}")

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._tell("finish", run)

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        self._tell("stop", run, error=result.error)

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self._tell("bad", run, error=error.what)

    def __incident__(self, incident: Incident) -> None:
        self._tell("incident", machine=incident.machine, fault=incident.fault.value, error=incident.what)

    def __fleet_change__(self, state: FleetState) -> None:
        self._tell("fleet", held=state.held, phases=[one.phase.value for one in state.machines])
