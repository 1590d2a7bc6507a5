"""Exact response-time analysis of many sets at once against a plain Python loop: `python -m benchmarks.analyse`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from runner.analysis.arrays import NONE, TaskArrays, response_times, schedulable_by_rank

_PEER_SETS = 2_000


def plain_responses(costs: list[int], periods: list[int]) -> list[int]:
    """The textbook's loop: the response of each task, `NONE` beyond the period."""
    found = []
    for idx, cost in enumerate(costs):
        window = cost
        while True:
            demand = cost + sum(-(-window // periods[j]) * costs[j] for j in range(idx))
            if demand == window or demand > periods[idx]:
                break
            window = demand
        found.append(demand if demand <= periods[idx] else NONE)
    return found


def plain_verdict(costs: list[int], periods: list[int]) -> bool:
    """The same, until the first task that is late."""
    for idx, cost in enumerate(costs):
        window = cost
        while True:
            demand = cost + sum(-(-window // periods[j]) * costs[j] for j in range(idx))
            if demand > periods[idx]:
                return False
            if demand == window:
                break
            window = demand
    return True


def sample(n_sets: int, n_tasks: int, seed: int = 1) -> TaskArrays:
    """Uniform shares of .6 ≤ U ≤ 1, periods log-uniform in 10 ms … 1 s, in rate-monotonic order."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(n_tasks), n_sets) * rng.uniform(0.6, 1.0, (n_sets, 1))
    periods = np.sort(
        np.exp(rng.uniform(np.log(10e6), np.log(1e9), (n_sets, n_tasks))).astype(np.int64), axis=1
    )
    return TaskArrays(np.maximum((shares * periods).astype(np.int64), 1), periods, periods)


def _all(
    peer: Callable[[list[int], list[int]], object], rows: list[tuple[list[int], list[int]]]
) -> list[object]:
    return [peer(*row) for row in rows]


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What came of it, and the seconds of CPU time that it took."""
    began_s = time.process_time()
    found = work()
    return found, time.process_time() - began_s


def main() -> None:
    """Print both ratios; the plain loop does a sample of the sets, the verdicts of which are compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000)
    options = parser.parse_args()
    sets = sample(options.sets, 10)
    n_peer = min(_PEER_SETS, options.sets)
    rows = list(zip(sets.wcet[:n_peer].tolist(), sets.period[:n_peer].tolist(), strict=True))
    for name, ours, peer in (
        ("verdicts", lambda: schedulable_by_rank(sets), plain_verdict),
        ("response times", lambda: response_times(sets, only_in_time=True), plain_responses),
    ):
        found, ours_s = timed(ours)
        expected, peer_s = timed(partial(_all, peer, rows))
        assert np.array_equal(np.asarray(found)[:n_peer], np.asarray(expected)), name
        ours_us, peer_us = ours_s / options.sets * 1e6, peer_s / n_peer * 1e6
        print(
            f"{name}: {ours_us:.2f} us a set, plain loop {peer_us:.1f} us: {peer_us / ours_us:.1f} times faster"
        )


if __name__ == "__main__":
    main()
