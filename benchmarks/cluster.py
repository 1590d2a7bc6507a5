"""What a cluster costs and yields: simulated task sets on worker processes of this computer, beside the same without a cluster.

    python -m benchmarks.cluster [--sets 10000 100000] [--machines 1000] [--workers 8]

Prints, for each number of sets: sets per second, CPU time of the coordinator and of Dask's scheduler (which runs in the same
process) per set, and that cost and the coordinator's resident memory of each tenth. The data go to a monitor that only counts. Without a
cluster the process that coordinates measures, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
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
    """Counts, and takes down the process's memory and CPU time at each tenth."""

    def __init__(self, n_sets: int) -> None:
        self.n = 0
        self.rss_mib: list[int] = []
        self.cost_us: list[int] = []
        self._step = max(1, n_sets // 10)
        self._used_s = time.process_time()

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.n += 1
        if self.n % self._step == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.rss_mib.append(pages * PAGE_BYTES >> 20)
            before_s, self._used_s = self._used_s, time.process_time()
            self.cost_us.append(round((self._used_s - before_s) / self._step * 1e6))


@dataclass(frozen=True)
class Figures:
    """Of one run."""

    n_sets: int
    took_s: float
    used_s: float
    count: Count

    def line(self, what: str) -> str:
        """For people."""
        rate, cost_us = self.n_sets / self.took_s, self.used_s / self.n_sets * 1e6
        return (
            f"{what:12} {self.n_sets:8} sets  {rate:6.0f}/s  {cost_us:5.0f} us CPU here/set, by tenths {self.count.cost_us}"
            f"  RSS {self.count.rss_mib} MiB"
        )


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


def measure(n_sets: int, n_machines: int, crew: Crew | None, folder: Path) -> Figures:
    """Have so many sets simulated."""
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
    return Figures(n_sets, took_s, used_s, count)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cluster-only", action="store_true", help="do not measure without one")
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
                print(measure(n_sets, args.machines, crew, folder).line("cluster"), flush=True)
            if not args.cluster_only:
                print(measure(n_sets, min(7, args.machines), None, folder).line("one computer"), flush=True)


if __name__ == "__main__":
    main()
