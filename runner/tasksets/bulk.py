"""Many random sets at once, as arrays: the same sets that `RandomTaskSets.make` makes one by one, without their objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.compiled import compiled
from runner.tasksets.deadlines import DeadlineModel
from runner.tasksets.generated import RandomTaskSets
from runner.tasksets.periods import MIN_WCET_NS, Distribution
from runner.tasksets.programs import SPIN
from runner.tasksets.recipe import Recipe
from runner.tasksets.request import require
from runner.tasksets.shares import Shares

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_ONE = np.uint64(1)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
# SeedSequence (O'Neill's seed_seq without its faults), all in 32 bits.
_HASH, _HASH_FACTOR = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)
_STATE, _STATE_FACTOR = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)
_MIX, _MIX_OTHER = np.uint64(0xCA01F9DD), np.uint64(0x1_0000_0000 - 0x4973F715)
# PCG64 (O'Neill 2014).
_FACTOR_HIGH, _FACTOR_LOW = np.uint64(2549297995355413924), np.uint64(4865540595714422341)


@dataclass(frozen=True)
class TaskSetArrays:
    """Sets of as many tasks each; deadlines are implicit, releases synchronous.

    Attributes:
        wcet_ns, period_ns: int64, one row per set, one column per task.
    """

    wcet_ns: Ints
    period_ns: Ints

    def rate_monotonic(self) -> TaskSetArrays:
        """The same sets, the most urgent task of each first; tasks of equal periods stay in their order."""
        ordered = TaskSetArrays(self.wcet_ns.copy(), self.period_ns.copy())
        _sort(ordered.wcet_ns, ordered.period_ns)
        return ordered


def make_many(source: RandomTaskSets, point_idx: int, first_idx: int, n_sets: int) -> TaskSetArrays:
    """C and T of sets `first_idx` … of a point, in the order of their places.

    Guarantees: exactly those of `source.make(point_idx, set_idx)`.

    Raises:
        HostError: Numba is not installed.
        UsageError: the source has other rules than UUniFast, a list of periods, implicit deadlines, and C that is known; or several
            values of an attribute; or not so many sets.
    """
    total, recipe = _plain(source, point_idx)
    require(
        first_idx >= 0
        and n_sets > 0
        and first_idx + n_sets <= min(source.n_variants // len(source.totals), 1 << 32),
        "n_sets",
        f"is {n_sets} from {first_idx} on: there are not so many sets",
        "raise sets_per_utilization",
    )
    made = TaskSetArrays(*(np.empty((n_sets, recipe.n_tasks), np.int64) for _ in range(2)))
    _draw(
        _words(source.seed, at_least=4),
        _words(point_idx, at_least=1),
        first_idx,
        total,
        *recipe.shares.bounds[0],
        np.array(recipe.periods.values_ns, np.int64),
        made.wcet_ns,
        made.period_ns,
    )
    return made


def _plain(source: RandomTaskSets, point_idx: int) -> tuple[float, Recipe]:
    require(
        source.n_combinations == 1, "source", "has several values of an attribute", "make one source of each"
    )
    recipe, total = source.recipe(0), source.totals[point_idx]
    uunifast = recipe.shares.kind in (Shares.UUNIFAST, Shares.UUNIFAST_DISCARD)
    require(
        uunifast
        and recipe.periods.distribution is Distribution.CHOICE
        and recipe.deadlines.model is DeadlineModel.IMPLICIT
        and recipe.workload == SPIN
        and not (recipe.offsets or recipe.jitter),
        "source",
        "has rules beside UUniFast and a list of periods",
        "make its sets one by one: variants()",
    )
    return total or 0.0, recipe


def _words(number: int, *, at_least: int) -> Words:
    """32-bit words, the lowest first."""
    words = [number >> at & 0xFFFFFFFF for at in range(0, number.bit_length(), 32)]
    return np.array(words + [0] * (at_least - len(words)), np.uint64)


@compiled
def _sort(wcet: Ints, period: Ints) -> None:
    """Each row by insertion, in place."""
    for row in range(len(period)):
        for idx in range(1, period.shape[1]):
            cost, time, place = wcet[row, idx], period[row, idx], idx
            while place and period[row, place - 1] > time:
                wcet[row, place], period[row, place] = wcet[row, place - 1], period[row, place - 1]
                place -= 1
            wcet[row, place], period[row, place] = cost, time


@compiled
def _draw(  # noqa: PLR0917 - a compiled loop takes numbers and arrays
    seed: Words,
    point: Words,
    first_idx: int,
    total: float,
    low: float,
    high: float,
    values_ns: Ints,
    wcet_ns: Ints,
    period_ns: Ints,
) -> None:
    """What `Recipe.draw_times` draws from `uniform_stream(seed, point_idx, set_idx)`, set by set."""
    n_sets, n = wcet_ns.shape
    shares = np.empty(n)
    pool, factor = _pool(seed, point)
    for row in range(n_sets):
        state, added = _begun(pool, factor, np.uint64(first_idx + row))
        within = False
        while not within:
            left, within = total, True
            for idx in range(n - 1):
                state = _step(state, added)
                rest = left * _number(state) ** (1.0 / (n - 1 - idx))
                shares[idx], left = left - rest, rest
            shares[n - 1] = left
            for share in shares:
                if n > 1 and not low <= share <= high:
                    within = False
        for idx in range(n):
            state = _step(state, added)
            time_ns = values_ns[int(_number(state) * len(values_ns))]
            period_ns[row, idx] = time_ns
            wcet_ns[row, idx] = min(time_ns, max(MIN_WCET_NS, int(shares[idx] * time_ns)))


@compiled
def _folded(word: np.uint64) -> np.uint64:
    word &= _LOW
    return word ^ word >> np.uint64(16)


@compiled
def _pool(seed: Words, point: Words) -> tuple[Words, np.uint64]:
    """The pool of `SeedSequence(seed, spawn_key=(point, …))` before the last word, and with what that will be multiplied."""
    pool, factor = np.empty(4, np.uint64), _HASH
    for idx in range(4):
        word = seed[idx] ^ factor
        factor = factor * _HASH_FACTOR & _LOW
        pool[idx] = _folded(word * factor)
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target], factor = _mixed(pool[target], pool[source], factor)
    for words in (seed[4:], point):
        for word in words:
            for target in range(4):
                pool[target], factor = _mixed(pool[target], word, factor)
    return pool, factor


@compiled
def _mixed(word: np.uint64, other: np.uint64, factor: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A word of the pool with another hashed into it, and the next factor."""
    other ^= factor
    factor = factor * _HASH_FACTOR & _LOW
    return _folded(_MIX * word + _MIX_OTHER * _folded(other * factor)), factor


