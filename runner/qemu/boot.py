"""How a guest gets ready: cold, cold with a snapshot made of it, or from that snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, GuestDied, ProtocolError
from runner.qemu.berth import Berth
from runner.qemu.command import Hardware, KernelBoot, SnapshotRestore, build_command
from runner.qemu.emulator import Emulator
from runner.qemu.killswitch import KillSwitch
from runner.qemu.snapshot import Snapshot

# The guest's init writes 2 ("crash loaded") into the pvpanic device when its SSH server listens.
_READY = "GUEST_CRASHLOADED"

# RAM stays in the file that backs it; only the devices' state (370 KB) goes through the channel.
_CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]

_WITHOUT_SNAPSHOT = "machines.qemu.snapshot=false boots cold each time"

# In bytes per second. QEMU would otherwise hold back at 128 MiB/s, a limit meant for networks.
_NO_BANDWIDTH_LIMIT = 1 << 50


class SnapshotRefused(Exception):
    """QEMU does not load this snapshot: it is damaged, or of another QEMU."""


def boot(
    berth: Berth, hardware: Hardware, start: KernelBoot, deadline: Deadline, switch: KillSwitch
) -> Emulator:
    """Boot a kernel until the guest reports ready, and pause it there.

    Raises:
        HostError: QEMU cannot run the guest here.
        BootFailed: the guest did not get ready in time, or ended.
        MachineKilled: the switch was pulled.
    """
    with ExitStack() as half_built, _deaths_as_boot_failures():
        emulator = Emulator(berth, partial(build_command, hardware, start), deadline, switch)
        half_built.enter_context(emulator)
        emulator.execute("cont")
        emulator.wait_for({_READY}, deadline, goal="the guest to report ready")
        emulator.execute("stop")
        half_built.pop_all()
    return emulator


def save(emulator: Emulator, state: Path, deadline: Deadline) -> None:
    """Write a paused guest's device state to a new file; its RAM is in the file that it was booted with.

    Raises:
        OSError: the file cannot be made.
        BootFailed: QEMU could not do it.
        MachineKilled: the emulator's switch was pulled.
    """
    with _deaths_as_boot_failures(next_step=_WITHOUT_SNAPSHOT):
        emulator.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
        emulator.execute("migrate-set-parameters", max_bandwidth=_NO_BANDWIDTH_LIMIT)
        fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            emulator.send_fd(fd, "state")
        finally:
            os.close(fd)
        emulator.execute("migrate", uri="fd:state")
        if not _migrated(emulator, deadline, goal="QEMU to save the guest's state"):
            raise BootFailed(
                f"{emulator.berth.name}: QEMU could not save the guest's state",
                evidence=emulator.berth.evidence(),
                log_path=emulator.berth.stderr_log,
                next_step=_WITHOUT_SNAPSHOT,
            )


def restore(
    berth: Berth, hardware: Hardware, snapshot: Snapshot, deadline: Deadline, switch: KillSwitch
) -> Emulator:
    """Bring a saved guest back, paused where it was saved; the snapshot is not changed.

    Raises:
        SnapshotRefused: QEMU did not load it.
        HostError: QEMU cannot run the guest here.
        BootFailed: it took too long.
        MachineKilled: the switch was pulled.
    """
    start = SnapshotRestore(snapshot.ram)
    with ExitStack() as half_built:
        emulator = Emulator(berth, partial(build_command, hardware, start), deadline, switch)
        half_built.enter_context(emulator)
        try:
            loaded = _load(emulator, snapshot.state, deadline)
        except (GuestDied, ProtocolError, OSError) as exc:
            raise SnapshotRefused(str(exc)) from exc
        if not loaded:
            raise SnapshotRefused(berth.evidence())
        half_built.pop_all()
    return emulator


def _load(emulator: Emulator, state: Path, deadline: Deadline) -> bool:
    emulator.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
    # Whatever a restored guest announced would arrive at a time that the host picks.
    emulator.execute("migrate-set-parameters", announce_rounds=0)
    fd = os.open(state, os.O_RDONLY)
    try:
        emulator.send_fd(fd, "state")
    finally:
        os.close(fd)
    emulator.execute("migrate-incoming", uri="fd:state")
    return _migrated(emulator, deadline, goal="QEMU to load the snapshot")


def _migrated(emulator: Emulator, deadline: Deadline, *, goal: str) -> bool:
    while True:
        _, data = emulator.wait_for({"MIGRATION"}, deadline, goal=goal)
        match data.get("status"):
            case "completed":
                return True
            case "failed" | "cancelled":
                return False


@contextmanager
def _deaths_as_boot_failures(next_step: str = "") -> Iterator[None]:
    """While it boots, a guest that dies or a QEMU that refuses is a boot that failed."""
    try:
        yield
    except (GuestDied, ProtocolError) as exc:
        raise BootFailed(
            exc.what,
            where=exc.where,
            evidence=exc.evidence,
            log_path=exc.log_path,
            next_step=exc.next_step or next_step,
        ) from exc
