"""The statistics of a report, against published numbers and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.confidence import wilson
from runner.report.statistics import Box, busy_share, distribution


@pytest.mark.parametrize(("n", "half_width"), [(100, 0.096), (500, 0.044), (1000, 0.031), (10_000, 0.010)])
def test_the_interval_has_the_known_width(n: int, half_width: float) -> None:
    low, high = wilson(n // 2, n)
    assert (high - low) / 2 == pytest.approx(half_width, abs=5e-4)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_a_share(counts: tuple[int, int]) -> None:
    n_hits, n = counts
    low, high = wilson(n_hits, n)
    assert 0.0 <= low <= n_hits / n <= high <= 1.0
    assert low < high
    # From the other side it is the same.
    other_low, other_high = wilson(n - n_hits, n)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high))


@pytest.mark.parametrize("counts", [(0, 0), (2, 1), (-1, 3)])
def test_what_is_no_share_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(*counts)


values = st.lists(st.floats(0, 1e9), min_size=1, max_size=300).map(np.array)


@given(values, st.integers(2, 50))
def test_a_distribution_is_one(numbers: np.ndarray, max_points: int) -> None:
    xs, shares = distribution(numbers, max_points)
    assert len(xs) == len(shares) <= max(max_points, min(len(numbers), max_points))
    assert xs[0] == numbers.min()
    assert (xs[-1], shares[-1]) == (numbers.max(), 1.0)
    for x, share in zip(xs, shares, strict=True):
        # Among equal values any of their steps may be told.
        assert (numbers < x).mean() < share <= (numbers <= x).mean() + 1e-12


@given(values)
def test_a_box_is_in_order(numbers: np.ndarray) -> None:
    box = Box.of(numbers)
    assert box.n == len(numbers)
    quantiles = [box.p01, box.q1, box.median, box.q3, box.p99, box.maximum]
    assert quantiles == pytest.approx(sorted(quantiles))
    assert box.maximum == numbers.max()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.integers(1, 20))
def test_the_busy_share_is_what_counting_gives(gaps: list[tuple[int, int]], n_bins: int) -> None:
    now, spans = 0, []
    for idle, busy in gaps:
        spans.append((now + idle, now + idle + busy))
        now += idle + busy
    # Each unit of time is cut into as many parts as there are bins, so that all edges are multiples of a part.
    end = now + 1
    edges = np.linspace(0, end, n_bins + 1)
    starts, ends = (np.array([span[side] for span in spans], dtype=float) for side in (0, 1))
    covered = [
        sum(max(0.0, min(end_s, high) - max(start_s, low)) for start_s, end_s in spans) / (high - low)
        for low, high in itertools.pairwise(edges)
    ]
    assert busy_share(starts, ends, edges) == pytest.approx(np.array(covered), abs=1e-9)
