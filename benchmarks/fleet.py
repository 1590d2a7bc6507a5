"""How fast machines are ready, and what memory they take: `python -m benchmarks.fleet`.

Starts 1, 2, 4 … 64 machines from the snapshot, as many at a time as there are CPUs, and leaves them paused. Two figures for memory:
PSS, where what n processes share counts 1/n for each (QEMU's processes and this one), and what the kernel's MemAvailable lost, which
also sees the kernel's own. What others do meanwhile is in the second. At the end each machine measures a tiny task set, once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accounting import available_bytes, pss_bytes
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading
from benchmarks.samples import tiny
from runner.deadline import Deadline
from runner.model import TaskSet
from runner.qemu.host import QemuHost
from runner.sessions.mailbox import MailboxSession
from runner.specs import QemuSpec

_PATIENCE_S = 180.0
# What a machine may take before it is not started for want of memory: more than any ever did, measured.
_WANTED_BYTES = 100 << 20
# What has to be left for everybody else.
_SPARED_BYTES = 1 << 30

GOAL_MIB = 25.0


@dataclass(frozen=True)
class Footprint:
    """What so many machines take."""

    n_machines: int
    pss_bytes: int
    lost_bytes: int

    def more_mib(self, first: Footprint) -> tuple[float, float]:
        """By PSS and by MemAvailable: what each machine after those of `first` has added."""
        n_more = max(1, self.n_machines - first.n_machines)
        return (self.pss_bytes - first.pss_bytes) / n_more / 2**20, (
            self.lost_bytes - first.lost_bytes
        ) / n_more / 2**20


class Fleet:
    """Machines that were started and stand still. Left as a context manager, none is left."""

    def __init__(self, spec: QemuSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        self._hosts: list[QemuHost] = []
        self._owned = ExitStack()
        self._available_bytes = available_bytes()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        # All at once, so that even 64 are gone within seconds; stop() follows, one by one.
        for host in self._hosts:
            host.kill()
        self._owned.close()

    def grow(self, n_machines: int) -> float:
        """Start machines until there are so many; how many got ready per second."""
        new = []
        for number in range(len(self._hosts) + 1, n_machines + 1):
            host = QemuHost(self._spec, f"qemu{number}", self._folder / f"qemu{number}")
            self._hosts.append(self._owned.enter_context(host))
            new.append(host)
        began_s = time.monotonic()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            started = [pool.submit(host.start, Deadline.after(_PATIENCE_S)) for host in new]
            try:
                for one in started:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for host in new:  # a start that is under way ends at once
                    host.kill()
                raise
        return len(new) / (time.monotonic() - began_s)

    def measure(self, tasksets: Sequence[TaskSet]) -> None:
        """One set on each machine, one machine after the other."""
        for host, taskset in zip(self._hosts, tasksets, strict=True):
            session = MailboxSession(host)
            session.open(Deadline.after(_PATIENCE_S))
            session.start(taskset, Deadline.after(_PATIENCE_S))
            for _ in session.events(Deadline.after(_PATIENCE_S)):
                pass
            session.close()

    def footprint(self) -> Footprint:
        """What it takes now."""
        pids = [os.getpid(), *(host.pid for host in self._hosts if host.pid is not None)]
        lost_bytes = self._available_bytes - available_bytes()
        return Footprint(len(self._hosts), sum(pss_bytes(pid) for pid in pids), lost_bytes)


def affordable(n_machines: int) -> int:
    """As many of these as there is memory for."""
    fitting = max(0, available_bytes() - _SPARED_BYTES) // _WANTED_BYTES
    if fitting < n_machines:
        print(f"memory is short ({available_bytes() >> 20} MiB available): {fitting} machines at most")
    return min(n_machines, fitting)


def print_row(footprint: Footprint, first: Footprint, rate: str) -> None:
    """One line of the table."""
    pss, lost = footprint.more_mib(first)
    more = f"{pss:10.1f} {lost:10.1f}" if footprint.n_machines > first.n_machines else f"{'':10} {'':10}"
    print(
        f"{footprint.n_machines:9} {rate:>12} {footprint.pss_bytes >> 20:10} {footprint.lost_bytes >> 20:10} {more}",
        flush=True,
    )


def main() -> int:
    """Print the table; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--machines", type=int, default=64, metavar="N", help="up to how many (default: 64)")
    parser.add_argument("--quick", action="store_true", help="up to 8 machines")
    options = parser.parse_args()
    n_most = affordable(8 if options.quick else options.machines)
    if n_most < 2:
        return 1
    spec = QemuSpec()
    with tempfile.TemporaryDirectory() as folder:
        with Fleet(spec, Path(folder) / "first") as first_start:
            first_start.grow(1)  # makes the snapshot if there is none
        print_heading(
            f"paused {spec.arch} machines of {spec.memory_mib} MiB RAM, {os.cpu_count()} started at a time"
        )
        print(f"{'':9} {'ready':>12} {'MiB in all':^21} {'MiB per further one':^21}")
        print(
            f"{'machines':>9} {'per second':>12} {'PSS':>10} {'available':>10} {'PSS':>10} {'available':>10}"
        )
        with Fleet(spec, Path(folder)) as fleet:
            rows = []
            for n_machines in [*(1 << k for k in range(n_most.bit_length()) if 1 << k < n_most), n_most]:
                rate = fleet.grow(n_machines)
                rows.append(fleet.footprint())
                print_row(rows[-1], rows[0], f"{rate:.1f}")
            fleet.measure(tiny(n_most))
            print_row(fleet.footprint(), rows[0], "after a set")
    pss, lost = rows[-1].more_mib(rows[0])
    goals = [
        Goal("a further machine, PSS", pss, GOAL_MIB, " MiB"),
        Goal("a further machine, MemAvailable", lost, GOAL_MIB, " MiB"),
    ]
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
