"""What a cluster costs and yields: simulated task sets on worker processes of this computer, beside the same without a cluster.

    python -m benchmarks.cluster [--sets 10000 100000] [--machines 1000] [--workers 8]

Prints, for each number of sets: sets per second, CPU time of the coordinator and of Dask's scheduler (which runs in the same
process) per set, and the coordinator's resident memory at each tenth. The data go to a monitor that only counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import distributed

from runner import simulated
from runner.admission.capacity import Reserves
from runner.cluster.agent import Setup
from runner.cluster.crew import Crew
from runner.cluster.pool import Equipment, pool
from runner.distributor import Distributor
from runner.events import Run, RunResult
from runner.machines.station import MachineKind
from runner.monitors.base import AbstractMonitor
from runner.tasksets.uunifast import UUniFastTaskSets

PAGE_BYTES = 4096


class Count(AbstractMonitor):
    """Counts, and takes the process's memory down at each tenth."""

    def __init__(self, n_sets: int) -> None:
        self.n = 0
        self.rss_mib: list[int] = []
        self._step = max(1, n_sets // 10)

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.n += 1
        if self.n % self._step == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.rss_mib.append(pages * PAGE_BYTES >> 20)


def kind_on_worker(image: Path | None) -> MachineKind:
    """What a worker's machines are."""
    return simulated()


def _setup(folder: Path, worker: str, capacity: int | None) -> Setup:
    return Setup(
        worker=worker,
        capacity=capacity or 1,
        make_kind=kind_on_worker,
        reserves=Reserves(),
        folder=folder,
    )


def measure(n_sets: int, n_machines: int, crew: Crew | None, folder: Path) -> tuple[float, float, list[int]]:
    """Seconds, CPU seconds of this process, and its memory in MiB at each tenth."""
    count = Count(n_sets)
    source = UUniFastTaskSets(
        n_tasks=2, utilizations=[0.7], sets_per_utilization=n_sets, periods=["10ms", "20ms"], hyperperiods=1.0
    )
    with Distributor(
        n_machines, machine_limit=n_machines, kind=simulated(), crew=crew, folder=folder
    ) as fleet:
        began_s, cpu_s = time.monotonic(), time.process_time()
        fleet.add_job(source, count)
        fleet.wait()
        took_s, used_s = time.monotonic() - began_s, time.process_time() - cpu_s
    assert count.n == n_sets
    return took_s, used_s, count.rss_mib


def report(what: str, n_sets: int, figures: tuple[float, float, list[int]]) -> None:
    """One line."""
    took_s, used_s, rss_mib = figures
    rate, cost_us = n_sets / took_s, used_s / n_sets * 1e6
    print(
        f"{what:16} {n_sets:8} sets  {rate:7.0f}/s  {cost_us:6.0f} us CPU here/set  RSS {rss_mib} MiB",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    args = parser.parse_args()
    each = -(-args.machines // args.workers)
    make = partial(
        distributed.LocalCluster,
        n_workers=args.workers,
        threads_per_worker=1,
        memory_limit=0,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": ":0"},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n_sets in args.sets:
            crew = Crew(per_computer=args.machines)
            equipment = Equipment(setup=partial(_setup, folder), guests_per_worker=each)
            with pool(make, crew, equipment, folder / "dask"):
                report("cluster", n_sets, measure(n_sets, args.machines, crew, folder))
            report("one computer", n_sets, measure(n_sets, min(7, args.machines), None, folder))


if __name__ == "__main__":
    main()
