"""What a fleet is doing, as one frozen picture: for people, `status.json` and progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from runner.faults.recovery import Recovery


class RunState(StrEnum):
    """What the operator wants of a run; also what the control file's `state` may say."""

    #: Keep the machines busy.
    RUN = "run"
    #: Start no further task set; those that run finish; machines stay.
    PAUSE = "pause"
    #: Finish what runs, close the machines, end the run.
    DRAIN = "drain"
    #: End everything at once; running task sets go back to the queue.
    KILL = "kill"


class Phase(StrEnum):
    """Where a machine is in its life."""

    #: Its host is being started and its session opened.
    STARTING = "starting"
    #: Ready, waiting for a task set, or for the end of a pause.
    IDLE = "idle"
    #: A task set runs.
    RUNNING = "running"
    #: Its host failed and is being replaced.
    RECOVERING = "recovering"
    #: It failed again and again: left alone for a while, then tried anew.
    ASIDE = "aside"
    #: It will take no further task set.
    CLOSING = "closing"
    #: Gone, its host stopped.
    CLOSED = "closed"
    #: Gone, because its host could not be started.
    FAILED = "failed"


@dataclass(frozen=True)
class MachineState:
    """One machine: its name, phase, and the task set that it runs, if any.

    Attributes:
        n_done: Task sets that it has measured.
        until: With `Phase.ASIDE`: when it is tried again.
    """

    name: str
    phase: Phase
    taskset_id: str | None = None
    n_done: int = 0
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class FleetState:
    """The whole fleet at one instant.

    Attributes:
        state: What the operator wants.
        desired_machines: How many machines there should be.
        machines: Those that there are, by name.
        n_total: Task sets of all jobs; None while a job's number is not known.
        n_done: Task sets with a valid result.
        n_bad: Task sets that were given up.
        n_running: Task sets on a machine now.
        recoveries: How often each step was taken to bring a machine back.
        held: Why no further task set is started though the operator wants it (a full disk, …); empty: nothing holds it.
        allowed_machines: How many of the desired machines this computer can bear now; None where nobody has looked.
        shortage: Why it can bear no more, or why one could not be started; empty if it is as many as desired.
    """

    state: RunState
    desired_machines: int
    machines: tuple[MachineState, ...] = ()
    n_total: int | None = None
    n_done: int = 0
    n_bad: int = 0
    n_running: int = 0
    recoveries: Mapping[Recovery, int] = field(default_factory=dict)
    held: str = ""
    allowed_machines: int | None = None
    shortage: str = ""
