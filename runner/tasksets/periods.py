"""Periods of random task sets: where they are drawn from, and how long a hyperperiod can come of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any

from runner.tasksets.request import count, kind_of, only, period_ns, require
from runner.tasksets.stream import Uniform, one_of
from runner.tasksets.written import is_list, sequence
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS, NS_PER_MS, NS_PER_US

# The kernel takes no SCHED_DEADLINE runtime below 1,024 ns; the same floor for all policies keeps the sets comparable.
MIN_WCET_NS = 2 * NS_PER_US
MAX_PERIODS = 1000
MAX_FACTOR = 1000
# WATERS 2015 challenge (Kramer, Ziegenbein and Hamann): period in ms -> percent of the runnables. The 15 % that turn with the
# crankshaft have no period and are left out, as is usual.
WATERS_SHARES = ((1, 3), (2, 2), (5, 2), (10, 25), (20, 25), (50, 3), (100, 20), (200, 1), (1000, 4))

# A span of periods, in short.
_SPAN = re.compile(r"\s*(\w+)\s+(\S+?)\s*\.\.\s*(\S+)(?:\s+step\s+(\S+))?\s*")


class Distribution(StrEnum):
    """How periods are drawn."""

    #: From a list, each value alike.
    CHOICE = "choice"
    #: Uniform over the multiples of the granularity in [min, max].
    UNIFORM = "uniform"
    #: Log-uniform (Emberson, Stafford and Davis 2010): each order of magnitude alike, rounded down to the granularity.
    LOG_UNIFORM = "log_uniform"
    #: Each period is a multiple of the one before, none beyond `max`.
    HARMONIC = "harmonic"
    #: Periods and shares of the WATERS 2015 challenge, without its execution times.
    AUTOMOTIVE = "automotive"


@dataclass(frozen=True, kw_only=True)
class PeriodRule:
    """How the periods of a set's tasks are drawn; all in nanoseconds.

    Attributes:
        values_ns: What is drawn from, of a list (the first period of a harmonic set).
        min_ns, max_ns, granularity_ns: Bounds, of a distribution.
        factors: What a period is multiplied by to get the next, of a harmonic set.
        written: As it was given, plain.
    """

    distribution: Distribution
    values_ns: tuple[int, ...] = ()
    min_ns: int = 0
    max_ns: int = 0
    granularity_ns: int = 1
    factors: tuple[int, ...] = ()
    written: Any = None

    @property
    def shortest_ns(self) -> int:
        """No period is shorter."""
        return min(self.values_ns, default=self.min_ns)

    @property
    def longest_ns(self) -> int:
        """No period is longer."""
        return self.max_ns or max(self.values_ns)

    def n_different(self, n_tasks: int) -> int:
        """How many different periods a set can have."""
        fixed = self.distribution in (Distribution.CHOICE, Distribution.AUTOMOTIVE)
        return min(n_tasks, len(set(self.values_ns))) if fixed else n_tasks

    def longest_hyperperiod_ns(self, n_tasks: int) -> int:
        """No hyperperiod of n tasks is longer: the least common multiple of all, or the product of the longest n."""
        match self.distribution:
            case Distribution.HARMONIC:
                return self.max_ns
            case Distribution.UNIFORM | Distribution.LOG_UNIFORM:
                values_ns: Sequence[int] = range(self.min_ns, self.max_ns + 1, self.granularity_ns)
                if (self.max_ns - self.min_ns) // self.granularity_ns >= MAX_PERIODS:
                    return int(self.max_ns**n_tasks)
            case _:
                values_ns = self.values_ns
        longest_first = sorted(values_ns, reverse=True)
        return min(math.lcm(*values_ns), math.prod(longest_first[:n_tasks]))

    def draw(self, n_tasks: int, uniform: Uniform) -> list[int]:
        """The periods of n tasks."""
        match self.distribution:
            case Distribution.CHOICE:
                return [self.values_ns[one_of(len(self.values_ns), uniform)] for _ in range(n_tasks)]
            case Distribution.AUTOMOTIVE:
                return [self._waters(uniform) for _ in range(n_tasks)]
            case Distribution.HARMONIC:
                return self._harmonic(n_tasks, uniform)
            case _:
                return [self._within(uniform()) for _ in range(n_tasks)]

    def _waters(self, uniform: Uniform) -> int:
        sums = list(accumulate(percent for _, percent in WATERS_SHARES))
        drawn = uniform() * sums[-1]
        return (
            next(ms for (ms, _), total in zip(WATERS_SHARES, sums, strict=True) if drawn < total) * NS_PER_MS
        )

    def _harmonic(self, n_tasks: int, uniform: Uniform) -> list[int]:
        periods_ns = [self.values_ns[one_of(len(self.values_ns), uniform)]]
        while len(periods_ns) < n_tasks:
            longer_ns = periods_ns[-1] * self.factors[one_of(len(self.factors), uniform)]
            periods_ns.append(longer_ns if longer_ns <= self.max_ns else periods_ns[-1])
        return periods_ns

    def _within(self, part: float) -> int:
        low_ns, end_ns = self.min_ns, self.max_ns + self.granularity_ns
        if self.distribution is Distribution.LOG_UNIFORM:
            drawn_ns = math.exp(math.log(low_ns) + part * (math.log(end_ns) - math.log(low_ns)))
        else:
            drawn_ns = low_ns + part * (end_ns - low_ns)
        # Within the bounds also where the logarithm was rounded.
        return min(self.max_ns, max(low_ns, int(drawn_ns) // self.granularity_ns * self.granularity_ns))


def period_rule(value: object, key: str = "periods") -> PeriodRule:
    """The rule that a plain value describes.

    A list of periods is a choice; otherwise `{kind: …}` with what that kind takes, or its short form:

        {kind: uniform, min: 10ms, max: 100ms, granularity: 1ms}      uniform 10ms..100ms step 1ms
        {kind: log_uniform, min: 10ms, max: 1s, granularity: 1ms}     log_uniform 10ms..1s step 1ms
        {kind: harmonic, first: [10ms, 12ms], factors: [2, 3], max: 1s}
        automotive

    Raises:
        UsageError: names the key.
    """
    if is_list(value):
        values_ns = _list_ns(value, key)
        return PeriodRule(distribution=Distribution.CHOICE, values_ns=values_ns, written=list(values_ns))
    if isinstance(value, str) and (match := _SPAN.fullmatch(value)):
        kind, shortest, longest, step = match.groups()
        value = {"kind": kind, "min": shortest, "max": longest, **({"granularity": step} if step else {})}
    name, given = kind_of(
        value, key, [kind for kind in Distribution if kind is not Distribution.CHOICE], "kind"
    )
    distribution = Distribution(name)
    match distribution:
        case Distribution.AUTOMOTIVE:
            only(given, (), key)
            values_ns = tuple(ms * NS_PER_MS for ms, _ in WATERS_SHARES)
            return PeriodRule(distribution=distribution, values_ns=values_ns, written=name)
        case Distribution.HARMONIC:
            return _harmonic(given, key)
        case _:
            return _bounded(distribution, given, key)


def _list_ns(value: object, key: str) -> tuple[int, ...]:
    items = sequence(value, key)
    require(bool(items), key, "is empty", "list the periods to draw from")
    require(len(items) <= MAX_PERIODS, key, f"has {len(items)} values, more than {MAX_PERIODS}")
    return tuple(_one_ns(item, f"{key}[{idx}]") for idx, item in enumerate(items))


def _one_ns(value: object, key: str) -> int:
    value_ns = period_ns(value, key)
    require(
        MIN_WCET_NS <= value_ns <= MAX_TIME_NS,
        key,
        f"is {excerpt(value_ns)} ns, must be {MIN_WCET_NS}…{MAX_TIME_NS} ns",
    )
    return value_ns


def _required(given: Mapping[str, Any], name: str, key: str, example: str) -> Any:  # noqa: ANN401 - a plain value
    require(given.get(name) is not None, f"{key}.{name}", "is missing", f"write it like {name}: {example}")
    return given[name]


def _bounded(distribution: Distribution, given: Mapping[str, Any], key: str) -> PeriodRule:
    only(given, ("min", "max", "granularity"), key)
    min_ns = _one_ns(_required(given, "min", key, "10ms"), f"{key}.min")
    max_ns = _one_ns(_required(given, "max", key, "1s"), f"{key}.max")
    step_ns = period_ns(given.get("granularity", 1), f"{key}.granularity")
    require(min_ns <= max_ns, f"{key}.min", f"is {min_ns} ns, more than {key}.max, {max_ns} ns")
    require(
        step_ns > 0 and min_ns % step_ns == 0 and max_ns % step_ns == 0,
        f"{key}.granularity",
        f"is {step_ns} ns, which min ({min_ns} ns) and max ({max_ns} ns) must be multiples of",
    )
    written = {"kind": distribution.value, "min": min_ns, "max": max_ns, "granularity": step_ns}
    return PeriodRule(
        distribution=distribution, min_ns=min_ns, max_ns=max_ns, granularity_ns=step_ns, written=written
    )


def _harmonic(given: Mapping[str, Any], key: str) -> PeriodRule:
    only(given, ("first", "factors", "max"), key)
    first = _required(given, "first", key, "10ms")
    firsts_ns = _list_ns(first if is_list(first) else [first], f"{key}.first")
    max_ns = _one_ns(_required(given, "max", key, "1s"), f"{key}.max")
    require(max(firsts_ns) <= max_ns, f"{key}.max", f"is {max_ns} ns, less than {key}.first")
    items = sequence(given.get("factors", [2]), f"{key}.factors")
    require(
        0 < len(items) <= MAX_PERIODS, f"{key}.factors", f"has {len(items)} values, must have 1…{MAX_PERIODS}"
    )
    factors = tuple(count(item, f"{key}.factors[{idx}]", 1, MAX_FACTOR) for idx, item in enumerate(items))
    written = {
        "kind": Distribution.HARMONIC.value,
        "first": list(firsts_ns),
        "factors": list(factors),
        "max": max_ns,
    }
    return PeriodRule(
        distribution=Distribution.HARMONIC,
        values_ns=firsts_ns,
        max_ns=max_ns,
        factors=factors,
        written=written,
    )
