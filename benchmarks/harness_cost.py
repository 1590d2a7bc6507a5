"""What the runner costs beside QEMU: `python -m benchmarks.harness_cost`.

The same task sets run through all of the runner (queue, fleet, machine, session, SQLite), and on bare QEMU: the same command,
snapshot and request, driven by the barest loop. Both execute the same instructions, as their equal job tables prove, so the
ratio of CPU seconds is that of CPU seconds per guest instruction. Bare counts QEMU's processes alone; the runner's side counts
them and the runner itself. Rounds alternate, so that what else goes on hits both alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accounting import children_cpu_s, own_cpu_s
from benchmarks.bare import BareMachine
from benchmarks.batch import Calibration, run_batch
from benchmarks.program import run_program
from benchmarks.report import Goal, median_ms, print_goals, print_heading
from benchmarks.samples import drawn, with_program
from runner.errors import RunnerError
from runner.machines.kinds import qemu_by_mailbox
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.specs import QemuSpec, Reset
from runner.units import NS_PER_S

_PROGRAMS = ("spin", "pi")
_HORIZONS_NS = (2 * NS_PER_S, 10 * NS_PER_S)

GOAL = 0.85


@dataclass(frozen=True)
class Costs:
    """CPU seconds of one round, per task set.

    Attributes:
        bare_s: QEMU alone.
        qemu_s: QEMU under the runner.
        runner_s: The runner itself.
        instructions: Guest instructions within jobs.
    """

    bare_s: float
    qemu_s: float
    runner_s: float
    instructions: float

    @property
    def ratio(self) -> float:
        """How much of the cost is QEMU's own."""
        return self.bare_s / (self.qemu_s + self.runner_s)


def compare(tasksets: Sequence[TaskSet], kind: MachineKind, bare: BareMachine, mips: float) -> Costs:
    """One round.

    Raises:
        RunnerError: the two have not executed the same.
    """
    own_s, children_s = own_cpu_s(), children_cpu_s()
    batch = run_batch(tasksets, kind)
    own_s, children_s = own_cpu_s() - own_s, children_cpu_s() - children_s
    runs = [bare.run(taskset) for taskset in tasksets]
    tables = {run.taskset.taskset_id: result.table_sha256 for run, result in batch.results}
    for taskset, run in zip(tasksets, runs, strict=True):
        if run.result.table_sha256 != tables[taskset.taskset_id]:
            raise RunnerError(f"{taskset.name}: bare QEMU has another job table than the runner")
    n_sets = len(tasksets)
    used_ns = sum(job.exec_ns or 0 for _, result in batch.results for job in result.jobs)
    return Costs(
        bare_s=sum(run.cpu_s for run in runs) / n_sets,
        qemu_s=children_s / n_sets,
        runner_s=own_s / n_sets,
        instructions=used_ns * mips / 1e3 / n_sets,
    )


def main() -> int:
    """Print the table; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness_cost", description=__doc__)
    parser.add_argument("--sets", type=int, default=10, metavar="N", help="of a round (default: 10)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds per row (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one round of 4 sets per row")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.repeat = 4, 1
    spec = QemuSpec()
    kind = qemu_by_mailbox(spec, reset=Reset.TASKSET)
    arg1_of = Calibration("pi", kind).arg1  # and the snapshot is there now

    print_heading(
        f"CPU time per task set of utilization 0.5, on one machine: medians of {options.repeat} rounds of {options.sets} sets"
    )
    print(f"{'sets':12} {'10^6 instr.':>12} {'bare QEMU':>12} {'QEMU':>10} {'runner':>10} {'bare/both':>10}")
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        bare = BareMachine(spec, Path(folder))
        for program in _PROGRAMS:
            for horizon_ns in _HORIZONS_NS:
                tasksets = drawn(0.5, options.sets, horizon_ns)
                if program != "spin":
                    tasksets = [with_program(taskset, program, arg1_of) for taskset in tasksets]
                label = f"{program}, {horizon_ns // NS_PER_S} s"
                rounds = [compare(tasksets, kind, bare, spec.cpu_mips) for _ in range(options.repeat)]
                goals.append(Goal(label, print_row(label, rounds), GOAL, at_least=True))
    return 0 if print_goals(goals) else 1


def print_row(label: str, rounds: Sequence[Costs]) -> float:
    """Medians; returns that of the ratio."""
    millions = statistics.median(one.instructions for one in rounds) / 1e6
    bare_ms, qemu_ms, runner_ms = (
        median_ms([getattr(one, name) for one in rounds]) for name in ("bare_s", "qemu_s", "runner_s")
    )
    ratio = statistics.median(one.ratio for one in rounds)
    print(
        f"{label:12} {millions:12.1f} {bare_ms:9.1f} ms {qemu_ms:7.1f} ms {runner_ms:7.1f} ms {ratio:10.2f}",
        flush=True,
    )
    return ratio


if __name__ == "__main__":
    run_program(main)
