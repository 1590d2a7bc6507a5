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
from runner.tasksets.stream import uniform_stream

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# As many sets as fit into a processor's cache.
_CHUNK_SETS = 8192
# Where C comes that near to another nanosecond, as a part of U·T and for each task, the set is made singly: NumPy's powers may differ from
# Python's in their last bits (4 units, NumPy says), and each share inherits what the ones before it were off by.
_MARGIN = 2.0**-48
# What of a key that is sorted says at which place a task stood.
_PLACE_BITS = 6
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# PCG64 (O'Neill 2014), as in NumPy, which keeps its raw stream for ever (NEP 19).
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
        """The same sets, the most urgent task of each first; tasks of equal periods stay in their order.

        Raises:
            UsageError: where a period is of two years or more.
        """
        n_sets, n_tasks = self.period_ns.shape
        bits = n_tasks.bit_length()
        require(
            not n_sets or not int(self.period_ns.max()) >> 63 - bits,
            "periods",
            "are too long to be sorted so",
            "sort them by numpy.argsort",
        )
        ordered = TaskSetArrays.empty(n_sets, n_tasks)
        costs_ns = self.wcet_ns.T.ravel()
        for first in range(0, n_sets, _CHUNK_SETS):
            chunk = slice(first, first + _CHUNK_SETS)
            # With its place in it each key is there once.
            keys = self.period_ns[chunk].T << bits
            keys |= np.arange(n_tasks)[:, np.newaxis]
            for low, high in _exchanges(n_tasks):
                larger = np.maximum(keys[low], keys[high])
                np.minimum(keys[low], keys[high], out=keys[low])
                keys[high] = larger
            np.right_shift(keys, bits, out=ordered.period_ns[chunk].T)
            keys &= (1 << bits) - 1
            keys *= n_sets
            keys += np.arange(first, first + keys.shape[1])
            ordered.wcet_ns[chunk].T[...] = costs_ns[keys]
        return ordered

    @classmethod
    def empty(cls, n_sets: int, n_tasks: int) -> TaskSetArrays:
        """Not yet filled; the numbers of one task of all sets lie side by side, because that is how all of them are worked on."""
        wcet_ns, period_ns = (np.empty((n_tasks, n_sets), np.int64).T for _ in range(2))
        return cls(wcet_ns, period_ns)


def _exchanges(n: int) -> list[tuple[int, int]]:
    """Which two of n places to compare and exchange, one after the other, to sort any content: Batcher's merge exchange (1968)."""
    found, top = [], 1 << max(0, (n - 1).bit_length() - 1)
    width = top
    while width:
        step, rest, distance = top, 0, width
        while distance:
            found += [(at, at + distance) for at in range(n - distance) if at & width == rest]
            step, rest, distance = step >> 1, width, step - width if step > width else 0
        width >>= 1
    return found


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
    made = TaskSetArrays.empty(n_sets, recipe.n_tasks)
    for start in range(0, n_sets, _CHUNK_SETS):
        chunk = slice(start, min(n_sets, start + _CHUNK_SETS))
        places = np.arange(first_idx + chunk.start, first_idx + chunk.stop, dtype=np.uint64)
        streams = _Streams(source.seed, point_idx, places)
        is_near = _draw(recipe, total, streams, made.wcet_ns[chunk].T, made.period_ns[chunk].T)
        for row in np.flatnonzero(is_near):
            stream = uniform_stream(source.seed, point_idx, int(places[row]))
            made.wcet_ns[start + row], made.period_ns[start + row] = recipe.draw_times(total, stream)
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


def _draw(recipe: Recipe, total: float, streams: _Streams, wcet_ns: Ints, period_ns: Ints) -> Bools:
    """Fill in C and T, tasks × sets; returns which sets have to be made singly."""
    n = recipe.n_tasks
    low, high = recipe.shares.bounds[0]
    # Where C will stand: memory that is not there twice stays in the processor's caches.
    shares = wcet_ns.view(np.float64)
    left: Any = total
    for idx in range(n - 1):
        rest = left * streams.uniform() ** (1.0 / (n - 1 - idx))
        np.subtract(left, rest, out=shares[idx])
        left = rest
    shares[n - 1] = left
    values_ns = np.array(recipe.periods.values_ns, dtype=np.float64)
    margin = _MARGIN * n * max(1.0, total)
    is_near = np.zeros(streams.n_sets, np.bool_)
    for idx, share in enumerate(shares):
        if n > 1:  # these are redrawn, or perhaps
            is_near |= share > high - margin
            if low:
                is_near |= share < low + margin
        times_ns = values_ns[(streams.uniform() * len(values_ns)).astype(np.int64)]
        exact_ns = share * times_ns
        whole_ns = np.floor(exact_ns)
        exact_ns -= whole_ns
        exact_ns -= 0.5
        np.abs(exact_ns, out=exact_ns)
        period_ns[idx] = times_ns
        wcet_ns[idx] = np.minimum(np.maximum(whole_ns, MIN_WCET_NS, out=whole_ns), times_ns, out=whole_ns)
        times_ns *= margin
        exact_ns += times_ns
        is_near |= exact_ns >= 0.5
    return is_near


class _Streams:
    """The streams of many sets of one point, each as `uniform_stream` yields it, all one number at a time.

    Works in place: what NumPy would put into new arrays leaves the processor's caches.
    """

    def __init__(self, seed: int, point_idx: int, places: Words) -> None:
        self.n_sets = len(places)
        self._spare = [np.empty(self.n_sets, np.uint64) for _ in range(4)]
        state = _seeded(seed, point_idx, places)
        one = np.uint64(1)
        self._added = ((state[2] << one) | (state[3] >> np.uint64(63)), (state[3] << one) | one)
        self._high, self._low = state[0], state[1]
        self._add()
        self._step()

    def _add(self) -> None:
        high, low = self._added
        self._low += low
        self._high += high
        self._high += self._low < low

    def _step(self) -> None:
        """state ← state · multiplier + increment, modulo 2^128."""
        upper, lower, product, carry = self._spare
        self._high *= _FACTOR_LOW
        np.multiply(self._low, _FACTOR_HIGH, out=product)
        self._high += product
        # The upper half of low · factor, from four products of half words.
        np.bitwise_and(self._low, _LOW, out=lower)
        np.right_shift(self._low, _HALF, out=upper)
        self._low *= _FACTOR_LOW
        np.multiply(lower, _FACTOR_LOW & _LOW, out=carry)
        carry >>= _HALF
        np.multiply(upper, _FACTOR_LOW & _LOW, out=product)
        carry += product
        lower *= _FACTOR_LOW >> _HALF
        np.bitwise_and(carry, _LOW, out=product)
        lower += product
        lower >>= _HALF
        upper *= _FACTOR_LOW >> _HALF
        upper += lower
        carry >>= _HALF
        upper += carry
        self._high += upper
        self._add()

    def uniform(self) -> NDArray[np.float64]:
        """The next number in [0, 1) of each."""
        self._step()
        word, turn, turned, _ = self._spare
        np.bitwise_xor(self._high, self._low, out=word)
        np.right_shift(self._high, np.uint64(58), out=turn)
        np.right_shift(word, turn, out=turned)
        np.subtract(np.uint64(64), turn, out=turn)
        turn &= np.uint64(63)
        word <<= turn
        turned |= word
        turned >>= np.uint64(11)
        numbers = turned.view(np.int64).astype(np.float64)
        numbers *= 2.0**-53
        return numbers


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
