"""How long a machine takes to be ready, from its booted snapshot and cold: `python -m benchmarks.start`.

Both are timed to the same two points, for a machine that is asked through its mailbox and for one that is reached over SSH: the guest
reports ready and stands still; a session is open, and the task loader has said hello. The guest image must exist
(`python -m host_setup image`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.program import run_program
from benchmarks.report import Goal, median_ms, print_goals, print_heading
from runner.deadline import Deadline
from runner.qemu.host import QemuHost
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.sessions.ssh import SshSession
from runner.specs import QemuSpec, Reach

_PATIENCE_S = 120.0

#: A start from the snapshot may take at most this fraction of a cold boot.
GOAL = 1 / 5


@dataclass(frozen=True)
class StartTimes:
    """Seconds from nothing to two points in a machine's life."""

    ready_s: float
    session_s: float


def time_start(spec: QemuSpec, folder: Path) -> StartTimes:
    """Start one machine, and end it again."""
    with QemuHost(spec, "qemu1", folder) as host:
        began_s = time.monotonic()
        host.start(Deadline.after(_PATIENCE_S))
        ready_s = time.monotonic() - began_s
        session: AbstractSession
        if spec.reach is Reach.SSH:
            host.resume()
            session = SshSession(host)
        else:
            session = MailboxSession(host)
        try:
            session.open(Deadline.after(_PATIENCE_S))
            session_s = time.monotonic() - began_s
        finally:
            session.close()
    return StartTimes(ready_s, session_s)


def print_table(
    warm: Mapping[Reach, Sequence[StartTimes]], cold: Mapping[Reach, Sequence[StartTimes]]
) -> None:
    """Medians, side by side."""
    print(f"{'until':36} {'snapshot':>10} {'cold boot':>10} {'ratio':>8}")
    for reach in warm:
        for label, name in (("the guest is ready", "ready_s"), ("a session is open", "session_s")):
            warm_ms, cold_ms = (
                median_ms([getattr(times, name) for times in group]) for group in (warm[reach], cold[reach])
            )
            ratio = f"1/{cold_ms / warm_ms:.1f}"
            print(f"{f'{label} ({reach.value})':36} {warm_ms:7.0f} ms {cold_ms:7.0f} ms {ratio:>8}")


def main() -> int:
    """Print the table; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--arch", default="arm64", help="guest architecture (default: arm64)")
    parser.add_argument("--snapshot-starts", type=int, default=20, metavar="N")
    parser.add_argument("--cold-starts", type=int, default=5, metavar="N", help="a cold boot varies little")
    parser.add_argument("--quick", action="store_true", help="5 starts from the snapshot, 1 cold boot")
    options = parser.parse_args()
    if options.quick:
        options.snapshot_starts, options.cold_starts = 5, 1
    warm: dict[Reach, Sequence[StartTimes]] = {}
    cold: dict[Reach, Sequence[StartTimes]] = {}
    print_heading(
        f"start of a {options.arch} machine: medians of {options.snapshot_starts} starts from the snapshot, "
        f"of {options.cold_starts} cold boots"
    )
    with tempfile.TemporaryDirectory() as folder:
        for reach in (Reach.MAILBOX, Reach.SSH):
            spec = QemuSpec(arch=options.arch, reach=reach)
            time_start(spec, Path(folder))  # makes the snapshot if there is none
            warm[reach] = [time_start(spec, Path(folder)) for _ in range(options.snapshot_starts)]
            booted = replace(spec, snapshot=False)
            cold[reach] = [time_start(booted, Path(folder)) for _ in range(options.cold_starts)]
    print_table(warm, cold)
    goals = [
        Goal(
            f"ready ({reach.value}), part of a cold boot",
            median_ms([times.ready_s for times in warm[reach]])
            / median_ms([times.ready_s for times in cold[reach]]),
            GOAL,
        )
        for reach in warm
    ]
    return 0 if print_goals(goals) else 1


if __name__ == "__main__":
    run_program(main)
