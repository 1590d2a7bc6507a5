"""How often a measurement was tried, whose doing it was that it failed, and when that is enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runner.errors import DisturbedError, Fault, RunnerError, fault_of

#: Before it is tried again after a shortage of this computer's: doubled each time, up to the second number.
HOST_PAUSE_S = (0.5, 30.0)


#: Sets in a row, besides the one in question, that ruin their guests: so many are not all poison.
SICK_FROM = 2


@dataclass(frozen=True)
class Others:
    """How the other sets fared.

    Attributes:
        n_measured: Measurements of them so far.
        n_ruined: How many of them ruined a guest since anything was measured last.
    """

    n_measured: int = 0
    n_ruined: int = 0


class Experience:
    """How the sets of one queue have fared, as far as it says something about the next. For one thread at a time."""

    def __init__(self) -> None:
        self._n_measured = 0
        self._ruined: set[int] = set()

    def measured(self) -> None:
        """A measurement was made, so the guests are not all sick."""
        self._n_measured += 1
        self._ruined.clear()

    def failed(self, set_idx: int, error: RunnerError) -> None:
        """A set failed."""
        if fault_of(error) is Fault.TASKSET and len(self._ruined) <= SICK_FROM:
            self._ruined.add(set_idx)

    def beside(self, set_idx: int, n_measured: int) -> Others:
        """How the others fared.

        Args:
            n_measured: Of the measurements those of the set itself.
        """
        return Others(self._n_measured - n_measured, len(self._ruined - {set_idx}))


@dataclass(frozen=True)
class Tries:
    """What a measurement has been through. Each kind of failure is counted by itself, within bounds of its own.

    A guest that fails may be sick, or the set may have made it so. The set is blamed where it failed before and other sets were
    measured in between. The other way round, a set that ruined its guest is not blamed while all others do the same: then it is the
    guests that are sick (a damaged snapshot, say), and nothing that runs there tells anything about itself.

    Attributes:
        n_taskset: Failures that were the set's doing.
        n_guest: The guest's, its emulator's, or the line's.
        n_host: This computer's.
        n_disturbed: Measurements that this computer disturbed too much.
        n_others: Measurements of other sets when it last failed.
    """

    n_taskset: int = 0
    n_guest: int = 0
    n_host: int = 0
    n_disturbed: int = 0
    n_others: int = 0

    def blame(self, error: RunnerError, others: Others) -> Fault | None:
        """Whose doing this failure is, in the light of all others; None for what is no failure of the infrastructure."""
        match fault_of(error):
            case Fault.GUEST if self.n_taskset + self.n_guest > 0 and others.n_measured > self.n_others:
                return Fault.TASKSET
            case Fault.TASKSET if others.n_ruined >= SICK_FROM:
                return Fault.GUEST
            case fault:
                return fault

    def failed(self, error: RunnerError, others: Others) -> Tries:
        """With one failure more."""
        match self.blame(error, others):
            case Fault.TASKSET:
                return replace(self, n_taskset=self.n_taskset + 1, n_others=others.n_measured)
            case Fault.GUEST:
                return replace(self, n_guest=self.n_guest + 1, n_others=others.n_measured)
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