@compiled
def _begun(
    pool: Words, factor: np.uint64, place: np.uint64
) -> tuple[tuple[np.uint64, np.uint64], tuple[np.uint64, np.uint64]]:
    """PCG64's state and increment of a set's place: high and low halves of 128 bits."""
    zero, factor = _mixed(pool[0], place, factor)
    one, factor = _mixed(pool[1], place, factor)
    two, factor = _mixed(pool[2], place, factor)
    three, _ = _mixed(pool[3], place, factor)
    factor = _STATE
    a, factor = _output(zero, one, factor)
    b, factor = _output(two, three, factor)
    c, factor = _output(zero, one, factor)
    d, _ = _output(two, three, factor)
    added = (c << _ONE | d >> np.uint64(63), d << _ONE | _ONE)
    low = b + added[1]
    return _step((a + added[0] + np.uint64(low < b), low), added), added


@compiled
def _output(low: np.uint64, high: np.uint64, factor: np.uint64) -> tuple[np.uint64, np.uint64]:
    """64 bits of what the seed sequence generates, and the next factor."""
    low ^= factor
    factor = factor * _STATE_FACTOR & _LOW
    low = _folded(low * factor)
    high ^= factor
    factor = factor * _STATE_FACTOR & _LOW
    return low | _folded(high * factor) << _HALF, factor


@compiled
def _step(
    state: tuple[np.uint64, np.uint64], added: tuple[np.uint64, np.uint64]
) -> tuple[np.uint64, np.uint64]:
    """state · multiplier + increment, modulo 2^128; the upper half of low · factor from products of half words."""
    high, low = state
    a, b, c, d = low & _LOW, low >> _HALF, _FACTOR_LOW & _LOW, _FACTOR_LOW >> _HALF
    ad, bc = a * d, b * c
    carry = (a * c >> _HALF) + (ad & _LOW) + (bc & _LOW) >> _HALF
    high = high * _FACTOR_LOW + low * _FACTOR_HIGH + b * d + (ad >> _HALF) + (bc >> _HALF) + carry
    before = low * _FACTOR_LOW
    low = before + added[1]
    return high + added[0] + np.uint64(low < before), low


@compiled
def _number(state: tuple[np.uint64, np.uint64]) -> float:
    """In [0, 1): 53 of the 64 bits of PCG's XSL-RR output, as `uniform_stream` takes them."""
    word, turn = state[0] ^ state[1], state[0] >> np.uint64(58)
    word = word >> turn | word << (np.uint64(64) - turn & np.uint64(63))
    return float(word >> np.uint64(11)) * 2.0**-53
