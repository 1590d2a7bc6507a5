"""Whether a measurement is a function of its task set: `python -m benchmarks.exactness`.

Different task sets are measured again and again, under conditions that differ in everything that must not matter: on a host with
nothing else of ours to do; with every CPU kept busy; by twice as many machines as there are CPUs; from a snapshot that was booted
anew; and by guests that boot cold for each set. Each set must have one job table over all of them.
Exit code 1 if one has two, or if a measurement is missing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.batch import run_batch
from benchmarks.load import busy_processes
from benchmarks.program import run_program
from benchmarks.report import print_heading
from benchmarks.samples import assorted
from runner.machines.kinds import qemu_by_mailbox
from runner.model import TaskSet
from runner.monitors.progress import ProgressMonitor
from runner.qemu.image import GuestImage
from runner.specs import QemuSpec, Reset

_LOADED_AT_MOST_S = 3600.0


@dataclass(frozen=True)
class Condition:
    """Under which sets are measured.

    Attributes:
        name: For people.
        machines: How many at a time.
        share: The part of all repetitions that falls to it; 0: one repetition, whatever the number.
        surroundings: What else is made to be so meanwhile.
        snapshot: Whether guests start from one, or boot cold.
    """

    name: str
    machines: int
    share: float
    surroundings: Callable[[], AbstractContextManager[None]] = nullcontext
    snapshot: bool = True


@contextmanager
def image_booted_anew() -> Iterator[None]:
    """An empty cache for the time of the block: snapshots are made anew, and the user's stay as they are."""
    before = os.environ.get("RTFLEET_CACHE")
    with tempfile.TemporaryDirectory(prefix="rtfleet-cache-") as folder:
        os.environ["RTFLEET_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["RTFLEET_CACHE"]
            else:
                os.environ["RTFLEET_CACHE"] = before


def conditions() -> Sequence[Condition]:
    """All of them; the shares sum to 1."""
    n_cpus = os.cpu_count() or 1
    return (
        Condition("idle host", 1, 0.3),
        Condition(
            f"{n_cpus} CPUs loaded",
            1,
            0.25,
            lambda: busy_processes(n_cpus, at_most_s=_LOADED_AT_MOST_S),
        ),
        Condition(f"{2 * n_cpus} machines on {n_cpus} CPUs", 2 * n_cpus, 0.25),
        Condition("image booted anew", n_cpus, 0.2, image_booted_anew),
        Condition("each set booted cold", n_cpus, 0, snapshot=False),
    )


def repetitions(all_conditions: Sequence[Condition], total: int) -> list[int]:
    """How many fall to each condition, at least one: `total` in all where that goes."""
    single = sum(condition.share == 0 for condition in all_conditions)
    counts = [max(1, round(condition.share * (total - single))) for condition in all_conditions]
    # Rounding is made good where there is most.
    counts[0] = max(1, counts[0] + total - sum(counts))
    return counts


def tables(
    condition: Condition, image: Path, tasksets: Sequence[TaskSet], n_times: int
) -> dict[str, list[str]]:
    """The digests of each set's job tables.

    All sets once, then all again: so neighbours, machines and what else goes on differ from one time to the next. Queue
    (`repeat`) and data set compare tables as well, but give up a set at the second one, and this is to count them.
    """
    spec = QemuSpec(image=image, snapshot=condition.snapshot)
    kind = qemu_by_mailbox(spec, reset=Reset.TASKSET)
    with condition.surroundings():
        batch = run_batch(
            [*tasksets] * n_times, kind, machines=condition.machines, monitors=[ProgressMonitor()]
        )
    found = defaultdict(list)
    for run, result in batch.results:
        found[run.taskset.taskset_id].append(result.table_sha256 or "no valid outcome")
    return found


def print_strays(tasksets: Sequence[TaskSet], found: dict[str, Counter[tuple[str, str]]]) -> int:
    """Every set that has more than one table, with where each was seen; how many there are."""
    n_strays = 0
    for taskset in tasksets:
        seen = found[taskset.taskset_id]
        if len({table for _, table in seen}) == 1:
            continue
        n_strays += 1
        print(f"{taskset.name} [{taskset.taskset_id}], {len(taskset.tasks)} tasks:")
        for (condition, table), n_times in seen.items():
            print(f"    {table[:16]} {n_times} times: {condition}")
    return n_strays


def main() -> int:
    """Print the tables; 0 if every set has one job table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__)
    parser.add_argument("--sets", type=int, default=100, metavar="N", help="task sets (default: 100)")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="times each (default: 20)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the task sets (default: 1)")
    parser.add_argument("--quick", action="store_true", help="10 sets, 5 times each: once per condition")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.repeat = 10, 5
    tasksets = assorted(options.sets, seed=options.seed)
    counts = repetitions(conditions(), options.repeat)
    image = GuestImage.current(QemuSpec().arch).folder  # one for all, whatever is built meanwhile

    print_heading(f"{len(tasksets)} task sets, {sum(counts)} measurements of each")
    print(
        f"{'condition':26} {'machines':>9} {'measured':>9} {'of':>6} {'s':>8} {'tables per set, most':>21}",
        flush=True,
    )
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    n_measured = 0
    for condition, n_times in zip(conditions(), counts, strict=True):
        began_s = time.monotonic()
        by_set = tables(condition, image, tasksets, n_times)
        elapsed_s = time.monotonic() - began_s
        for taskset_id, digests in by_set.items():
            found[taskset_id].update((condition.name, digest) for digest in digests)
        here = sum(len(digests) for digests in by_set.values())
        most = max(len(set(digests)) for digests in by_set.values())
        n_measured += here
        print(
            f"{condition.name:26} {condition.machines:9} {here:9} {n_times * len(tasksets):6} {elapsed_s:8.1f} {most:21}",
            flush=True,
        )
    n_strays = print_strays(tasksets, found)
    missing = sum(counts) * len(tasksets) - n_measured
    print(
        f"task sets with one job table over all conditions: {len(tasksets) - n_strays} of {len(tasksets)}; "
        f"measurements missing: {missing}"
    )
    return 0 if n_strays == missing == 0 else 1


if __name__ == "__main__":
    run_program(main)
