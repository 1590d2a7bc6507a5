"""Golden experiment G4 with a share of its sets; the whole, with its own tolerances, is `python -m benchmarks.golden_g4`."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from benchmarks.golden_g4 import PARTS

#: Of the whole's 5,000.
N_SETS = 400
#: Standard errors of a share of 400 sets beside the tolerance; the worst of them, at one half, is .025.
N_SIGMAS = 3


def wider(name: str, expected: float) -> float:
    """How much more a part of the sets may be off than all of them.

    Means of breakdown utilizations, which spread by .05: .01. What is a theorem: nothing. Shares: three standard errors, and one set,
    because a share that is expected to be 0 is only rounded to it (the hyperbolic bound holds for 2 in 10^5 sets of U = .85).
    """
    if "mean breakdown" in name:
        return 0.01
    if "LL" in name:
        return 0.0
    return N_SIGMAS * sqrt(expected * (1 - expected) / N_SETS) + 1 / N_SETS


@pytest.mark.parametrize("part", PARTS, ids=["a", "b", "c", "d"])
def test_a_share_comes_out_as_expected(part):
    for name, expected, found, tolerance in part(np.random.default_rng(1), N_SETS):
        assert abs(found - expected) <= tolerance + wider(name, expected) + 1e-12, name
