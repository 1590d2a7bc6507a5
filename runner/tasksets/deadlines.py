"""Relative deadlines of random task sets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runner.tasksets.request import kind_of, number, only, require
from runner.tasksets.stream import Uniform, between

MAX_FACTOR = 100.0
_DEFAULTS = {"constrained": (0.5, 1.0), "arbitrary": (0.5, 2.0)}


class DeadlineModel(StrEnum):
    """How deadlines relate to periods."""

    #: D = T.
    IMPLICIT = "implicit"
    #: D ≤ T.
    CONSTRAINED = "constrained"
    #: D may be longer than T.
    ARBITRARY = "arbitrary"


@dataclass(frozen=True, kw_only=True)
class DeadlineRule:
    """D = C + U(low, high) · (T - C), rounded down to whole nanoseconds; T itself where it is implicit.

    Attributes:
        written: As it was given, plain.
    """

    model: DeadlineModel = DeadlineModel.IMPLICIT
    low: float = 1.0
    high: float = 1.0
    written: Any = DeadlineModel.IMPLICIT.value

    def draw(self, wcet_ns: int, period_ns: int, uniform: Uniform) -> int | None:
        """The deadline of one task; None: implicit. A C that is not known counts as 1 ns."""
        if self.model is DeadlineModel.IMPLICIT:
            return None
        deadline_ns = wcet_ns + int(between(self.low, self.high, uniform) * (period_ns - wcet_ns))
        return min(period_ns, deadline_ns) if self.model is DeadlineModel.CONSTRAINED else deadline_ns


def deadline_rule(value: object, key: str = "deadlines") -> DeadlineRule:
    """The rule that a plain value describes: `implicit`, `constrained`, `arbitrary`, or `{model: constrained, low: 0.5, high: 1.0}`.

    Raises:
        UsageError: names the key.
    """
    name, given = kind_of(value, key, DeadlineModel, "model")
    model = DeadlineModel(name)
    if model is DeadlineModel.IMPLICIT:
        only(given, (), key)
        return DeadlineRule()
    only(given, ("low", "high"), key)
    most = 1.0 if model is DeadlineModel.CONSTRAINED else MAX_FACTOR
    low, high = _DEFAULTS[name]
    low = number(given.get("low", low), f"{key}.low", 0, most)
    high = number(given.get("high", max(low, high)), f"{key}.high", 0, most)
    require(low <= high, f"{key}.low", f"is {low:g}, more than {key}.high, {high:g}")
    return DeadlineRule(model=model, low=low, high=high, written={"model": name, "low": low, "high": high})
