"""What a task set costs beyond the guest's own run: `python -m benchmarks.overhead`.

Tiny task sets (one job of 1 ms) go through all of the runner on one machine, once with `reset: taskset`, once with
`reset: machine`. The guest's part is the time between `cont` and the bell; the rest, from one bell to the next `cont`, is the
harness's own. A guest that was restored also runs slower at first, since nothing is translated yet; so the goal is for what a set
takes in all, less what the guest's run takes where the guest is kept. The second table says where it goes, on hosts that are
started one after the other with nothing made ready meanwhile, and on bare QEMU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from benchmarks.bare import BareMachine, BareRun
from benchmarks.batch import run_batch
from benchmarks.program import run_program
from benchmarks.report import Goal, median_ms, print_goals, print_heading
from benchmarks.samples import tiny
from runner.deadline import Deadline
from runner.machines.kinds import qemu_by_mailbox
from runner.model import TaskSet
from runner.qemu.host import QemuHost
from runner.sessions.mailbox import MailboxSession
from runner.specs import QemuSpec, Reset

_PATIENCE_S = 120.0

#: Milliseconds beyond the guest's run, median.
GOALS_MS = {Reset.TASKSET: 130.0, Reset.MACHINE: 10.0}
FINAL_GOAL_MS = 50.0


@dataclass(frozen=True)
class GuestRun:
    """When a guest ran: from `cont` to its bell, in seconds of the monotonic clock."""

    cont_s: float
    bell_s: float


class TimedHost(QemuHost):
    """Notes when its guest ran."""

    def __init__(self, spec: QemuSpec, name: str, folder: Path, runs: list[GuestRun]) -> None:
        super().__init__(spec, name, folder)
        self._runs = runs

    def run_until_bell(self, deadline: Deadline) -> None:
        cont_s = time.monotonic()
        super().run_until_bell(deadline)
        self._runs.append(GuestRun(cont_s, time.monotonic()))


@dataclass(frozen=True)
class HostRun:
    """One task set on a host of its own, by the runner's parts one after the other, in seconds."""

    start_s: float
    request_s: float
    run_s: float
    reply_s: float
    close_s: float


def run_through_runner(spec: QemuSpec, reset: Reset, tasksets: Sequence[TaskSet]) -> list[GuestRun]:
    """When the guests of one machine ran, set after set."""
    runs: list[GuestRun] = []
    kind = replace(
        qemu_by_mailbox(spec, reset=reset),
        open_host=lambda name, folder: TimedHost(spec, name, folder, runs),
    )
    run_batch(tasksets, kind)
    return runs


def run_by_parts(spec: QemuSpec, taskset: TaskSet, folder: Path) -> HostRun:
    """One set on one host, nothing in parallel."""
    runs: list[GuestRun] = []
    began_s = time.monotonic()
    with TimedHost(spec, "qemu1", folder, runs) as host:
        host.start(Deadline.after(_PATIENCE_S))
        session = MailboxSession(host)
        session.open(Deadline.after(_PATIENCE_S))
        ready_s = time.monotonic()
        session.start(taskset, Deadline.after(_PATIENCE_S))
        for _ in session.events(Deadline.after(_PATIENCE_S)):
            pass
        read_s = time.monotonic()
        session.close()
    (run,) = runs
    return HostRun(
        start_s=ready_s - began_s,
        request_s=run.cont_s - ready_s,
        run_s=run.bell_s - run.cont_s,
        reply_s=read_s - run.bell_s,
        close_s=time.monotonic() - read_s,
    )


def print_resets(runs_by_reset: dict[Reset, list[GuestRun]], warm_ms: float) -> list[Goal]:
    """The first table."""
    print(
        f"{'median ms of a task set':24} {'in all':>9} {'guest':>9} {'beyond it':>10} {'beyond a kept one':>18} {'goal':>6}"
    )
    goals = []
    for reset, runs in runs_by_reset.items():
        whole_ms = median_ms([after.bell_s - before.bell_s for before, after in pairwise(runs)])
        beyond_ms = median_ms([after.cont_s - before.bell_s for before, after in pairwise(runs)])
        label, kept_ms = f"reset={reset.value}", whole_ms - warm_ms
        goals.append(Goal(f"{label}, beyond a kept guest's run", kept_ms, GOALS_MS[reset], " ms"))
        print(
            f"{label:24} {whole_ms:9.1f} {guest_ms(runs):9.1f} {beyond_ms:10.1f} {kept_ms:18.1f} {GOALS_MS[reset]:6g}"
        )
    return goals


def guest_ms(runs: Sequence[GuestRun]) -> float:
    """The median of the guest's part, without the first."""
    return median_ms([run.bell_s - run.cont_s for run in runs[1:]])


def print_parts(bare: Sequence[BareRun], hosts: Sequence[HostRun], warm_ms: float) -> None:
    """The second table."""

    def line(label: str, bare_s: Sequence[float], host_s: Sequence[float]) -> None:
        host, alone = (f"{median_ms(values):10.1f}" if values else f"{'':10}" for values in (host_s, bare_s))
        print(f"{label:28} {alone} {host}")

    print(f"{'median ms, one by one':28} {'bare QEMU':>10} {'runner':>10}")
    line("process start until QMP", [run.to_qmp_s for run in bare], [])
    line("load the snapshot", [run.load_s for run in bare], [])
    line("= ready", [run.to_qmp_s + run.load_s for run in bare], [run.start_s for run in hosts])
    line("write the request", [run.request_s for run in bare], [run.request_s for run in hosts])
    line("guest's run", [run.run_s for run in bare], [run.run_s for run in hosts])
    print(f"{'  of it a kept guest needs':28} {'':10} {warm_ms:10.1f}")
    line("read the reply", [run.reply_s for run in bare], [run.reply_s for run in hosts])
    line("close", [run.close_s for run in bare], [run.close_s for run in hosts])
    bare_s, host_s = ([sum_s(run) for run in bare], [sum_s(run) for run in hosts])
    line("in all", bare_s, host_s)
    print(f"bare QEMU needs {statistics.median(bare_s) / statistics.median(host_s):.2f} of the runner's time")


def sum_s(run: BareRun | HostRun) -> float:
    """All that it took."""
    start_s = run.start_s if isinstance(run, HostRun) else run.to_qmp_s + run.load_s
    return start_s + run.request_s + run.run_s + run.reply_s + run.close_s


def main() -> int:
    """Print the tables; 0 if the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--arch", default="arm64", help="guest architecture (default: arm64)")
    parser.add_argument("--sets", type=int, default=100, metavar="N", help="tiny task sets (default: 100)")
    parser.add_argument("--quick", action="store_true", help="15 task sets")
    options = parser.parse_args()
    spec = QemuSpec(arch=options.arch)
    tasksets = tiny(15 if options.quick else options.sets)
    run_batch(tasksets[:1], qemu_by_mailbox(spec))  # makes the snapshot if there is none

    print_heading(f"{len(tasksets)} tiny task sets on one {options.arch} machine")
    runs_by_reset = {reset: run_through_runner(spec, reset, tasksets) for reset in GOALS_MS}
    warm_ms = guest_ms(runs_by_reset[Reset.MACHINE])
    goals = print_resets(runs_by_reset, warm_ms)
    goals.append(replace(goals[0], what="the same, in the end", limit=FINAL_GOAL_MS))
    with tempfile.TemporaryDirectory() as folder:
        machine = BareMachine(spec, Path(folder))
        pairs = [(machine.run(one), run_by_parts(spec, one, Path(folder))) for one in tasksets]
    print()
    print_parts([bare for bare, _ in pairs], [host for _, host in pairs], warm_ms)
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
