"""Exact response-time analysis, and QPA, of many sets at once against plain Python loops: `python -m benchmarks.analyse`.

Then sets that are generated and analysed, against SimSo's generators and that loop (`pip install simso`); and, with `--simulated`, what the
analyses beside each set cost a run of simulated sets. CPU time, with and without that of compiling.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.batch import run_batch
from benchmarks.compiling import first_call
from benchmarks.generate import simso_sets, source
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals
from runner.analysis.arrays import NONE, TaskArrays, response_times, schedulable_by_rank
from runner.analysis.demand_arrays import feasible_under_edf
from runner.machines.kinds import simulated
from runner.monitors.sqlite import SQLiteMonitor
from runner.tasksets.bulk import make_many
from runner.units import NS_PER_MS

T = TypeVar("T")

_PEER_SETS = 2_000
_BLOCK_SETS = 1 << 13
_GOAL = 50
# Half of its steps begin with a division, which is nearly as slow compiled.
_EDF_GOAL = 40
_ROUNDS = 5


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


def plain_edf(costs: list[int], periods: list[int], deadlines: list[int]) -> bool:
    """The textbook's QPA, for U < 1: t ← h(t), or the last deadline before t, from the busy period's end backwards."""
    rows = list(zip(costs, periods, deadlines, strict=True))
    window = sum(costs)
    while (demand := sum(-(-window // period) * cost for cost, period, _ in rows)) != window:
        window = demand
    first = min(deadlines)
    instant = window + 1
    demand = instant
    while demand > first:
        instant = (
            demand
            if demand < instant
            else max(due + (instant - 1 - due) // period * period for _, period, due in rows if due < instant)
        )
        demand = sum(((instant - due) // period + 1) * cost for cost, period, due in rows if due <= instant)
        if demand > instant:
            return False
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


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What came of it, and the seconds of CPU time that it took."""
    began_s = time.process_time()
    found = work()
    return found, time.process_time() - began_s


def print_edf(sets: TaskArrays) -> Goal:
    """Verdicts under EDF of the same sets, deadlines between half of the period's slack and all of it; those near U = 1 left out."""
    chosen = (sets.wcet / sets.period).sum(axis=1) < 0.99
    wcet, period = sets.wcet[chosen], sets.period[chosen]
    part = np.random.default_rng(2).uniform(0.5, 1.0, wcet.shape)
    constrained = TaskArrays(wcet, period, wcet + (part * (period - wcet)).astype(np.int64))
    n_sets, n_peer = len(wcet), min(_PEER_SETS, len(wcet))
    rows = list(zip(*(one[:n_peer].tolist() for one in (wcet, period, constrained.deadline)), strict=True))
    ratios = []
    for _ in range(_ROUNDS):
        found, ours_s = timed(partial(feasible_under_edf, constrained))
        expected, peer_s = timed(lambda: [plain_edf(*row) for row in rows])
        assert found[:n_peer].tolist() == expected
        ours_us, peer_us = ours_s / n_sets * 1e6, peer_s / n_peer * 1e6
        print(f"verdicts under EDF: {ours_us:.2f} us a set, plain loop {peer_us:.1f} us")
        ratios.append(peer_us / ours_us)
    return Goal("verdicts under EDF, times as fast", statistics.median(ratios), _EDF_GOAL, at_least=True)


def made_and_decided(n_sets: int) -> int:
    """How many of the sets of `benchmarks.generate` are schedulable; a block at a time, so memory does not grow with their number."""
    made_by, found = source(n_sets), 0
    for first in range(0, n_sets, _BLOCK_SETS):
        many = make_many(made_by, 0, first, min(_BLOCK_SETS, n_sets - first)).rate_monotonic()
        found += int(schedulable_by_rank(TaskArrays(many.wcet_ns, many.period_ns, many.period_ns)).sum())
    return found


def made_and_decided_by_peers(n_sets: int) -> int:
    """The same with SimSo's generators, Python's sort, and the plain loop."""
    found = 0
    for tasks in simso_sets(n_sets):
        rows = sorted((round(period * NS_PER_MS), int(cost * NS_PER_MS)) for cost, period in tasks)
        found += plain_verdict([cost for _, cost in rows], [period for period, _ in rows])
    return found


