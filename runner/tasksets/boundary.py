"""Random sets where they tell most: at the utilizations at which schedulability flips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runner.model import TaskSet
from runner.model.adaptive import Rounds, Verdict, uninformed
from runner.tasksets.generated import MAX_SETS, RandomTaskSets
from runner.tasksets.request import count, require

MAX_ROUND = 100_000


@dataclass
class _Point:
    """What is known of one utilization: sets drawn, schedulable and not."""

    n_drawn: int = 0
    n_good: int = 0
    n_missed: int = 0

    @property
    def chance(self) -> float:
        """That a set is schedulable: (good + 1) / (known + 2), Laplace's rule."""
        return (self.n_good + 1) / (self.n_good + self.n_missed + 2)


class BoundaryTaskSets:
    """Sets of `RandomTaskSets`, so many from each utilization as tells most about where schedulability flips.

    Round by round each set goes to the utilization with the largest p(1 - p) · b / (n + 1): p the chance of a schedulable set there,
    n the sets it has had, b = p where schedulable sets are the rarer class so far, 1 - p where they are the more frequent one: so the
    measurements gather round p = 1/2, and the classes come out alike. The first round goes to all alike. A set that was given
    up, or is open, counts as drawn and says nothing.

    Guarantees: an `AdaptiveSource`; the nth set of a utilization is the nth that `RandomTaskSets` makes there.

    Args:
        n_sets: Sets in all.
        round: Sets that are measured before the next are chosen; fewer follow the results more closely, more keep more machines busy.
        others: As `RandomTaskSets`, with one value of each attribute, and without `sets_per_utilization`.

    Raises:
        UsageError: as there.
    """

    def __init__(self, *, n_sets: int, round: int = 20, **others: Any) -> None:  # noqa: A002, ANN401 - its name in the config
        require(
            "sets_per_utilization" not in others, "sets_per_utilization", "hangs on the results", "set n_sets"
        )
        self._n_sets = count(n_sets, "n_sets", 1, MAX_SETS)
        self._n_round = count(round, "round", 1, MAX_ROUND)
        self._made_by = RandomTaskSets(sets_per_utilization=self._n_sets, **others)
        require(
            self._made_by.n_combinations == 1,
            "n_sets",
            f"is shared by {self._made_by.n_combinations} combinations of values",
            "give each attribute one value, and make a run of each: --multirun",
        )

    @property
    def n_variants(self) -> int:
        """`n_sets`."""
        return self._n_sets

    def variants(self) -> Iterator[TaskSet]:
        """The same number from each utilization, for nothing is known of any."""
        return uninformed(self.rounds())

    def rounds(self) -> Rounds:
        """So many sets, then those that their results make worth while."""
        points = [_Point() for _ in self._made_by.totals]
        n_left = self._n_sets
        while n_left:
            chosen = [_draw_next(points) for _ in range(min(self._n_round, n_left))]
            n_left -= len(chosen)
            verdicts = yield [self._made_by.make(point_idx, set_idx) for point_idx, set_idx in chosen]
            for (point_idx, _), verdict in zip(chosen, verdicts, strict=True):
                _note(points[point_idx], verdict)


def _draw_next(points: list[_Point]) -> tuple[int, int]:
    """Point and place of the next set; the first of equals."""
    surplus = sum(point.n_good - point.n_missed for point in points)

    def worth(point: _Point) -> float:
        p = point.chance
        balance = 0.5 if not surplus else p if surplus < 0 else 1 - p
        return p * (1 - p) * balance / (point.n_drawn + 1)

    best = max(range(len(points)), key=lambda idx: (worth(points[idx]), -idx))
    points[best].n_drawn += 1
    return best, points[best].n_drawn - 1


def _note(point: _Point, verdict: Verdict) -> None:
    if verdict is not None:
        point.n_good += verdict
        point.n_missed += not verdict
