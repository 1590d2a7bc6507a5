"""How fast task sets are measured against real time: `python -m benchmarks.throughput`.

Sets as the default config draws them, cut to a horizon of 2 s, on two machines of 125 MIPS, each set from the restored snapshot.
The ratio is the sum of the horizons by the number of machines and the wall time: as many machines that run in real time, and lose no
instant between two sets, have 1. All of the runner is in it, its start and end as well.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

from benchmarks.batch import Calibration, run_batch
from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading
from benchmarks.samples import drawn, with_program
from runner.machines.kinds import qemu_by_mailbox
from runner.machines.station import MachineKind
from runner.model import TaskSet
from runner.specs import QemuSpec, Reset
from runner.units import NS_PER_S

_HORIZON_NS = 2 * NS_PER_S
_UTILIZATIONS = tuple(idx / 10 for idx in range(1, 11))
_PROGRAMS = ("pi", "tumatmul")

SPIN_GOAL = 15.0
PROGRAM_GOAL = 3.0


def time_row(
    label: str, make: Callable[[int], list[TaskSet]], kind: MachineKind, options: argparse.Namespace
) -> float:
    """Run the batches of one row, print it; the median ratio.

    Args:
        make: The sets of a batch, from its seed.
    """
    batches = [
        run_batch(make(seed), kind, machines=options.machines) for seed in range(1, options.repeat + 1)
    ]
    used = statistics.median(batch.utilization for batch in batches)
    rate = statistics.median(batch.sets_per_min for batch in batches)
    ratio = statistics.median(batch.speed(options.machines) for batch in batches)
    print(f"{label:20} {used:10.2f} {rate:12.0f} {ratio:10.1f}", flush=True)
    return ratio


def main() -> int:
    """Print the table; 0 if the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--machines", type=int, default=2, metavar="N")
    parser.add_argument("--sets", type=int, default=40, metavar="N", help="of a batch (default: 40)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="batches per row (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one batch of 10 sets per row")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.repeat = 10, 1
    kind = qemu_by_mailbox(QemuSpec(cpu_mips=125.0), reset=Reset.TASKSET)
    calibrations = {program: Calibration(program, kind) for program in _PROGRAMS}

    print_heading(
        f"task sets of {_HORIZON_NS / NS_PER_S:g} s on {options.machines} machines against as many of real time: "
        f"medians of {options.repeat} batches of {options.sets} sets"
    )
    print(f"{'utilization':20} {'as used':>10} {'sets/min':>12} {'x real time':>10}")

    def spin(utilization: float) -> Callable[[int], list[TaskSet]]:
        return lambda seed: drawn(utilization, options.sets, _HORIZON_NS, seed=seed)

    def real(program: str) -> Callable[[int], list[TaskSet]]:
        arg1_of = calibrations[program].arg1
        return lambda seed: [with_program(taskset, program, arg1_of) for taskset in spin(0.5)(seed)]

    ratios = {u: time_row(f"{u:.1f} spin", spin(u), kind, options) for u in _UTILIZATIONS}
    goals = [Goal("spin at 0.5 (in the end: 40)", ratios[0.5], SPIN_GOAL, at_least=True)]
    goals += [
        Goal(program, time_row(f"0.5 {program}", real(program), kind, options), PROGRAM_GOAL, at_least=True)
        for program in _PROGRAMS
    ]
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
