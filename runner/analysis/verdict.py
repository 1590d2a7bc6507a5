"""What a schedulability test says, and how much that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether every job of a task set meets its deadline, for ever."""

    SCHEDULABLE = "schedulable"
    UNSCHEDULABLE = "unschedulable"
    #: The test proves neither, or was not finished within its bound of work.
    UNKNOWN = "unknown"


class Exactness(StrEnum):
    """What a test can prove of the set that it was applied to."""

    #: It passes if, and only if, the set is schedulable.
    EXACT = "exact"
    #: A set that passes is schedulable; one that fails may be.
    SUFFICIENT = "sufficient"
    #: A set that fails is not schedulable; one that passes may not be, either.
    NECESSARY = "necessary"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One test, applied to one task set.

    Attributes:
        test: `ll`, `hb`, `rta`, `edf_utilization`, `pdc`, `qpa`, `edf_rta`, `breakdown`, `gfb` or `bcl`.
        n_cpus: Processors that the set was judged for.
        verdict: What follows for this set, as it is scheduled.
        exactness: What the test can prove of this set.
        margin: How far the set is from the test's bound, positive inside; None where the test has no such number.
        horizon_ns: Where the verdict is unschedulable: a run in which all tasks go on releasing jobs that long misses a deadline
            by then. None where no such instant is known.
        wcrt_ns: Bounds on the response times, per task in the set's order; None for a task without one. Empty: the test has none.
        wall_us: What it cost.
    """

    test: str
    n_cpus: int
    verdict: Verdict
    exactness: Exactness
    margin: float | None = None
    horizon_ns: int | None = None
    wcrt_ns: tuple[int | None, ...] = ()
    wall_us: float = 0.0
