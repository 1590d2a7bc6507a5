"""How often a measurement was tried, whose doing it was that it failed, and when that is enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runner.errors import DisturbedError, Fault, RunnerError, fault_of

#: Before it is tried again after a shortage of this computer's: doubled each time, up to the second number.
HOST_PAUSE_S = (0.5, 30.0)


@dataclass(frozen=True)
class Tries:
    """What a measurement has been through. Each kind of failure is counted by itself, within bounds of its own.

    A guest that fails may be sick, or the set may have made it so. The set is blamed where it failed before and other sets were
    measured in between, for each try has a guest of its own.

    Attributes:
        n_taskset: Failures that were the set's doing.
        n_guest: The guest's, its emulator's, or the line's.
        n_host: This computer's.
        n_disturbed: Measurements that this computer disturbed too much.
        n_others: Measurements of other sets that had succeeded when it last failed.
    """

    n_taskset: int = 0
    n_guest: int = 0
    n_host: int = 0
    n_disturbed: int = 0
    n_others: int = 0

    def blame(self, error: RunnerError, n_others: int) -> Fault | None:
        """Whose doing this failure is, in the light of those before; None for what is no failure of the infrastructure.

        Args:
            n_others: Measurements of other sets that have succeeded by now.
        """
        fault = fault_of(error)
        failed_before = self.n_taskset + self.n_guest > 0
        suspected = fault is Fault.GUEST and failed_before and n_others > self.n_others
        return Fault.TASKSET if suspected else fault

    def failed(self, error: RunnerError, n_others: int) -> Tries:
        """With one failure more."""
        match self.blame(error, n_others):
            case Fault.TASKSET:
                return replace(self, n_taskset=self.n_taskset + 1, n_others=n_others)
            case Fault.GUEST:
                return replace(self, n_guest=self.n_guest + 1, n_others=n_others)
            case Fault.HOST:
                return replace(self, n_host=self.n_host + 1)
            case None:
                disturbed = isinstance(error, DisturbedError)
                return replace(self, n_disturbed=self.n_disturbed + disturbed)

    def used_up(self, bounds: Mapping[Fault, int]) -> bool:
        """Whether it was tried as often as it may be; disturbed measurements count like the set's own failures."""
        return (
            max(self.n_taskset, self.n_disturbed) >= bounds[Fault.TASKSET]
            or self.n_guest >= bounds[Fault.GUEST]
            or self.n_host >= bounds[Fault.HOST]
        )

    @property
    def pause_s(self) -> float:
        """How long to leave it alone after this computer's last failure."""
        first_s, longest_s = HOST_PAUSE_S
        return min(longest_s, first_s * 2.0 ** min(self.n_host - 1, 30))
