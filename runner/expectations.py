"""What an experiment is expected to show, and whether what came out agrees with it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from runner.confidence import wilson
from runner.errors import UsageError
from runner.text.excerpt import excerpt
from runner.units import NS_PER_US, parse_ns

_SIGNS = {"": "=", "=": "=", ">=": ">=", "≥": ">=", "<=": "<=", "≤": "<="}
_WRITTEN = re.compile(r"\s*(>=|<=|≥|≤|=|)\s*([^±]+?)\s*(?:±\s*([^±]+?)\s*)?")


class Unit(Enum):
    """What a figure is."""

    #: A time in nanoseconds.
    TIME = "time"
    #: A share of so many sets: 0 … 1.
    SHARE = "share"


@dataclass(frozen=True)
class Bound:
    """An expected value: `28.5ms`, `>= 0.806`, `0.882 ± 0.015`.

    Attributes:
        text: As it was written.
        sign: `=`, `>=` or `<=`.
        value: In ns, or a share.
        tolerance: How far off a figure may be; None: what is usual for it.
    """

    text: str
    sign: str
    value: float
    tolerance: float | None = None

    @classmethod
    def parse(cls, text: str, unit: Unit, key: str) -> Bound:
        """As it is written in a config.

        Raises:
            UsageError: it is none; names the key.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise _refusal(text, unit, key)
        sign, value, tolerance = match.groups()
        return cls(
            text.strip(),
            _SIGNS[sign],
            _number(value, unit, key),
            None if tolerance is None else _number(tolerance, unit, key),
        )

    def holds_for_time(self, found_ns: int | None) -> bool:
        """Usual tolerance: 1 % for the kernel's own work and 50 µs for waking up, as it was measured on guests with counted time."""
        usual_ns = self.value / 100 + 50 * NS_PER_US
        return found_ns is not None and self._holds(
            found_ns, found_ns, usual_ns if self.tolerance is None else self.tolerance
        )

    def holds_for_share(self, n_hits: int, n: int) -> bool:
        """Without a tolerance: the value lies in the share's 95 % confidence interval, or the interval reaches it."""
        if not n:
            return False
        if self.tolerance is None:
            low, high = wilson(n_hits, n)
            return self._holds(low, high, 0.0)
        return self._holds(n_hits / n, n_hits / n, self.tolerance)

    def holds_for_mean(self, mean: float, half_width: float) -> bool:
        """Without a tolerance: the value lies in the mean's 95 % confidence interval of that half-width, or the interval reaches it."""
        return self._holds(mean, mean, half_width if self.tolerance is None else self.tolerance)

    def _holds(self, low: float, high: float, tolerance: float) -> bool:
        rounding = 1e-9 * max(1.0, abs(self.value))
        above = self.sign == ">=" or low <= self.value + tolerance + rounding
        below = self.sign == "<=" or high >= self.value - tolerance - rounding
        return above and below


@dataclass(frozen=True, kw_only=True)
class ExpectedSet:
    """Of the task set of one name, task by task; empty: nothing is expected of it.

    Attributes:
        worst_response: Of the finished jobs.
        missed: Jobs that missed their deadline.
        refused: Which tasks the kernel refuses, by index; None: nothing is said of it.
    """

    worst_response: tuple[Bound, ...] = ()
    missed: tuple[int, ...] = ()
    refused: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ExpectedBreakdown:
    """Of the breakdown utilizations that the test `breakdown` found.

    Attributes:
        mean: Number of tasks -> mean over the sets that have so many.
        at_least: Utilization -> share of all sets whose breakdown utilization is not below it.
    """

    mean: Mapping[int, Bound] = field(default_factory=dict)
    at_least: Mapping[float, Bound] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.mean or self.at_least)


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """Everything that is expected of a run.

    Attributes:
        sets: By name.
        acceptance: Scheduler (`fifo`, `deadline` …: what was measured) or test (`rta`, `qpa` …: what analysis says) -> utilization
            -> share of the sets.
        breakdown: Where sets break, as analysis says.
        slack: A set that response-time analysis accepts with each C longer by this share misses nothing; None: not looked at.
        overload: Above so much measured utilization, and the set misses; None: not looked at.
    """

    sets: Mapping[str, ExpectedSet] = field(default_factory=dict)
    acceptance: Mapping[str, Mapping[float, Bound]] = field(default_factory=dict)
    breakdown: ExpectedBreakdown = ExpectedBreakdown()
    slack: float | None = None
    overload: float | None = None

    def __bool__(self) -> bool:
        figures = self.sets or self.acceptance or self.breakdown
        return bool(figures or self.slack is not None or self.overload is not None)


@dataclass(frozen=True)
class Compared:
    """One expectation beside what came out."""

    what: str
    expected: str
    found: str
    holds: bool


def table(lines: tuple[Compared, ...]) -> str:
    """For people: aligned, with what failed marked and counted."""
    rows = [("figure", "expected", "found", "")]
    rows += [(one.what, one.expected, one.found, "ok" if one.holds else "NOT AS EXPECTED") for one in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    n_failed = sum(not one.holds for one in lines)
    verdict = f"{len(lines) - n_failed} of {len(lines)} figures are as expected."
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:], rule, verdict])


def _number(text: str, unit: Unit, key: str) -> float:
    if unit is Unit.TIME:
        return parse_ns(text, key=key)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise _refusal(text, unit, key)
    return value


def _refusal(text: str, unit: Unit, key: str) -> UsageError:
    examples = '"28.5ms" or "<= 70ms"' if unit is Unit.TIME else '"0.806", ">= 0.806" or "0.882 ± 0.015"'
    return UsageError(
        f"{key} is {excerpt(text)}, which is no expected {unit.value}",
        where=key,
        next_step=f"write it like {examples}",
    )
