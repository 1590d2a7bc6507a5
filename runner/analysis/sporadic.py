"""The task model of the analyses: whole numbers of any one unit of time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

#: A whole number of some unit, the same for all tasks of a set: nanoseconds, or the ticks of a textbook.
Time = int


class SporadicTask(NamedTuple):
    """A task that releases jobs at least a period apart; the worst case is taken over all such releases.

    Attributes:
        wcet: C, processor time that a job needs at most; more than 0.
        period: T, the least time between two arrivals; more than 0.
        deadline: D, relative to the arrival; may exceed the period.
        jitter: J, how much later than its arrival a job may be released.
        blocking: B, the longest time that tasks of lower priority can keep it from running.
    """

    wcet: Time
    period: Time
    deadline: Time
    jitter: Time = 0
    blocking: Time = 0


Tasks = Sequence[SporadicTask]


def utilization(tasks: Tasks) -> Fraction:
    """U, the sum of C/T, exactly."""
    numerator, denominator = load(tasks)
    return Fraction(numerator, denominator)


def load(tasks: Tasks) -> tuple[int, int]:
    """U as numerator and denominator, not in lowest terms: cheaper where it is only compared."""
    numerator, denominator = 0, 1
    for task in tasks:
        numerator = numerator * task.period + task.wcet * denominator
        denominator *= task.period
    return numerator, denominator


def implicit(tasks: Tasks) -> bool:
    """Whether no deadline is shorter than its period."""
    return all(task.deadline >= task.period for task in tasks)


def constrained(tasks: Tasks) -> bool:
    """Whether no deadline is longer than its period."""
    return all(task.deadline <= task.period for task in tasks)
