"""How long a machine takes to be ready, from its booted snapshot and cold: `python -m benchmarks.start`.

Both are timed to the same three points: the guest reports ready; its SSH server says its first words; a session is open
and the task loader has said hello. The guest image must exist (`python -m host_setup image`).
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from runner.deadline import Deadline
from runner.qemu.host import QemuHost
from runner.sessions.ssh import SshSession
from runner.specs import QemuSpec

_PATIENCE_S = 120.0

#: A start from the snapshot may take at most this fraction of a cold boot.
GOAL = 1 / 5


@dataclass(frozen=True)
class StartTimes:
    """Seconds from nothing to three points in a machine's life."""

    ready_s: float
    banner_s: float
    session_s: float


def time_start(spec: QemuSpec, folder: Path) -> StartTimes:
    """Start one machine, and end it again."""
    with QemuHost(spec, "qemu1", folder) as host:
        began_s = time.monotonic()
        host.start(Deadline.after(_PATIENCE_S))
        ready_s = time.monotonic() - began_s

        resumed_s = time.monotonic()
        host.resume()
        with socket.create_connection(host.ssh_address, timeout=_PATIENCE_S) as connection:
            connection.recv(1)
        banner_s = time.monotonic() - resumed_s
        host.pause()

        resumed_s = time.monotonic()
        host.resume()
        session = SshSession(host)
        try:
            session.open(Deadline.after(_PATIENCE_S))
            session_s = time.monotonic() - resumed_s
        finally:
            session.close()
    return StartTimes(ready_s, ready_s + banner_s, ready_s + session_s)


def main() -> int:
    """Print the table; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--arch", default="arm64", help="guest architecture (default: arm64)")
    parser.add_argument("--snapshot-starts", type=int, default=20, metavar="N")
    parser.add_argument("--cold-starts", type=int, default=5, metavar="N", help="a cold boot varies little")
    options = parser.parse_args()
    cold_spec = QemuSpec(arch=options.arch, snapshot=False)
    warm_spec = QemuSpec(arch=options.arch)
    with tempfile.TemporaryDirectory() as folder:
        time_start(warm_spec, Path(folder))  # makes the snapshot if there is none
        warm = [time_start(warm_spec, Path(folder)) for _ in range(options.snapshot_starts)]
        cold = [time_start(cold_spec, Path(folder)) for _ in range(options.cold_starts)]
    print(
        f"start of a {options.arch} machine: median of {len(warm)} starts from the snapshot, "
        f"of {len(cold)} cold boots"
    )
    print(f"{'until':30} {'snapshot':>10} {'cold boot':>10} {'ratio':>8}")
    for label, name in (
        ("the guest is ready", "ready_s"),
        ("its SSH server speaks", "banner_s"),
        ("a session is open", "session_s"),
    ):
        warm_s, cold_s = (
            statistics.median(getattr(times, name) for times in group) for group in (warm, cold)
        )
        print(
            f"{label:30} {warm_s * 1e3:7.0f} ms {cold_s * 1e3:7.0f} ms {'1/' + format(cold_s / warm_s, '.1f'):>8}"
        )
    ratio = statistics.median(t.ready_s for t in warm) / statistics.median(t.ready_s for t in cold)
    print(f"goal, ready at most 1/{1 / GOAL:.0f} of a cold boot: {'met' if ratio <= GOAL else 'MISSED'}")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
