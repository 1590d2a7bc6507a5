"""Task sets through all of the runner: queue, fleet, machines, guests, SQLite."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.samples import Listed, one_job
from runner.distributor import Distributor
from runner.errors import RunnerError
from runner.events import Run, RunResult
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.monitors.base import AbstractMonitor
from runner.monitors.sqlite import SQLiteMonitor
from runner.units import NS_PER_S


class Collector(AbstractMonitor):
    """Keeps what came of every task set."""

    def __init__(self) -> None:
        self.results: list[tuple[Run, RunResult]] = []
        self.errors: list[RunnerError] = []

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.results.append((run, result))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self.errors.append(error)


@dataclass(frozen=True)
class Batch:
    """What came of it.

    Attributes:
        results: Of every task set, in the order in which they ended.
        wall_s: From the first machine's start until the last was gone.
    """

    results: Sequence[tuple[Run, RunResult]]
    wall_s: float

    @property
    def sets_per_min(self) -> float:
        """Task sets per minute of real time."""
        return len(self.results) * 60 / self.wall_s

    def speed(self, n_machines: int) -> float:
        """How many times faster this was than as many machines of real time that lose no instant between two sets."""
        horizons_ns = sum(run.taskset.end_ns for run, _ in self.results)
        return horizons_ns / NS_PER_S / n_machines / self.wall_s

    @property
    def utilization(self) -> float:
        """What the jobs really used of the processor, on average."""
        used_ns = sum(job.exec_ns or 0 for _, result in self.results for job in result.jobs)
        return used_ns / sum(run.taskset.end_ns for run, _ in self.results)


def run_batch(
    tasksets: Sequence[TaskSet],
    kind: MachineKind,
    *,
    machines: int = 1,
    monitors: Iterable[AbstractMonitor] | None = None,
) -> Batch:
    """Measure every set once; whatever was started has ended when this returns or raises.

    Args:
        monitors: Who is told beside the collector; None: a `SQLiteMonitor`, as in any run.

    Raises:
        RunnerError: a set was given up, or the fleet gave up.
    """
    collector = Collector()
    with tempfile.TemporaryDirectory(prefix="rtfleet-benchmark-") as text:
        folder = Path(text)
        with Distributor(machines, kind=kind, folder=folder) as distributor:
            began_s = time.monotonic()
            others = [SQLiteMonitor(folder / "results.sqlite")] if monitors is None else monitors
            distributor.add_job(Listed(tasksets), [collector, *others])
            distributor.wait()
            wall_s = time.monotonic() - began_s
    if collector.errors:
        raise collector.errors[0]
    return Batch(collector.results, wall_s)


class Calibration:
    """How much CPU time a program's argument stands for on a kind of machine, measured in the guest.

    Args:
        program: `pi` and the like: with twice the argument, about twice the work.
        kind: What will run it.
    """

    _FIRST_ARG1 = 10_000
    # A job of the middling length that the default config draws.
    _TYPICAL_NS = 10_000_000

    def __init__(self, program: str, kind: MachineKind) -> None:
        arg1 = self._FIRST_ARG1
        for _ in range(2):  # the second time from nearby: a sieve is not quite linear
            batch = run_batch([one_job(program, arg1)], kind)
            self._arg1_per_ns = arg1 / (batch.results[0][1].jobs[0].exec_ns or 1)
            arg1 = self.arg1(self._TYPICAL_NS)

    def arg1(self, exec_ns: int) -> int:
        """The argument that makes a job use about that much."""
        return max(1, round(exec_ns * self._arg1_per_ns))
