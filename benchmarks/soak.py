"""Whether a long run stays as it was: `python -m benchmarks.soak`.

10^5 simulated task sets (`--simulated 1000000` for as many as a data set may want), drawn, analysed, measured and stored as in any run, and
read again as a user of the data would; then two hours' worth of guest time on real guests. Memory of the runner and of its guests,
threads, file descriptors and processes are noted over the whole run. What still grows from its second third to its last is a leak.
Exit code 1 if anything does, or if a task set is missing from the ledger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.accounting import own_cpu_s, pss_bytes
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading
from benchmarks.samples import drawn
from runner.data.audit import audit
from runner.distributor import Distributor
from runner.machines.kinds import qemu_by_mailbox, simulated
from runner.machines.station import MachineKind
from runner.model import TaskSet, TaskSetSource
from runner.monitors.sqlite import SQLiteMonitor
from runner.tasksets import UUniFastTaskSets
from runner.units import NS_PER_S

_HORIZON_S = 2
_UTILIZATIONS = (0.5, 0.7, 0.8, 0.9, 1.0)
# SQLite's cache fills within the first third; heaps settle.
_GROWTH_MIB = 4.0
_SAMPLES = 300

# Not `ru_maxrss`: that has what the parent held when it forked in it.
_PEAK = "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
# What a user does with the data -> how.
_READERS = {
    "the program alone": "",
    "Parquet files": (
        "from runner.data.parquet import write_parquet\nwrite_parquet(folder / 'results.sqlite', folder / 'parquet')"
    ),
    "load jobs from SQLite": "runner.load(folder / 'results.sqlite').tables['jobs']",
    "load jobs from Parquet": "runner.load(folder / 'parquet').tables['jobs']",
    "load features from SQLite": "runner.load(folder / 'results.sqlite').tables['features']",
    "load features from Parquet": "runner.load(folder / 'parquet').tables['features']",
    "features of two runs, linked": (
        "runner.load(folder / 'parquet', folder / 'results.sqlite').tables['features']"
    ),
    "acceptance, by SQL": (
        "import contextlib\nfrom runner.data.database import open_database\n"
        "with contextlib.closing(open_database(folder / 'results.sqlite')) as database:\n"
        "    database.execute('SELECT * FROM acceptance').fetchall()"
    ),
}


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


def soak(
    title: str,
    source: TaskSetSource,
    kind: MachineKind,
    machines: int,
    *,
    interval_s: float,
    read: bool = False,
) -> list[Goal]:
    """One run; how much of everything there was more in its last third than in the one before.

    Args:
        read: Whether its data are read afterwards, as a user of them would.
    """
    before = take_sample()
    with tempfile.TemporaryDirectory(prefix="rtfleet-soak-") as text:
        folder = Path(text)
        began_s, began_cpu_s = time.monotonic(), own_cpu_s()
        with (
            Distributor(machines, kind=kind, folder=folder) as distributor,
            Sampler(interval_s) as sampler,
        ):
            distributor.add_job(source, SQLiteMonitor(folder / "results.sqlite"))
            distributor.wait()
        wall_s, cpu_s = time.monotonic() - began_s, own_cpu_s() - began_cpu_s
        n_bytes = (folder / "results.sqlite").stat().st_size
        found = audit(folder / "results.sqlite")
        after = take_sample()
        (account,) = found.accounts
        print(
            f"\n{title}: {account.n_done} of {account.n_submitted} done, {account.n_bad} bad, {found.n_jobs} jobs, {wall_s:.0f} s,"
            f" {account.n_done / wall_s:.1f} sets/s; ledger: {'; '.join(found.violations) or 'sound'}\n"
            f"runner's CPU time: {cpu_s / account.n_done * 1e3:.2f} ms a set; file: {n_bytes / 1e6:.1f} MB,"
            f" {n_bytes / account.n_done:.0f} bytes a set"
        )
        print_samples(sampler.samples)
        print(f"left when it was over: {after.processes} processes, {after.descriptors - before.descriptors} descriptors more,"
              f" {after.threads - before.threads} threads more")  # fmt: skip
        if read:
            read_data(folder)
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


def read_data(folder: Path) -> None:
    """What it takes to use the data, each in a process of its own: wall time, and the process's largest memory."""
    for step, code in _READERS.items():
        program = f"import runner\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n{code}\n{_PEAK}"
        began_s = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        print(
            f"{step}: {time.monotonic() - began_s:.1f} s, at most {int(done.stdout) / 1024:.0f} MiB",
            flush=True,
        )


def print_samples(samples: Sequence[Sample]) -> None:
    """Ten of them, and what they are."""
    names = [field.name for field in fields(Sample)]
    print("  ".join(["  %"] + [f"{name:>11}" for name in names]))
    for percent in range(0, 101, 10):
        sample = samples[min(len(samples) - 1, percent * len(samples) // 100)]
        print("  ".join([f"{percent:3d}"] + [f"{value:11.1f}" for value in astuple(sample)]))


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def short(n_sets: int, n_tasks: int) -> TaskSetSource:
    """Sets that take 40 ms: some two jobs of each task."""
    return UUniFastTaskSets(
        n_tasks=n_tasks,
        utilizations=list(_UTILIZATIONS),
        sets_per_utilization=-(-n_sets // len(_UTILIZATIONS)),
        periods=["10ms", "20ms", "40ms"],
        hyperperiods=1,
        seed=1,
    )


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
    parser.add_argument("--tasks", type=int, default=3, help="of each simulated set")
    parser.add_argument("--guest-hours", type=float, default=2.0, help="guest time on real guests")
    parser.add_argument("--machines", type=int, default=2)
    options = parser.parse_args()
    print_heading("A long run, from its second third to its last")
    goals: list[Goal] = []
    if options.simulated:
        goals += soak(
            "simulated",
            short(options.simulated, options.tasks),
            simulated(),
            options.machines,
            interval_s=0.1,
            read=True,
        )
    n_sets = round(options.guest_hours * 3600 / _HORIZON_S)
    if n_sets:
        goals += soak("guests", Many(n_sets, typical), qemu_by_mailbox(), options.machines, interval_s=0.5)
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
