"""Whether a long run stays as it was: `python -m benchmarks.soak`.

10^5 simulated task sets, then two hours' worth of guest time on real guests: memory of the runner and of its guests, threads,
file descriptors and processes are noted over the whole run. What still grows from its second third to its last is a leak.
Exit code 1 if anything does, or if a task set is missing from the ledger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.accounting import pss_bytes
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading
from benchmarks.samples import drawn
from runner.data.audit import audit
from runner.distributor import Distributor
from runner.machines.kinds import qemu_by_mailbox, simulated
from runner.machines.station import MachineKind
from runner.model import Task, TaskSet
from runner.monitors.sqlite import SQLiteMonitor
from runner.units import NS_PER_MS, NS_PER_S

_HORIZON_S = 2
# SQLite's cache fills within the first third; heaps settle.
_GROWTH_MIB = 4.0
_SAMPLES = 300


@dataclass(frozen=True)
class Sample:
    """What the runner and its guests hold at one instant."""

    runner_mib: float
    guests_mib: float
    threads: int
    descriptors: int
    processes: int


def take_sample() -> Sample:
    """Of this process and all its descendants."""
    pids = list(_descendants(os.getpid()))
    guests = [size for pid in pids if (size := _memory_mib(pid)) is not None]
    return Sample(
        runner_mib=_memory_mib(os.getpid()) or 0.0,
        guests_mib=sum(guests),
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")),
        processes=len(pids),
    )


def _descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:  # a thread, or a process, that has ended meanwhile
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def _memory_mib(pid: int) -> float | None:
    try:
        return pss_bytes(pid) / (1 << 20)
    except (OSError, LookupError):  # it has ended meanwhile
        return None


class Sampler:
    """Notes samples at even intervals while its block runs."""

    def __init__(self, interval_s: float) -> None:
        self.samples: list[Sample] = []
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sampler")

    def _loop(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.samples.append(take_sample())
            if len(self.samples) >= 2 * _SAMPLES:  # half as often from now on
                self.samples = self.samples[::2]
                self._interval_s *= 2

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


class Many:
    """So many task sets, one at a time: what a source holds is not to be taken for a leak."""

    def __init__(self, n_sets: int, make: Callable[[int], TaskSet]) -> None:
        self.n_variants = n_sets
        self._make = make

    def variants(self) -> Iterator[TaskSet]:
        """Each is another one."""
        return map(self._make, range(self.n_variants))


def soak(title: str, source: Many, kind: MachineKind, machines: int, *, interval_s: float) -> list[Goal]:
    """One run; how much of everything there was more in its last third than in the one before."""
    before = take_sample()
    with tempfile.TemporaryDirectory(prefix="rtfleet-soak-") as text:
        folder = Path(text)
        began_s = time.monotonic()
        with (
            Distributor(machines, kind=kind, folder=folder) as distributor,
            Sampler(interval_s) as sampler,
        ):
            distributor.add_job(source, SQLiteMonitor(folder / "results.sqlite"))
            distributor.wait()
        wall_s = time.monotonic() - began_s
        found = audit(folder / "results.sqlite")
    (account,) = found.accounts
    print(
        f"\n{title}: {account.n_done} of {account.n_submitted} done, {account.n_bad} bad, {found.n_jobs} jobs, {wall_s:.0f} s,"
        f" {account.n_done / wall_s:.1f} sets/s; ledger: {'; '.join(found.violations) or 'sound'}"
    )
    after = take_sample()
    print_samples(sampler.samples)
    print(f"left when it was over: {after.processes} processes, {after.descriptors - before.descriptors} descriptors more,"
          f" {after.threads - before.threads} threads more")  # fmt: skip
    third = max(1, len(sampler.samples) // 3)
    before_last, last = sampler.samples[third:-third], sampler.samples[-third:]
    goals = [
        Goal(
            f"{title}: {field.name}, growth",
            _median(last, field.name) - _median(before_last or last, field.name),
            _GROWTH_MIB if field.name.endswith("_mib") else 1,
        )
        for field in fields(Sample)
    ]
    missing = account.n_submitted - account.n_done + len(found.violations)
    left = (
        after.processes + after.threads - before.threads + max(0, after.descriptors - before.descriptors - 2)
    )
    return [*goals, Goal(f"{title}: sets missing", missing, 0), Goal(f"{title}: left over", left, 0)]


def print_samples(samples: Sequence[Sample]) -> None:
    """Ten of them, and what they are."""
    names = [field.name for field in fields(Sample)]
    print("  ".join(["  %"] + [f"{name:>11}" for name in names]))
    for percent in range(0, 101, 10):
        sample = samples[min(len(samples) - 1, percent * len(samples) // 100)]
        print("  ".join([f"{percent:3d}"] + [f"{value:11.1f}" for value in astuple(sample)]))


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def tiny(idx: int) -> TaskSet:
    """One short job."""
    return TaskSet((Task(period_ns=10 * NS_PER_MS, wcet_ns=NS_PER_MS + idx),), name="tiny")


def typical(idx: int) -> TaskSet:
    """Two seconds at half load."""
    (taskset,) = drawn(0.5, 1, _HORIZON_S * NS_PER_S, seed=idx)
    return taskset


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--simulated", type=int, default=100_000, metavar="SETS", help="simulated task sets")
    parser.add_argument("--guest-hours", type=float, default=2.0, help="guest time on real guests")
    parser.add_argument("--machines", type=int, default=2)
    options = parser.parse_args()
    print_heading("A long run, from its second third to its last")
    goals: list[Goal] = []
    if options.simulated:
        goals += soak(
            "simulated", Many(options.simulated, tiny), simulated(), options.machines, interval_s=0.1
        )
    n_sets = round(options.guest_hours * 3600 / _HORIZON_S)
    if n_sets:
        goals += soak("guests", Many(n_sets, typical), qemu_by_mailbox(), options.machines, interval_s=0.5)
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
