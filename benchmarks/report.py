"""What a benchmark prints: under which load it ran, and whether a figure is as good as wanted."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure, and what it should be.

    Attributes:
        what: Names the figure.
        value: As measured.
        limit: The least or the most that is good enough.
        unit: Of both.
        at_least: Whether more is better.
    """

    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is good enough."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def print_heading(title: str) -> None:
    """What was run, and what else this computer had to do when it began: figures of a busy one are rough."""
    one_min, five_min, _ = os.getloadavg()
    print(title)
    print(f"load average before: {one_min:.2f} (1 min), {five_min:.2f} (5 min), {os.cpu_count()} CPUs")


def print_goals(goals: Sequence[Goal]) -> bool:
    """A line for each; whether all are met."""
    for goal in goals:
        bound = "at least" if goal.at_least else "at most"
        verdict = "met" if goal.met else "MISSED"
        print(
            f"goal, {goal.what}: {bound} {goal.limit:g}{goal.unit}: {verdict} ({goal.value:.3g}{goal.unit})"
        )
    return all(goal.met for goal in goals)


def median_ms(durations_s: Sequence[float]) -> float:
    """The median of durations in seconds, in milliseconds."""
    return statistics.median(durations_s) * 1e3
