"""What a machine does about its failures: the next step of the ladder each time, until it is put aside."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from runner.errors import (
    Fault,
    HostShortage,
    InfrastructureError,
    MachineKilled,
    RunnerError,
    fault_of,
)
from runner.faults.incidents import Incident
from runner.faults.quarantine import Standing
from runner.faults.recovery import SAME_GUEST, Recovery, least_step
from runner.machines.attempt import Failure
from runner.machines.station import MachineKind, Station, Stations
from runner.monitors.channel import MonitorChannel

#: Told of each fault, with the channel of the job whose set ran then, if one did.
OnIncident = Callable[[Incident, MonitorChannel | None], None]


def untold(incident: Incident, channel: MonitorChannel | None) -> None:
    """Nobody is told."""


class Recoveries:
    """The failures of one machine, and what was done about them.

    Threads: for the machine's own.

    Attributes:
        standing: How far the machine is trusted.
        error: What failed last.
    """

    def __init__(
        self,
        name: str,
        kind: MachineKind,
        stations: Stations,
        standing: Standing,
        *,
        killed: Callable[[], MachineKilled | None],
        on_incident: OnIncident,
    ) -> None:
        """
        Args:
            standing: That of whoever had this machine's name before.
            killed: Why the machine was killed; None if it was not.
        """
        self._name = name
        self._kind = kind
        self._stations = stations
        self._killed = killed
        self._on_incident = on_incident
        self._log = logging.getLogger("runner.machine").getChild(name)
        self._step = standing.ladder.step
        self.standing = standing
        self.error: RunnerError | None = None

    def begin(self) -> None:
        """Have the first station made ready as the standing demands it."""
        if self._step is not None:
            self._stations.distrust(self._step)

    def take(self) -> Recovery | None:
        """What was done before the attempt that begins now; None after a success."""
        step, self._step = self._step, None
        return step

    def succeeded(self) -> None:
        """An attempt was not in vain."""
        self.standing = Standing()

    def after_start(self, error: InfrastructureError | HostShortage) -> None:
        """A start came to nothing, or a host died while it idled: no task set has a part in it.

        Raises:
            MachineKilled: it was the kill that broke it.
        """
        self._check_killed(error)
        fault = Fault.HOST if fault_of(error) is Fault.HOST else Fault.GUEST
        self._count(error, fault)
        # Who is put aside is told of by the fleet, with the reason; the machine's own log has the whole of it.
        self._log.log(
            logging.INFO if self.standing.aside else logging.WARNING,
            "start of %s failed: %s",
            self._name,
            error.what,
        )
        self._log.debug("%s", error)
        self._report(error, fault, self._choose(error, fault, self._kind.steps))

    def after_attempt(self, failure: Failure, station: Station) -> bool:
        """Whether the station is good again, by a step that needs no other guest.

        Raises:
            MachineKilled: the machine was killed meanwhile.
        """
        error, fault, steps = failure.error, failure.fault, self._kind.steps
        self._count(error, fault)
        while True:
            self._check_killed(error)
            step = self._choose(error, fault, steps)
            self._report(error, fault, step, failure)
            if step not in SAME_GUEST or station.host is None or self.standing.aside:
                return False
            try:
                if station.regain(step):
                    return True
            except (InfrastructureError, HostShortage) as exc:
                error = exc
            steps -= {step}

    def _check_killed(self, error: RunnerError) -> None:
        killed = self._killed()
        if killed is not None:  # whatever breaks now was broken by the kill
            raise killed from error

    def _count(self, error: RunnerError, fault: Fault) -> None:
        self.error = error
        if fault is not Fault.TASKSET:
            short = isinstance(error, HostShortage)
            self.standing = self.standing.failed(time.monotonic(), self._kind.policy, short=short)

    def _choose(self, error: RunnerError, fault: Fault, steps: frozenset[Recovery]) -> Recovery:
        ladder, self._step = self.standing.ladder.after(fault, least_step(error), steps)
        self.standing = replace(self.standing, ladder=ladder)
        self._stations.distrust(self._step)
        return self._step

    def _report(
        self, error: RunnerError, fault: Fault, step: Recovery, failure: Failure | None = None
    ) -> None:
        until_s = self.standing.until_s
        incident = Incident(
            what=error.what,
            fault=fault,
            machine=self._name,
            recovery=step,
            aside_s=None if until_s is None else until_s - time.monotonic(),
        )
        if failure is not None:
            run, kept = failure.run, failure.evidence
            incident = replace(
                incident,
                taskset_id=run.taskset.taskset_id,
                submission=run.submission,
                set_idx=run.set_idx,
                repetition=run.repetition,
                attempt=run.attempt,
                evidence="" if kept is None else f"{kept.parent.name}/{kept.name}",
            )
        self._log.info("%s: fault: %s; recovery: %s", self._name, fault.value, step.value)
        self._on_incident(incident, None if failure is None else failure.channel)
