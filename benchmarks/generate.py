"""How fast task sets are made: this package's generators against those of SimSo, in one run, on sets of ten tasks.

Both draw utilizations by UUniFast-Discard and periods from a list, and multiply them to C. Rounds alternate, so that what else the
computer does is shared; CPU time is counted, with and without that of compiling. `pip install simso` first.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from itertools import islice

from benchmarks.compiling import first_call
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading
from runner.errors import HostError
from runner.tasksets import RandomTaskSets, UUniFastTaskSets
from runner.tasksets.bulk import make_many

N_TASKS = 10
UTILIZATION = 0.8
PERIODS_MS = (20, 25, 30, 40, 50, 60, 75, 100, 150, 200)
SEED = 1


def source(n_sets: int) -> UUniFastTaskSets:
    """The sets that are made."""
    return UUniFastTaskSets(
        n_tasks=N_TASKS,
        utilizations=[UTILIZATION],
        sets_per_utilization=n_sets,
        periods=[f"{period}ms" for period in PERIODS_MS],
        seed=SEED,
    )


def simso_sets(n_sets: int) -> list[list[tuple[float, float]]]:
    """C and T in ms of such sets by SimSo.

    Its `gen_uunifastdiscard` hands its arguments on in the wrong order, so what it calls is called.
    """
    try:
        from simso.generator import task_generator  # late import: a peer, not a part
    except ImportError as exc:
        raise HostError("SimSo is not installed", next_step="pip install simso") from exc
    utilizations = task_generator.UUniFastDiscard(N_TASKS, UTILIZATION, n_sets)
    periods = task_generator.gen_periods_discrete(N_TASKS, n_sets, list(PERIODS_MS))
    made: list[list[tuple[float, float]]] = task_generator.gen_tasksets(utilizations, periods)
    return made


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of it."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def call_once() -> None:
    """Whatever is compiled has run after it."""
    make_many(source(1), 0, 0, 1).rate_monotonic()


def memory_growth_mib(n_variants: int, n_before: int) -> float:
    """By how much the process's peak grows while that many variants of a grid go by, after the first few."""
    grid = RandomTaskSets(
        n_tasks=[2, 3],
        utilizations=[0.5, 0.9],
        sets_per_utilization=n_variants,
        periods=[f"{period}ms" for period in PERIODS_MS],
        policy=["fifo", "rr"],
        seed=SEED,
    )
    stream = grid.variants()
    for _ in islice(stream, n_before):
        pass
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in islice(stream, n_variants - n_before):
        pass
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000, help="sets per round (100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--variants", type=int, default=0, help="also count memory over that many variants, like 1000000"
    )
    asked = parser.parse_args()
    print_heading(f"{asked.sets} task sets of {N_TASKS} tasks, {asked.rounds} rounds")
    # First of all, for what is told is the peak.
    if asked.variants:
        growth_mib = memory_growth_mib(asked.variants, min(10_000, asked.variants))
        print(
            f"{asked.variants} variants of a grid: memory grew by {growth_mib:.1f} MiB after the first 10000"
        )
    made_by = source(asked.sets)
    n_single = max(1, asked.sets // 50)
    call_once()
    bulk, single = [], []
    for _ in range(asked.rounds):
        peer_s = cpu_s(lambda: simso_sets(asked.sets))
        many_s = cpu_s(lambda: make_many(made_by, 0, 0, asked.sets))
        one_s = cpu_s(lambda: [made_by.make(0, idx) for idx in range(n_single)]) * asked.sets / n_single
        print(
            f"µs a set: SimSo {peer_s / asked.sets * 1e6:.2f}, as arrays {many_s / asked.sets * 1e6:.2f},"
            f" as task sets {one_s / asked.sets * 1e6:.0f}"
        )
        bulk.append(peer_s / many_s)
        single.append(peer_s / one_s)
    print(
        f"task sets, each an object that checks itself: {statistics.median(single):.3f} times as fast as SimSo's lists"
    )
    print(f"arrays: {first_call('generate').told(many_s, peer_s, asked.sets)}")
    goal = Goal("arrays against SimSo's lists, times as fast", statistics.median(bulk), 50, at_least=True)
    return 0 if print_goals([goal]) else 1


if __name__ == "__main__":
    run_program(main)
