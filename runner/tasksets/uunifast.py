"""Random task sets of a given utilization: the plain case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.tasksets.generated import RandomTaskSets
from runner.tasksets.periods import MIN_WCET_NS
from runner.tasksets.shares import acceptance_probability, uunifast

__all__ = ["MIN_WCET_NS", "UUniFastTaskSets", "acceptance_probability", "uunifast"]


class UUniFastTaskSets(RandomTaskSets):
    """Task sets at several utilizations, each made by UUniFast, with periods drawn uniformly from a list.

    Deadlines are implicit, ranks rate-monotonic, releases synchronous. Sums above 1 are redrawn until no task's share exceeds 1
    (UUniFast-Discard).

    Args:
        periods: What periods are drawn from: `"20ms"`, or whole nanoseconds.
        others: As `RandomTaskSets`.

    Raises:
        UsageError: as there.
    """

    generator: str | None = "uunifast"

    def __init__(self, *, periods: Sequence[int | str], **others: Any) -> None:  # noqa: ANN401 - as there
        super().__init__(periods=periods, **others)
