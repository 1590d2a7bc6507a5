"""How sure a share is that so many of so many have shown. Pure."""

from __future__ import annotations

import math

# Two-sided 95 %.
_Z_95 = 1.959963984540054


def wilson(n_hits: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927): within 0 … 1, also for shares of 0 and 1.

    Raises:
        ValueError: when there is nothing to take a share of.
    """
    if not 0 <= n_hits <= n or n == 0:
        raise ValueError(f"{n_hits} of {n} is no share")
    share, square = n_hits / n, _Z_95**2 / n
    middle = (share + square / 2) / (1 + square)
    half = _Z_95 / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    # Rounding alone would leave 1e-17 beside the ends.
    return (0.0 if n_hits == 0 else middle - half), (1.0 if n_hits == n else middle + half)
