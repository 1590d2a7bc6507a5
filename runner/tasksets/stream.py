"""Random numbers of a task set's own, so that any one set can be made again alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Uniform = Callable[[], float]


def uniform_stream(seed: int, *place: int) -> Uniform:
    """Numbers in [0, 1) of the stream that seed and place name; each place has a stream of its own.

    NumPy keeps the raw streams of its seed sequences and bit generators for ever, but not what `Generator` makes of them (NEP 19): so
    the 53 bits are taken here.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place))
    return lambda: (int(bits.random_raw()) >> 11) * 2.0**-53


def between(low: float, high: float, uniform: Uniform) -> float:
    """A number between the two, uniformly; takes none from the stream where they are equal."""
    return low if low == high else low + (high - low) * uniform()


def one_of(n: int, uniform: Uniform) -> int:
    """An index below n, uniformly."""
    return int(uniform() * n)
