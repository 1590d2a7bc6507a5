"""Golden experiment G4, (a) to (d): acceptance curves and breakdown utilization, expected beside found.

`python -m benchmarks.golden_g4 [--sets N]`: exits with 1 if a number is outside its tolerance.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from runner.analysis.arrays import TaskArrays, hyperbolic_of, liu_layland_of, schedulable_by_rank
from runner.analysis.demand import quick_demand

Floats = NDArray[np.float64]
Line = tuple[str, float, float, float]
_TICKS = 1_000_000
_BISECTIONS = 14


def arrays(shares: Floats, periods: Floats, deadlines: Floats | None = None) -> TaskArrays:
    """Sets in the order of their deadlines, C rounded down to whole ticks of 10^-6."""
    period = np.round(periods * _TICKS).astype(np.int64)
    wcet = np.maximum((shares * period).astype(np.int64), 1)
    due = period if deadlines is None else np.maximum(np.round(deadlines * _TICKS).astype(np.int64), wcet)
    order = np.argsort(due, axis=1, kind="stable")
    return TaskArrays(*(np.take_along_axis(one, order, axis=1) for one in (wcet, period, due)))


def breakdown(shares: Floats, periods: Floats) -> Floats:
    """Per set, the largest utilization with the same proportions that rate-monotonic priorities schedule."""
    total = shares.sum(axis=1)
    low, high = np.zeros(len(total)), np.ones(len(total))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        passed = schedulable_by_rank(arrays(shares * (middle / total)[:, None], periods))
        low, high = np.where(passed, middle, low), np.where(passed, high, middle)
    return low


def uunifast(rng: np.random.Generator, n_sets: int, n_tasks: int, total: float) -> Floats:
    """Shares uniform over the simplex: what UUniFast draws."""
    return rng.dirichlet(np.ones(n_tasks), n_sets) * total


def log_uniform(rng: np.random.Generator, n_sets: int, n_tasks: int, least: float, most: float) -> Floats:
    """Periods."""
    return np.exp(rng.uniform(math.log(least), math.log(most), (n_sets, n_tasks)))


def lehoczky(rng: np.random.Generator, n_sets: int) -> Iterator[Line]:
    """(a) C drawn independently of T ~ U[1, 100]: mean breakdown utilization."""
    for n_tasks, expected in ((10, 0.909), (20, 0.904), (50, 0.898), (100, 0.897)):
        periods = rng.uniform(1, 100, (n_sets, n_tasks))
        found = breakdown(rng.uniform(0, 1, (n_sets, n_tasks)) / periods, periods)
        yield f"a: mean breakdown, n = {n_tasks}", expected, float(found.mean()), 0.005
    periods = rng.uniform(1, 10, (n_sets, 100))
    found = breakdown(rng.uniform(0, 1, (n_sets, 100)) / periods, periods)
    yield "a: mean breakdown, n = 100, B = 10", 0.832, float(found.mean()), 0.005


def curves(rng: np.random.Generator, n_sets: int) -> Iterator[Line]:
    """(b) UUniFast, n = 10, log-uniform periods, D = T."""
    for most, expected in ((1000, (1.0, 0.989, 0.882, 0.422, 0.0)), (100, (0.993, 0.856, 0.397, 0.022, 0.0))):
        for total, ratio in zip((0.8, 0.85, 0.9, 0.95, 1.0), expected, strict=True):
            sets = arrays(uunifast(rng, n_sets, 10, total), log_uniform(rng, n_sets, 10, 10, most))
            yield f"b: RM, T to {most}, U = {total:g}", ratio, float(schedulable_by_rank(sets).mean()), 0.015
    for total, expected_hb, width in ((0.75, 0.13, 0.03), (0.85, 0.0, 0.0)):
        sets = arrays(uunifast(rng, n_sets, 10, total), log_uniform(rng, n_sets, 10, 10, 1000))
        yield f"b: HB, U = {total:g}", expected_hb, float(hyperbolic_of(sets).mean()), width
    for total, expected_ll in ((0.717, 1.0), (0.718, 0.0)):
        sets = arrays(uunifast(rng, n_sets, 10, total), log_uniform(rng, n_sets, 10, 10, 1000))
        yield f"b: LL, U = {total:g}", expected_ll, float(liu_layland_of(sets).mean()), 0.0


def constrained(rng: np.random.Generator, n_sets: int) -> Iterator[Line]:
    """(c) D = C + U(.5, 1)(T - C), n = 10."""
    for total, dm, edf in (
        (0.75, 0.996, 1.0),
        (0.85, 0.840, 0.997),
        (0.9, 0.510, 0.961),
        (0.95, 0.095, 0.802),
    ):
        shares, periods = uunifast(rng, n_sets, 10, total), log_uniform(rng, n_sets, 10, 10, 1000)
        deadlines = periods * (shares + rng.uniform(0.5, 1, periods.shape) * (1 - shares))
        sets = arrays(shares, periods, deadlines)
        yield f"c: DM, U = {total:g}", dm, float(schedulable_by_rank(sets).mean()), 0.04
        n_looked = min(n_sets, 1000)
        passed = sum(quick_demand(sets.row(idx)).feasible is True for idx in range(n_looked))
        yield f"c: EDF, U = {total:g}", edf, passed / n_looked, 0.04


def identities(rng: np.random.Generator, n_sets: int) -> Iterator[Line]:
    """(d) Acceptance at U is the share of sets whose breakdown is not below it; each test implies the next."""
    shares, periods = uunifast(rng, n_sets, 10, 1.0), log_uniform(rng, n_sets, 10, 10, 1000)
    found = breakdown(shares, periods)
    points = np.linspace(0.0, 1.0, 101)
    accepted = [float(schedulable_by_rank(arrays(shares * max(u, 1e-6), periods)).mean()) for u in points]
    for total in (0.85, 0.9, 0.95):
        yield (
            f"d: P(breakdown >= {total:g})",
            accepted[round(total * 100)],
            float((found >= total).mean()),
            0.005,
        )
    yield "d: mean breakdown", float(np.trapezoid(accepted, points)), float(found.mean()), 0.005
    broken = 0
    for total in (0.65, 0.72, 0.78, 0.9):
        sets = arrays(shares * total, periods)
        ll, hb, rta = liu_layland_of(sets), hyperbolic_of(sets), schedulable_by_rank(sets)
        edf = (sets.wcet / sets.period).sum(axis=1) <= 1.0
        broken += int(((ll & ~hb) | (hb & ~rta) | (rta & ~edf)).sum())
    yield "d: sets that break LL => HB => RTA => EDF", 0.0, float(broken), 0.0


PARTS: tuple[Callable[[np.random.Generator, int], Iterator[Line]], ...] = (
    lehoczky,
    curves,
    constrained,
    identities,
)


def main() -> int:
    """Print every number; 1 where one is outside its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sets", type=int, default=5000, help="sets per point (default: 5000, what the tolerances are for)"
    )
    options = parser.parse_args()
    rng, n_wrong = np.random.default_rng(1), 0
    for part in PARTS:
        for name, expected, found, tolerance in part(rng, options.sets):
            right = abs(found - expected) <= tolerance + 1e-12
            n_wrong += not right
            print(
                f"{name:45} expected {expected:.3f} ± {tolerance:g}  found {found:.4f}{'' if right else '  WRONG'}",
                flush=True,
            )
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
