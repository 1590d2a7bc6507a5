"""A time budget that is handed down, instead of numbers that add up."""

from __future__ import annotations

import time
from dataclasses import dataclass

# 31 years: as good as endless, and a tenth of what the system's own waits take.
MAX_BUDGET_S = 1e9


@dataclass(frozen=True)
class Deadline:
    """An instant on the monotonic clock until which something may take.

    Attributes:
        budget_s: What was granted at the start, in seconds; for messages.
        at_s: The instant, in seconds of `time.monotonic()`.
    """

    budget_s: float
    at_s: float

    @classmethod
    def after(cls, budget_s: float) -> Deadline:
        """A deadline that passes in `budget_s` seconds from now, or in `MAX_BUDGET_S`."""
        return cls(budget_s, time.monotonic() + min(budget_s, MAX_BUDGET_S))

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative: fit to be passed as a timeout."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.remaining_s <= 0.0

    def at_most(self, budget_s: float) -> Deadline:
        """The earlier of this deadline and one in `budget_s` seconds."""
        other = Deadline.after(budget_s)
        return other if other.at_s < self.at_s else self
