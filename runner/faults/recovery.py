"""How a machine that failed is brought back: the least that can help first, and one step more whenever that was not enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from runner.errors import Fault, ProtocolError, RunnerError, SessionLost


class Recovery(StrEnum):
    """What was done before the next attempt; the further down, the more is made anew."""

    #: The guest stays, and so does the line to it: the task loader is asked to stop, and to answer.
    MESSAGE = "message"
    #: The guest stays: a new session to it, and with it a new task loader.
    TASK_LOADER = "task_loader"
    #: A fresh guest from the booted snapshot (booted, where there is none).
    SNAPSHOT = "snapshot"
    #: A fresh guest, booted; the snapshot, which may be damaged, is thrown away.
    COLD_BOOT = "cold_boot"
    #: The same, in a QEMU that was loaded from its file rather than forked from its stem.
    PROCESS = "process"


#: From the least to the most.
STEPS = tuple(Recovery)

#: Steps that leave the guest as it is, with all that happened to it.
SAME_GUEST = frozenset({Recovery.MESSAGE, Recovery.TASK_LOADER})

#: How often in a row a step is tried before the next; the last one as often as the machine is.
BOUNDS: Mapping[Recovery, int] = MappingProxyType(dict.fromkeys(STEPS, 1))


def least_step(error: RunnerError) -> Recovery:
    """The first step that can help after this error."""
    match error:
        case ProtocolError():
            return Recovery.MESSAGE
        case SessionLost():
            return Recovery.TASK_LOADER
        case _:
            return Recovery.SNAPSHOT


@dataclass(frozen=True)
class Ladder:
    """The steps that a machine has taken since it last measured something; a new one stands below the first.

    Guarantees: a step is taken at most `BOUNDS` times in a row before the next one is; after a fault of the guest each step is as
    high as the last or higher, up to the last; one that is the task set's or this computer's own never leads beyond a fresh guest,
    for nothing that comes after could help.

    Attributes:
        step: The last one; None: none.
        n_taken: How often in a row.
    """

    step: Recovery | None = None
    n_taken: int = 0

    def after(
        self, fault: Fault, least: Recovery, possible: frozenset[Recovery] = frozenset(STEPS)
    ) -> tuple[Ladder, Recovery]:
        """The step to take after a failure, and the ladder then.

        Args:
            fault: Whose doing the failure is.
            least: The first step that can help.
            possible: Those that this machine has; at least one.
        """
        high_enough = [step for step in STEPS if step in possible and _height(step) >= _height(least)]
        steps = high_enough or [step for step in STEPS if step in possible][-1:]
        if fault is not Fault.GUEST:
            steps = [step for step in steps if _height(step) <= _height(Recovery.SNAPSHOT)] or steps[:1]
            if self.step is not None and _height(self.step) > _height(steps[-1]):
                return self, steps[-1]
        if self.step is None:
            return Ladder(steps[0], 1), steps[0]
        n_used_up = _height(self.step) + (self.n_taken >= BOUNDS[self.step])
        step = next((step for step in steps if _height(step) >= n_used_up), steps[-1])
        return Ladder(step, self.n_taken + 1 if step is self.step else 1), step


def _height(step: Recovery) -> int:
    return STEPS.index(step)
