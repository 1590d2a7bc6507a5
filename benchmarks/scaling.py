"""What a second busy machine brings on two cores: `python -m benchmarks.scaling`.

Task sets per minute with one machine and with two, in turns, so that what else goes on hits both alike. With `reset: taskset`
a single machine makes its next guest ready while the present one runs, and so uses the second core a little already.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks.batch import Calibration, run_batch
from benchmarks.program import run_program
from benchmarks.report import print_heading
from benchmarks.samples import drawn, with_program
from runner.machines.kinds import qemu_by_mailbox
from runner.model import TaskSet
from runner.specs import QemuSpec, Reset
from runner.units import NS_PER_S

_HORIZON_NS = 2 * NS_PER_S


def print_row(label: str, tasksets: Sequence[TaskSet], reset: Reset, n_rounds: int) -> None:
    """Rounds of one machine, then two."""
    kind = qemu_by_mailbox(QemuSpec(), reset=reset)
    rounds = [
        tuple(run_batch(tasksets, kind, machines=n).sets_per_min for n in (1, 2)) for _ in range(n_rounds)
    ]
    one, two = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(two / one for one, two in rounds)
    print(f"{label:8} {reset.value:8} {one:14.0f} {two:14.0f} {ratio:8.2f}", flush=True)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--sets", type=int, default=40, metavar="N", help="of a batch (default: 40)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds per row (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 10 sets per row")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.repeat = 10, 1
    arg1_of = Calibration("pi", qemu_by_mailbox()).arg1

    print_heading(
        f"task sets per minute with one machine and with two: sets of {_HORIZON_NS / NS_PER_S:g} s, utilization 0.5; "
        f"medians of {options.repeat} rounds of {options.sets} sets"
    )
    print(f"{'program':8} {'reset':8} {'one machine':>14} {'two machines':>14} {'ratio':>8}")
    spin = drawn(0.5, options.sets, _HORIZON_NS)
    pi = [with_program(taskset, "pi", arg1_of) for taskset in spin]
    for label, tasksets in (("spin", spin), ("pi", pi)):
        for reset in Reset:
            print_row(label, tasksets, reset, options.repeat)
    return 0


if __name__ == "__main__":
    run_program(main)