def call_once() -> None:
    """Whatever is compiled has run after it."""
    made_and_decided(1)
    sets = TaskArrays(np.array([[1, 1]]), np.array([[4, 5]]), np.array([[3, 5]]))
    response_times(sets)
    feasible_under_edf(sets)


def print_together(n_sets: int) -> Goal:
    """Generation, order and verdicts in one figure; rounds alternate, the peers do a part of the sets."""
    n_peer = max(1, n_sets // 10)
    ratios = []
    for _ in range(_ROUNDS):
        peer, peer_s = timed(partial(made_and_decided_by_peers, n_peer))
        ours, ours_s = timed(partial(made_and_decided, n_sets))
        ours_us, peer_us = ours_s / n_sets * 1e6, peer_s / n_peer * 1e6
        ratios.append(peer_us / ours_us)
        print(
            f"generated and decided: {ours_us:.2f} us a set ({ours / n_sets:.1%} schedulable),"
            f" SimSo and plain loop {peer_us:.1f} us ({peer / n_peer:.1%})"
        )
    print(f"all of these: {first_call('analyse').told(ours_s, peer_s * n_sets / n_peer, n_sets)}")
    return Goal("generated and decided, times as fast", statistics.median(ratios), _GOAL, at_least=True)


def print_beside_simulated(n_sets: int, rounds: int = 5) -> None:
    """Simulated sets per second of CPU time with analyses and without; rounds alternate."""
    tasksets = [source(n_sets).make(0, idx) for idx in range(n_sets)]
    sets_per_s: dict[str, list[float]] = {"none": [], "cheap": []}
    for _ in range(rounds):
        for analyses, rates in sets_per_s.items():
            with tempfile.TemporaryDirectory(prefix="rtfleet-benchmark-") as folder:
                monitor = SQLiteMonitor(Path(folder) / "results.sqlite", analyses=analyses)
                _, cpu_s = timed(partial(run_batch, tasksets, simulated(), monitors=[monitor]))
            rates.append(n_sets / cpu_s)
    none, cheap = (statistics.median(rates) for rates in sets_per_s.values())
    print(
        f"simulated sets per second of CPU time: {none:.0f} without analyses, {cheap:.0f} with: {cheap / none:.2f}"
    )


def rows_of(sets: TaskArrays, n_sets: int) -> list[tuple[list[int], list[int]]]:
    """The first sets, as lists of C and T."""
    return list(zip(sets.wcet[:n_sets].tolist(), sets.period[:n_sets].tolist(), strict=True))


def main() -> int:
    """Print the ratios; the plain loop does a sample of the sets, the verdicts of which are compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000)
    parser.add_argument(
        "--simulated", type=int, default=0, help="also run that many simulated sets, like 1000"
    )
    options = parser.parse_args()
    sets = sample(options.sets, 10)
    n_peer = min(_PEER_SETS, options.sets)
    call_once()
    rows = rows_of(sets, n_peer)
    goals = [print_edf(sets)]
    for name, ours, peer in (
        ("verdicts", partial(schedulable_by_rank, sets), plain_verdict),
        ("response times", partial(response_times, sets, only_in_time=True), plain_responses),
    ):
        ratios = []
        for _ in range(_ROUNDS):
            found, ours_s = timed(ours)
            expected, peer_s = timed(partial(_all, peer, rows))
            assert np.array_equal(np.asarray(found)[:n_peer], np.asarray(expected)), name
            ours_us, peer_us = ours_s / options.sets * 1e6, peer_s / n_peer * 1e6
            print(f"{name}: {ours_us:.2f} us a set, plain loop {peer_us:.1f} us")
            ratios.append(peer_us / ours_us)
        goals.append(Goal(f"{name}, times as fast", statistics.median(ratios), _GOAL, at_least=True))
    goals.append(print_together(options.sets))
    if options.simulated:
        print_beside_simulated(options.simulated)
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
