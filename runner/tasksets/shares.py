"""Utilizations of tasks with a given sum: how they are drawn, and which sums can be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from runner.errors import UsageError
from runner.tasksets.convolutional import MAX_CONVOLUTIONAL_TASKS, convolutionalfixedsum
from runner.tasksets.request import number, require
from runner.tasksets.stream import Uniform, uniform_stream
from runner.tasksets.written import is_list, sequence

# Below this, redrawing until every task fits takes too long: 10,000 draws a set.
MIN_ACCEPTANCE = 1e-4
_N_TRIALS = 3


class Shares(StrEnum):
    """Who draws the utilizations."""

    #: Uniform over all with that sum (Bini and Buttazzo 2005); for sums in which no task's can exceed its bound.
    UUNIFAST = "uunifast"
    #: UUniFast, redrawn until every task's is within its bounds (Davis and Burns 2009).
    UUNIFAST_DISCARD = "uunifast_discard"
    #: Uniform over all with that sum within the bounds, without redrawing (Stafford; Emberson, Stafford and Davis 2010).
    RANDFIXEDSUM = "randfixedsum"
    #: The same with bounds of each task's own (Griffin and Davis 2025), by the package of that name.
    CONVOLUTIONALFIXEDSUM = "convolutionalfixedsum"
    #: C uniform and independent of T, then scaled to that sum (Lehoczky, Sha and Ding 1989): short periods get most of it.
    INDEPENDENT_COSTS = "independent_costs"


def uunifast(n_tasks: int, utilization: float, uniform: Uniform) -> list[float]:
    """Utilizations with the given sum, uniform over all that have it: UUniFast (Bini and Buttazzo 2005).

    `uniform` yields numbers in [0, 1). A share exceeds 1 only if the sum does.
    """
    shares, left = [], utilization
    for n_left in range(n_tasks - 1, 0, -1):
        rest = left * uniform() ** (1.0 / n_left)
        shares.append(left - rest)
        left = rest
    return [*shares, left]


def acceptance_probability(n_tasks: int, utilization: float, low: float = 0.0, high: float = 1.0) -> float:
    """How likely one draw of UUniFast has every share in [low, high] (inclusion and exclusion over the corners of the simplex)."""
    if n_tasks == 1:
        return float(low <= utilization <= high)
    free = utilization - n_tasks * low
    if free <= 0 or utilization >= n_tasks * high:
        return 0.0
    span = high - low
    n_corners = min(n_tasks, math.floor(free / span))
    within = 1.0
    if n_corners:
        within = math.fsum(
            (-1) ** k * math.comb(n_tasks, k) * max(0.0, 1 - k * span / free) ** (n_tasks - 1)
            for k in range(n_corners + 1)
        )
    return within * (free / utilization) ** (n_tasks - 1)


@lru_cache(maxsize=128)
def _halves(n: int, total: float) -> tuple[tuple[float, ...], ...]:
    """RandFixedSum's table: row i - 1, column j - 1: how likely the walk through the simplices goes down from j with i + 1 numbers left.

    The part of the unit cube where the numbers add up to `total` is cut into simplices; these weights are their volumes' shares.
    """
    lower = math.floor(min(total, n - 1))
    above = [total - (lower - i) for i in range(n)]
    below = [(lower + n - i) - total for i in range(n)]
    # Volumes of lower dimensions, scaled so that 64 dimensions neither vanish nor overflow.
    volumes = [0.0, 1e300] + [0.0] * (n - 1)
    rows = []
    for i in range(2, n + 1):
        up = [volumes[j + 1] * above[j] / i for j in range(i)]
        down = [volumes[j] * below[n - i + j] / i for j in range(i)]
        volumes = [0.0] + [up[j] + down[j] for j in range(i)] + [0.0] * (n - i)
        rows.append(
            tuple(
                0.0
                if not up[j] + down[j]
                else down[j] / (up[j] + down[j])
                if below[n - i + j] > above[j]
                else 1 - up[j] / (up[j] + down[j])
                for j in range(i)
            )
        )
    return tuple(rows)


def randfixedsum(n: int, total: float, uniform: Uniform) -> list[float]:
    """n numbers of [0, 1] with the given sum, uniform over all that have it: RandFixedSum (Stafford 2006).

    Takes 2(n - 1) numbers from the stream to walk down the simplices, and n - 1 to put the numbers into a random order.
    """
    if n == 1 or not 0 < total < n:
        return [total / n] * n
    if (
        total > n - 1
    ):  # the corner where all are almost 1, whose volumes vanish first: seen from the other side
        return [1.0 - number for number in randfixedsum(n, n - total, uniform)]
    rows, left = _halves(n, total), total
    place = math.floor(min(total, n - 1))
    numbers: list[float] = []
    sum_so_far, product = 0.0, 1.0
    for i in range(n - 1, 0, -1):
        one = 1 if uniform() < rows[i - 1][min(max(place, 0), i)] else 0
        factor = uniform() ** (1.0 / i)
        sum_so_far += (1.0 - factor) * product * left / (i + 1)
        product *= factor
        numbers.append(min(1.0, max(0.0, sum_so_far + product * one)))
        left -= one
        place -= one
    numbers.append(min(1.0, max(0.0, sum_so_far + product * left)))
    for last in range(n - 1, 0, -1):  # Fisher and Yates
        other = int(uniform() * (last + 1))
        numbers[last], numbers[other] = numbers[other], numbers[last]
    return numbers


def independent_costs(total: float, periods_ns: Sequence[int], uniform: Uniform) -> list[float]:
    """Utilizations with that sum of tasks whose C are uniform over (0, 1] before they are all scaled."""
    loads = [(1.0 - uniform()) / period_ns for period_ns in periods_ns]
    scale = total / math.fsum(loads)
    return [load * scale for load in loads]


@dataclass(frozen=True, kw_only=True)
class ShareRule:
    """How the utilizations of a set's tasks are drawn.

    Attributes:
        kind: Who draws them.
        bounds: Least and most of each task; the same for all but with `CONVOLUTIONALFIXEDSUM`.
    """

    kind: Shares
    bounds: tuple[tuple[float, float], ...]

    @property
    def _low(self) -> float:
        return self.bounds[0][0]

    @property
    def _high(self) -> float:
        return self.bounds[0][1]

    def check(self, total: float, key: str) -> None:
        """Refuse a sum that cannot be drawn, or hardly ever.

        Raises:
            UsageError: names the alternative.
        """
        n = len(self.bounds)
        least, most = (math.fsum(bound[side] for bound in self.bounds) for side in (0, 1))
        require(
            total > 0 and least <= total <= most,
            key,
            f"is {total:g}; {n} tasks within their bounds have a sum in ({least:g}, {most:g}]",
            "lower it, or raise n_tasks" if total > most else "raise it, or lower share_min or n_tasks",
        )
        if self.kind is Shares.CONVOLUTIONALFIXEDSUM:
            self._try_out(total, key)
        if self.kind is Shares.INDEPENDENT_COSTS:
            require(
                self._low <= 0 and total <= self._high,
                key,
                f"is {total:g}: a share that independent_costs draws can be out of bounds",
                "lower it, or choose shares: randfixedsum, which keeps to share_min and share_max",
            )
        if self.kind not in (Shares.UUNIFAST, Shares.UUNIFAST_DISCARD):
            return
        chance = acceptance_probability(n, total, self._low, self._high)
        if self.kind is Shares.UUNIFAST:
            require(
                chance >= 1,
                key,
                f"is {total:g}: a share that uunifast draws can be out of bounds",
                "choose shares: uunifast_discard, or randfixedsum",
            )
        require(
            chance >= MIN_ACCEPTANCE,
            key,
            f"is {total:g}: of {n} tasks hardly ever (probability {max(chance, 0):.1g}) all are within their bounds",
            "choose shares: randfixedsum (RandFixedSum), which redraws nothing; or lower it, or raise n_tasks",
        )

    def _try_out(self, total: float, key: str) -> None:
        """Whether the package is there, and copes with these bounds."""
        try:
            for attempt in range(_N_TRIALS):
                convolutionalfixedsum(total, self.bounds, uniform_stream(attempt))
        except UsageError as exc:
            raise UsageError(f"{key}: {exc.what}", where=key, next_step=exc.next_step) from exc

    def draw(self, total: float, uniform: Uniform) -> list[float]:
        """Utilizations with that sum; those of `INDEPENDENT_COSTS` take the periods, too: `independent_costs`."""
        n, low, high = len(self.bounds), self._low, self._high
        match self.kind:
            case Shares.RANDFIXEDSUM:
                if high == low:
                    return [low] * n
                free = min(float(n), max(0.0, (total - n * low) / (high - low)))
                return [low + (high - low) * part for part in randfixedsum(n, free, uniform)]
            case Shares.CONVOLUTIONALFIXEDSUM:
                return convolutionalfixedsum(total, self.bounds, uniform)
            case _:
                shares = uunifast(n, total, uniform)
                while n > 1 and (max(shares) > high or min(shares) < low):
                    shares = uunifast(n, total, uniform)
                return shares


def share_rule(kind: Shares, n_tasks: int, low: float, high: float, bounds: object) -> ShareRule:
    """A rule of checked values.

    Args:
        low, high: `share_min` and `share_max`, of every task.
        bounds: `share_bounds`: `[least, most]` of each task instead; None: none given.

    Raises:
        UsageError: names the parameter.
    """
    if bounds is None:
        require(low < high or n_tasks == 1, "share_min", f"is {low:g}, not below share_max, {high:g}")
        pairs = ((low, high),) * n_tasks
    else:
        require(
            kind is Shares.CONVOLUTIONALFIXEDSUM,
            "share_bounds",
            f"are bounds of each task's own, which shares: {kind} does not know",
            "choose shares: convolutionalfixedsum, or share_min and share_max for all tasks",
        )
        pairs = tuple(
            _pair(item, f"share_bounds[{idx}]") for idx, item in enumerate(sequence(bounds, "share_bounds"))
        )
        require(
            len(pairs) == n_tasks,
            "share_bounds",
            f"has {len(pairs)} entries, for {n_tasks} tasks",
            "give one per task",
        )
    require(
        kind is not Shares.CONVOLUTIONALFIXEDSUM or n_tasks <= MAX_CONVOLUTIONAL_TASKS,
        "n_tasks",
        f"is {n_tasks}; convolutionalfixedsum is exact for at most {MAX_CONVOLUTIONAL_TASKS} tasks",
        "choose shares: randfixedsum",
    )
    return ShareRule(kind=kind, bounds=pairs)


def _pair(item: object, key: str) -> tuple[float, float]:
    if not is_list(item) or len(item) != 2:
        raise UsageError(f"{key} is not a pair", where=key, next_step="write [least, most], like [0.1, 0.5]")
    low, high = number(item[0], f"{key}[0]", 0, 1), number(item[1], f"{key}[1]", 0, 1)
    require(low <= high, key, f"is [{low:g}, {high:g}]: the least is more than the most")
    return low, high
