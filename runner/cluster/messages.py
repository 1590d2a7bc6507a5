"""What goes over the wire between the coordinator and a worker: orders there, replies back, each with a batch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from runner.cluster.wire import Packed
from runner.errors import RunnerError
from runner.events import RunResult
from runner.faults.incidents import Incident
from runner.faults.recovery import Recovery
from runner.fleet import MachineState
from runner.model import Provenance, TaskSet

_NO_PROVENANCE = Provenance()


class Assignment(NamedTuple):
    """A task set to be measured once.

    Attributes:
        number: Of the coordinator's lease; never used again for that worker.
        taskset: Without its provenance, which no machine asks for.
        session_parameters: As in `Distributor.add_job`.
    """

    number: int
    taskset: TaskSet
    session_parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a worker is to do now.

    Attributes:
        n_machines: Machines that it is to have; with none, those that there are finish their task sets, and what has not begun
            goes back to the coordinator.
        paused: Start no further task set.
        kill: End all machines at once.
        batch: Task sets to be measured besides those that it has.
        wait_s: How long to wait for something to report.
        survey: Whether to tell what each machine is doing.
    """

    n_machines: int
    paused: bool = False
    kill: bool = False
    batch: tuple[Assignment, ...] = ()
    wait_s: float = 0.0
    survey: bool = True


def bare(taskset: TaskSet) -> TaskSet:
    """The same without its provenance; not checked again."""
    twin = copy(taskset)
    object.__setattr__(twin, "provenance", _NO_PROVENANCE)
    return twin


class Report(NamedTuple):
    """What became of an assignment: a result, or why there is none.

    Attributes:
        number: Of the assignment.
        machine: On that worker.
        position, recovery, identity, facts, started_utc: As in `runner.events.Run`.
        result: With no jobs in it: they are among the events.
        events: All that happened, in order, as `runner.cluster.wire` has it.
        error: What failed; the result is then what monitors are told of the attempt.
    """

    number: int
    machine: str
    position: int
    recovery: Recovery | None
    identity: str | None
    facts: Mapping[str, str | int | float | None]
    started_utc: datetime
    result: RunResult
    events: tuple[Packed, ...] = ()
    error: RunnerError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a worker has to say.

    Attributes:
        open: Whether it has a fleet: with none, it holds no assignment beyond those that are reported here.
        reports: Of what has ended since the last reply.
        incidents: Faults since then.
        machines: What each of its machines is doing; None: nobody has asked.
        recoveries: How often each step was taken, in sum; None: nobody has asked.
        error: What made its fleet give up.
    """

    open: bool
    reports: tuple[Report, ...] = ()
    incidents: tuple[Incident, ...] = ()
    machines: tuple[MachineState, ...] | None = ()
    recoveries: Mapping[Recovery, int] | None = field(default_factory=dict)
    error: Exception | None = None
