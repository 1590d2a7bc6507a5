"""All faults that there are."""

from __future__ import annotations

from runner.errors import UsageError
from runner.rehearsal.emulator_faults import MemoryRefused, QemuKilled, QemuStopped, QmpGone, SnapshotDamaged
from runner.rehearsal.fault import Fault
from runner.rehearsal.guest_faults import GarbageMessage, GuestHang, GuestPanic, LoaderKilled, TornMessage
from runner.rehearsal.host_faults import ClockJump, DatabaseDown, DiskFull
from runner.rehearsal.line_faults import SshBlackHole, SshReset
from runner.rehearsal.run_faults import (
    ControlGarbage,
    Interrupted,
    MonitorRaises,
    MonitorStuck,
    RunnerKilled,
    RunnerTerminated,
)

FAULTS: tuple[Fault, ...] = (
    QemuKilled(),
    QemuStopped(),
    QmpGone(),
    GuestPanic(),
    GuestHang(),
    LoaderKilled(),
    GarbageMessage(),
    TornMessage(),
    SshReset(),
    SshBlackHole(),
    SnapshotDamaged(),
    MemoryRefused(),
    DiskFull(),
    DatabaseDown(),
    ClockJump(),
    ControlGarbage(),
    MonitorRaises(),
    MonitorStuck(),
    RunnerKilled(),
    RunnerTerminated(),
    Interrupted(),
)


def named(names: str) -> tuple[Fault, ...]:
    """The faults of a list with commas; all for an empty one.

    Raises:
        UsageError: there is none of that name; lists those that there are.
    """
    known = {one.name: one for one in FAULTS}
    if not names:
        return FAULTS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"no fault is called {name!r}", where="--faults", next_step=f"choose of: {', '.join(known)}"
            )
    return tuple(known[name] for name in wanted)
