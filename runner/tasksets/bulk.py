"""Many random sets at once, as arrays: the same sets that `RandomTaskSets.make` makes one by one, without their objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.tasksets.deadlines import DeadlineModel
from runner.tasksets.generated import RandomTaskSets
from runner.tasksets.periods import MIN_WCET_NS, Distribution
from runner.tasksets.programs import SPIN
from runner.tasksets.recipe import Recipe
from runner.tasksets.request import require
from runner.tasksets.shares import Shares

Words = NDArray[np.uint64]

# As many sets as fit into a processor's cache.
_CHUNK_SETS = 8192
# Where C comes that near to another nanosecond, as a part of U·T, the set is made singly: NumPy's powers may differ in the last bit.
_MARGIN = 1e-12
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# PCG64 (O'Neill 2014), as in NumPy, which keeps its raw stream for ever (NEP 19).
_MULTIPLIER = (2549297995355413924, 4865540595714422341)


@dataclass(frozen=True)
class TaskSetArrays:
    """Sets of as many tasks each; deadlines are implicit, releases synchronous.

    Attributes:
        wcet_ns, period_ns: int64, one row per set, one column per task.
    """

    wcet_ns: NDArray[np.int64]
    period_ns: NDArray[np.int64]

    def rate_monotonic(self) -> TaskSetArrays:
        """The same sets, the most urgent task of each first; tasks of equal periods stay in their order."""
        order = np.argsort(self.period_ns, axis=1, kind="stable")
        return TaskSetArrays(
            *(np.take_along_axis(each, order, axis=1) for each in (self.wcet_ns, self.period_ns))
        )


def make_many(source: RandomTaskSets, point_idx: int, first_idx: int, n_sets: int) -> TaskSetArrays:
    """C and T of sets `first_idx` … of a point, in the order of their places.

    Guarantees: exactly those of `source.make(point_idx, set_idx)`.

    Raises:
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
    made = TaskSetArrays(*(np.empty((n_sets, recipe.n_tasks), dtype=np.int64) for _ in range(2)))
    for start in range(0, n_sets, _CHUNK_SETS):
        end = min(n_sets, start + _CHUNK_SETS)
        places = np.arange(first_idx + start, first_idx + end, dtype=np.uint64)
        wcet_ns, period_ns, is_near = _draw(recipe, total, _Streams(source.seed, point_idx, places))
        made.wcet_ns[start:end], made.period_ns[start:end] = wcet_ns, period_ns
        for row in np.flatnonzero(is_near):
            tasks = source.make(point_idx, int(places[row])).tasks
            made.wcet_ns[start + row] = [task.wcet_ns or 0 for task in tasks]
            made.period_ns[start + row] = [task.period_ns or 0 for task in tasks]
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


def _draw(recipe: Recipe, total: float, streams: _Streams) -> tuple[Any, Any, Any]:
    """C, T, and which sets have to be made singly."""
    n = recipe.n_tasks
    low, high = recipe.shares.bounds[0]
    shares = np.empty((streams.n_sets, n))
    left: Any = total
    for idx in range(n - 1):
        rest = left * streams.uniform() ** (1.0 / (n - 1 - idx))
        shares[:, idx] = left - rest
        left = rest
    shares[:, n - 1] = left
    values_ns = np.array(recipe.periods.values_ns, dtype=np.int64)
    period_ns = np.empty((streams.n_sets, n), dtype=np.int64)
    for idx in range(n):
        period_ns[:, idx] = values_ns[(streams.uniform() * len(values_ns)).astype(np.int64)]
    exact_ns = shares * period_ns
    wcet_ns = np.minimum(period_ns, np.maximum(MIN_WCET_NS, np.floor(exact_ns).astype(np.int64)))
    margin = _MARGIN * max(1.0, total)
    is_near = (np.abs(exact_ns - np.rint(exact_ns)) <= margin * period_ns).any(axis=1)
    if n > 1:  # these are redrawn, or perhaps
        is_near |= (shares.max(axis=1) > high - margin) | (shares.min(axis=1) < low + margin * (low > 0))
    return wcet_ns, period_ns, is_near


class _Streams:
    """The streams of many sets of one point, each as `uniform_stream` yields it, all one number at a time."""

    def __init__(self, seed: int, point_idx: int, places: Words) -> None:
        self.n_sets = len(places)
        state = _seeded(seed, point_idx, places)
        one = np.uint64(1)
        self._increment = ((state[2] << one) | (state[3] >> np.uint64(63)), (state[3] << one) | one)
        self._state = _add(self._increment, (state[0], state[1]))
        self._step()

    def _step(self) -> None:
        high, low = self._state
        m_high, m_low = (np.uint64(part) for part in _MULTIPLIER)
        product = _product_high(low, _MULTIPLIER[1]) + high * m_low + low * m_high, low * m_low
        self._state = _add(product, self._increment)

    def uniform(self) -> NDArray[np.floating]:
        """The next number in [0, 1) of each."""
        self._step()
        high, low = self._state
        word, turn = high ^ low, high >> np.uint64(58)
        turned = (word >> turn) | (word << ((np.uint64(64) - turn) & np.uint64(63)))
        return (turned >> np.uint64(11)) * 2.0**-53


def _add(one: tuple[Words, Words], other: tuple[Words, Words]) -> tuple[Words, Words]:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < one[1]), low


def _product_high(words: Words, factor: int) -> Words:
    """The upper 64 bits of products of 64-bit words."""
    f_low, f_high = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    low, high = words & _LOW, words >> _HALF
    cross, other = low * f_high, high * f_low
    middle = (low * f_low >> _HALF) + (cross & _LOW) + (other & _LOW)
    upper: Words = high * f_high + (cross >> _HALF) + (other >> _HALF) + (middle >> _HALF)
    return upper


def _words(number: int) -> list[int]:
    """32-bit words, the lowest first; at least one."""
    return [number >> at & 0xFFFFFFFF for at in range(0, max(1, number.bit_length()), 32)]


def _seeded(seed: int, point_idx: int, places: Words) -> list[Words]:
    """Four words of 64 bits for each place: `SeedSequence(seed, spawn_key=(point_idx, place)).generate_state(4)`.

    O'Neill's `seed_seq` without its faults, as NumPy documents it and keeps it (NEP 19); all in 32 bits.
    """
    entropy: list[Any] = _words(seed)
    entropy += [0] * (4 - len(entropy))
    entropy += [*_words(point_idx), places]
    factor = 0x43B0D7E5

    def hashed(word: Any) -> Any:  # noqa: ANN401 - a number, or many
        nonlocal factor
        word = word ^ factor
        factor = factor * 0x931E8875 & 0xFFFFFFFF
        return _folded(word * factor)

    pool = [hashed(word) for word in entropy[:4]]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = _mixed(pool[target], hashed(pool[source]))
    for word in entropy[4:]:
        for target in range(4):
            pool[target] = _mixed(pool[target], hashed(word))
    factor, halves = 0x8B51F9DD, list[Any]()
    for idx in range(8):
        word = pool[idx % 4] ^ factor
        factor = factor * 0x58F38DED & 0xFFFFFFFF
        halves.append(_folded(word * factor))
    return [halves[idx] | halves[idx + 1] << _HALF for idx in range(0, 8, 2)]


def _folded(word: Any) -> Any:  # noqa: ANN401 - as above
    word = word & 0xFFFFFFFF
    return word ^ word >> 16


def _mixed(one: Any, other: Any) -> Any:  # noqa: ANN401 - as above
    return _folded(0xCA01F9DD * one + (-0x4973F715 & 0xFFFFFFFF) * other)
