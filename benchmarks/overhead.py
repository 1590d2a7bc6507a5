"""What the runner adds to a task set's own time: `python -m benchmarks.overhead`.

Many tiny task sets (one job of 1 ms) run through all of it: distributor, machine, SSH session, guest, SQLite. The same sets then run over
a bare session, so what is beyond that is the runner's. A set's own guest time is its 10 ms and the 100 … 120 ms until its start
instant, of which most is idle and therefore skipped. The guest image must exist (`python -m host_setup image`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.deadline import Deadline
from runner.distributor import Distributor
from runner.events import Run, RunResult
from runner.kinds import qemu_over_ssh
from runner.model import Task, TaskSet
from runner.monitors.base import AbstractMonitor
from runner.monitors.sqlite import SQLiteMonitor
from runner.qemu.host import QemuHost
from runner.sessions.ssh import SshSession
from runner.specs import QemuSpec
from runner.units import NS_PER_MS, NS_PER_US

_PATIENCE_S = 120.0

#: Wall-clock time that a tiny task set may take, all in all.
GOAL_MS = 50.0


@dataclass(frozen=True)
class TinySets:
    """So many task sets that are alike, but not the same."""

    n_variants: int

    def variants(self) -> Iterator[TaskSet]:
        """One at a time."""
        for idx in range(self.n_variants):
            task = Task(period_ns=10 * NS_PER_MS, wcet_ns=NS_PER_MS + idx)
            yield TaskSet((task,), name=f"tiny{idx}")


class Stopwatch(AbstractMonitor):
    """Notes how long each task set took, and when it was over."""

    def __init__(self) -> None:
        self.walls_s: list[float] = []
        self.ends_s: list[float] = []

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.walls_s.append(result.wall_s)
        self.ends_s.append(time.monotonic())


@dataclass(frozen=True)
class SessionTimes:
    """What a bare session needs, in seconds, and how much it carries."""

    open_s: float
    set_s: float
    events_per_s: float


def time_runner(spec: QemuSpec, sets: TinySets, folder: Path) -> tuple[float, float]:
    """Seconds per set through the whole runner: median of each set alone, and mean of what lies between their ends."""
    folder.mkdir()
    stopwatch = Stopwatch()
    with Distributor(1, kind=qemu_over_ssh(spec), folder=folder) as distributor:
        distributor.add_job(sets, [stopwatch, SQLiteMonitor(folder / "results.sqlite")])
        distributor.wait()
    ends_s = stopwatch.ends_s
    return statistics.median(stopwatch.walls_s), (ends_s[-1] - ends_s[0]) / (len(ends_s) - 1)


def time_session(spec: QemuSpec, sets: TinySets, n_jobs: int, folder: Path) -> SessionTimes:
    """The same sets over a session alone, and one with many jobs."""
    with QemuHost(spec, "qemu1", folder) as host:
        host.start(Deadline.after(_PATIENCE_S))
        host.resume()
        session = SshSession(host)
        try:
            began_s = time.monotonic()
            session.open(Deadline.after(_PATIENCE_S))
            open_s = time.monotonic() - began_s
            walls_s = [time_set(session, taskset)[0] for taskset in sets.variants()]
            many = TaskSet((Task(period_ns=NS_PER_MS, wcet_ns=10 * NS_PER_US, n_jobs=n_jobs),))
            wall_s, n_events = time_set(session, many)
        finally:
            session.close()
    return SessionTimes(open_s, statistics.median(walls_s), n_events / wall_s)


def time_set(session: SshSession, taskset: TaskSet) -> tuple[float, int]:
    """Seconds of one set from start to end, and how many events it had."""
    began_s = time.monotonic()
    session.start(taskset, Deadline.after(_PATIENCE_S))
    n_events = sum(1 for _ in session.events(Deadline.after(_PATIENCE_S)))
    return time.monotonic() - began_s, n_events


def main() -> int:
    """Print the table; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--arch", default="arm64", help="guest architecture (default: arm64)")
    parser.add_argument("--sets", type=int, default=200, metavar="N", help="tiny task sets (default: 200)")
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N", help="jobs of the set for events/s")
    options = parser.parse_args()
    spec, sets = QemuSpec(arch=options.arch), TinySets(options.sets)
    with tempfile.TemporaryDirectory() as folder:
        alone = time_session(spec, sets, options.jobs, Path(folder) / "alone")
        median_s, mean_s = time_runner(spec, sets, Path(folder) / "runner")
    print(f"{sets.n_variants} tiny task sets on one {options.arch} machine")
    for label, value, unit in (
        ("open a session", alone.open_s * 1e3, "ms"),
        ("a set over a bare session, median", alone.set_s * 1e3, "ms"),
        ("a set through the runner, median", median_s * 1e3, "ms"),
        ("a set through the runner, mean", mean_s * 1e3, "ms"),
        ("  of that, over a bare session", mean_s / alone.set_s, "times"),
        ("events of a long set", alone.events_per_s, "per s"),
    ):
        print(f"{label:38} {value:10.1f} {unit}")
    met = mean_s * 1e3 <= GOAL_MS
    print(f"goal, at most {GOAL_MS:g} ms per set: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
