"""What went wrong, and what was done about it: a record of each fault, for monitors."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from runner.errors import Fault
from runner.faults.recovery import Recovery


@dataclass(frozen=True, kw_only=True)
class Incident:
    """A fault that a machine met with, in an attempt at a task set or between two.

    Attributes:
        what: What happened, in one sentence.
        fault: Whose doing it is, in the light of all that is known by then.
        machine: Name of the machine, `qemu1`.
        recovery: What the machine does next to be of use again; None where that was in vain or nothing is done.
        aside_s: For how long the machine was put aside; None: it was not.
        taskset_id, submission, set_idx, repetition, attempt: Of the attempt, as in `runner.events.Run`; None where no set ran.
        evidence: Folder with what was kept of a set that is given up for it, relative to the run folder; empty: nothing was.
    """

    what: str
    fault: Fault
    machine: str
    recovery: Recovery | None = None
    aside_s: float | None = None
    taskset_id: str | None = None
    submission: int | None = None
    set_idx: int | None = None
    repetition: int | None = None
    attempt: int | None = None
    evidence: str = ""
    utc: datetime = field(default_factory=lambda: datetime.now(UTC))
