"""The statistics that the plots show. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """Five quantiles and the largest of `n` values; whiskers at 1 % and 99 %."""

    n: int
    p01: float
    q1: float
    median: float
    q3: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, values: Numbers) -> Box:
        """Of at least one value."""
        quantiles = np.quantile(values, (0.01, 0.25, 0.5, 0.75, 0.99, 1.0))
        return cls(len(values), *map(float, quantiles))


def distribution(values: Numbers, max_points: int = 400) -> tuple[Numbers, Numbers]:
    """The empirical distribution function, as the points of a staircase: values, and the share that is not larger.

    More than `max_points` values become as many quantiles, the smallest and the largest value among them.
    """
    ordered = np.sort(values)
    if len(ordered) > max_points:
        places = np.unique(np.linspace(0, len(ordered) - 1, max_points).round().astype(np.int64))
        return ordered[places], (places + 1.0) / len(ordered)
    return ordered, np.arange(1.0, len(ordered) + 1) / len(ordered)


def busy_share(starts_s: Numbers, ends_s: Numbers, edges_s: Numbers) -> Numbers:
    """Which share of each interval between two `edges_s` is covered by spans of time that do not overlap each other."""
    if not len(starts_s):
        return np.zeros(len(edges_s) - 1)
    order = np.lexsort((ends_s, starts_s))
    starts_s, ends_s = starts_s[order], ends_s[order]
    covered = np.concatenate(([0.0], np.cumsum(ends_s - starts_s)))
    begun = np.searchsorted(starts_s, edges_s, side="right")
    # Covered up to each edge: all spans that have begun, less what the last of them has beyond it.
    beyond = np.where(begun > 0, np.maximum(0.0, ends_s[np.maximum(begun, 1) - 1] - edges_s), 0.0)
    share: Numbers = np.diff(covered[begun] - beyond) / np.diff(edges_s)
    return np.clip(share, 0.0, 1.0)
