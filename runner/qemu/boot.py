"""How a guest gets ready: cold, cold with a snapshot made of it, or from that snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from runner.deadline import Deadline
from runner.errors import BootFailed, Fault, GuestDied, ProtocolError
from runner.files.private import write_private
from runner.mailbox import NoReply, read_hello
from runner.qemu.berth import Berth
from runner.qemu.command import Hardware, KernelBoot, SnapshotRestore, build_command
from runner.qemu.confinement import for_qemu
from runner.qemu.emulator import Emulator
from runner.qemu.killswitch import KillSwitch
from runner.qemu.qmp import Command
from runner.qemu.saved_state import loadable
from runner.qemu.shared_memory import COPIES, MailboxMemory, Memory
from runner.qemu.snapshot import Snapshot
from runner.specs import Accelerator, Reach

#: The QMP event by which a guest says that it is ready: bit 2 of its pvpanic device, written by init when the SSH server
#: listens; or, where there is a mailbox, bit 1, written by the task loader, at which QEMU pauses the guest then and there.
BELLS: Mapping[Reach, str] = MappingProxyType(
    {Reach.SSH: "GUEST_CRASHLOADED", Reach.GENODE: "GUEST_CRASHLOADED", Reach.MAILBOX: "GUEST_PANICKED"}
)

# RAM stays in the memory that backs it; only the devices' state (370 KB) goes through the channel.
_CAPABILITIES = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]},
)

_WITHOUT_SNAPSHOT = "machines.qemu.snapshot=false boots cold each time"

# In bytes per second. QEMU would otherwise hold back at 128 MiB/s, a limit meant for networks.
_NO_BANDWIDTH_LIMIT = 1 << 50


class SnapshotRefused(Exception):
    """QEMU does not load this snapshot: it is damaged, or of another QEMU."""


def boot(
    berth: Berth,
    hardware: Hardware,
    start: KernelBoot,
    deadline: Deadline,
    switch: KillSwitch,
    *,
    ram: Memory | None = None,
) -> Emulator:
    """Boot a kernel until the guest reports ready, and pause it there.

    Args:
        ram: Memory for the guest's RAM, to make a snapshot of it; None leaves that to QEMU.

    Raises:
        OSError: the image cannot be read.
        HostError: QEMU cannot run the guest here.
        BootFailed: the guest did not get ready in time, or ended.
        MachineKilled: the switch was pulled.
    """
    with ExitStack() as half_built, _deaths_as_boot_failures(), ExitStack() as held:
        kernel, initrd = (held.enter_context(COPIES.copy_of(path)) for path in (start.kernel, start.initrd))
        start = replace(start, kernel=kernel.path, initrd=initrd.path, ram=None if ram is None else ram.path)
        memories = [kernel, initrd] if ram is None else [kernel, initrd, ram]
        make = _emulator(hardware, start)
        emulator = half_built.enter_context(make(berth, deadline=deadline, switch=switch, memories=memories))
        emulator.execute("cont")
        emulator.wait_for({BELLS[hardware.spec.reach]}, deadline, goal="the guest to report ready")
        if berth.mailbox is None:
            emulator.execute("stop")
        else:
            _check_hello(emulator, berth.mailbox)
        half_built.pop_all()
    return emulator


def _emulator(hardware: Hardware, start: KernelBoot | SnapshotRestore) -> Callable[..., Emulator]:
    """Makes the QEMU of that hardware."""
    kvm = hardware.accel is Accelerator.KVM
    return partial(
        Emulator,
        build=partial(build_command, hardware, start),
        bell=BELLS[hardware.spec.reach],
        confinement=for_qemu(memory_mib=hardware.spec.memory_mib, kvm=kvm),
    )


def _check_hello(emulator: Emulator, memory: MailboxMemory) -> None:
    try:
        read_hello(memory.region)
    except NoReply as exc:
        raise BootFailed(
            f"{emulator.berth.name}: the guest gave up: its init could not make it ready",
            evidence=emulator.evidence(),
            log_path=emulator.berth.console_log,
        ) from exc


def save(emulator: Emulator, ram: Memory, snapshot: Snapshot, deadline: Deadline) -> None:
    """Write a paused guest's RAM, its device state, and what its mailbox holds, to new files.

    Args:
        ram: What it was booted with.

    Raises:
        OSError: the file cannot be made.
        BootFailed: QEMU could not do it.
        MachineKilled: the emulator's switch was pulled.
    """
    with _deaths_as_boot_failures(next_step=_WITHOUT_SNAPSHOT):
        if emulator.berth.mailbox is not None:
            write_private(snapshot.mailbox, emulator.berth.mailbox.content())
        fd = os.open(snapshot.state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            emulator.execute_all(
                _CAPABILITIES,
                Command("migrate-set-parameters", {"max-bandwidth": _NO_BANDWIDTH_LIMIT}),
                Command("getfd", {"fdname": "state"}, fd),
                Command("migrate", {"uri": "fd:state"}),
            )
        finally:
            os.close(fd)
        if not _migrated(emulator, deadline, goal="QEMU to save the guest's state"):
            raise BootFailed(
                f"{emulator.berth.name}: QEMU could not save the guest's state",
                evidence=emulator.berth.evidence(),
                log_path=emulator.berth.stderr_log,
                next_step=_WITHOUT_SNAPSHOT,
            )
        snapshot.state.write_bytes(loadable(snapshot.state.read_bytes()))
        ram.write_to(snapshot.ram)


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
    with ExitStack() as half_built, COPIES.copy_of(snapshot.ram) as ram:
        start = SnapshotRestore(ram.path)
        make = _emulator(hardware, start)
        emulator = half_built.enter_context(make(berth, deadline=deadline, switch=switch, memories=[ram]))
        try:
            if berth.mailbox is not None:
                berth.mailbox.refill(snapshot.mailbox.read_bytes())
            loaded = _load(emulator, snapshot.state, deadline)
        except (GuestDied, ProtocolError, OSError) as exc:
            raise SnapshotRefused(str(exc)) from exc
        if not loaded:
            raise SnapshotRefused(berth.evidence())
        half_built.pop_all()
    return emulator


def _load(emulator: Emulator, state: Path, deadline: Deadline) -> bool:
    fd = os.open(state, os.O_RDONLY)
    try:
        emulator.execute_all(
            _CAPABILITIES,
            # Whatever a restored guest announced would arrive at a time that the host picks.
            Command("migrate-set-parameters", {"announce-rounds": 0}),
            Command("getfd", {"fdname": "state"}, fd),
            Command("migrate-incoming", {"uri": "fd:state"}),
        )
    finally:
        os.close(fd)
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
            # No set runs yet whose doing it could be.
            fault=Fault.HOST if exc.fault is Fault.HOST else Fault.GUEST,
        ) from exc
