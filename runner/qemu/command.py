"""QEMU's command line, as a list, built by a pure function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.qemu.architectures import Architecture
from runner.specs import Accelerator, Clock, QemuSpec, Reach

# Every guest wakes up on the same day; any other would do.
_VIRTUAL_EPOCH = "2024-01-01T00:00:00"

# Where Genode's task loader listens in its guests, and ours when it takes its place.
GENODE_PORT = 3001

# What makes one boot like the other (no random addresses), fast (no mitigations, few messages, no memory set
# aside for DMA) and honest (a panic ends the guest at once). `quiet` keeps errors and panics on the console.
_KERNEL_ARGS = (
    "nokaslr",
    "norandmaps",
    "mitigations=off",
    "cma=0",
    "quiet",
    "panic=-1",
    # Self-tests of the kernel's ciphers take two thirds of arm64's boot.
    "cryptomgr.notests",
    # Pressure accounting adds a tenth to every wake-up.
    "psi=0",
    # A random stack offset per system call costs 80 µs a call instead of 3.5 while the guest's random pool is unseeded.
    "randomize_kstack_offset=off",
)

# What QEMU itself, and with it a guest that has broken out of its emulation, may not ask of the kernel any more: to become
# another user, to start a program, to give itself more of the computer.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# Where the guest's network must survive. An idle guest under sleep=off races through virtual time, 800 to 2,000 times as
# fast as the wall's, and through the time that its SSH server grants for a log-in: a client that dawdled was thrown out
# after 0.6 s. The periodic tick slows the race to 60 to 90 times (7.9 s). All measured. With a mailbox the guest does not
# run while it has nothing to do, and is faster without the tick.
_RACING_KERNEL_ARGS = ("nohz=off",)

# Of the guest's time, for which a guest on a bridge waits for an answer of the DHCP server before it asks again. Under icount an
# idle guest's minute passes in 60 ms to a second of real time.
_DHCP_RETRY_S = {Clock.ICOUNT: 60, Clock.HOST: 2}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """An emulated computer: what the guest sees, and what emulates it.

    Attributes:
        binary: QEMU.
        spec: The settings.
        arch: The row that `spec.arch` names.
        accel: How guest code is executed.
    """

    binary: Path
    spec: QemuSpec
    arch: Architecture
    accel: Accelerator


@dataclass(frozen=True)
class KernelBoot:
    """Boot a kernel.

    Attributes:
        kernel: The kernel's file.
        initrd: The initial RAM disk's file.
        kernel_args: Appended to the usual ones.
        ram: Keep the guest's RAM in this memory, to make a snapshot of it; None keeps it in memory of QEMU's own.
    """

    kernel: Path
    initrd: Path
    kernel_args: tuple[str, ...] = ()
    ram: Path | None = None


@dataclass(frozen=True)
class SnapshotRestore:
    """Wait for a booted snapshot's device state, over a copy-on-write map of its RAM.

    Attributes:
        ram: What holds the RAM; it is not changed.
    """

    ram: Path


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """How one QEMU process is tied to its owner; nothing that the guest could see, but for the address of a card on a bridge.

    Attributes:
        name: The machine's name, for `ps`.
        qmp_fd: Number of the inherited socket on which QEMU speaks QMP.
        console_log: File that receives everything the console shows, after what it holds already.
        console_fd: Number of the inherited descriptor by which QEMU writes it, who may not be allowed to open it; None has
            QEMU open the file.
        ssh_port: Loopback port that leads to the guest's SSH server; 0 takes a free one, None forwards nothing.
        genode_port: Loopback port that leads to the guest's Genode task loader; None forwards nothing.
        mailbox: File that is the mailbox's memory; None where the guest has no mailbox.
        tap_fd: Number of the inherited descriptor of a tap; None where the guest is on no bridge.
        mac: Address of its card on the bridge.
    """

    name: str
    qmp_fd: int
    console_log: Path
    console_fd: int | None = None
    ssh_port: int | None = None
    genode_port: int | None = None
    mailbox: Path | None = None
    tap_fd: int | None = None
    mac: str = ""


def build_command(hardware: Hardware, start: KernelBoot | SnapshotRestore, wiring: Wiring) -> list[str]:
    """The command that starts one guest, standing still until QMP says `cont`.

    Guarantees: equal arguments give equal commands. Between making and restoring a snapshot only those
    options differ that the guest cannot see.
    """
    return [
        *(str(hardware.binary), "-name", escaped(wiring.name), "-S"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-seed", "1"),
        *_machine(hardware, start),
        *_clock(hardware.spec),
        *_devices(wiring),
        *_network(hardware.spec, wiring),
        *_mailbox(hardware.spec, wiring),
        *_boot(hardware, start),
    ]


def sandboxed(command: Sequence[str]) -> list[str]:
    """A command of QEMU's, with the sandbox on, which the guest cannot see."""
    binary, *options = command
    return [binary, "-sandbox", _SANDBOX, *options]


def normal_command(hardware: Hardware, kernel_args: tuple[str, ...] = ()) -> str:
    """What makes the emulated computer, as text: equal where the commands differ only in what the guest cannot see."""
    mailbox = Path("mailbox") if hardware.spec.reach is Reach.MAILBOX else None
    wiring = Wiring(name="guest", qmp_fd=0, console_log=Path("console.log"), mailbox=mailbox)
    ram = Path("ram")
    made = KernelBoot(Path("kernel"), Path("initrd"), kernel_args, ram=ram)
    anywhere = replace(hardware, binary=Path("qemu"))
    return json.dumps([build_command(anywhere, start, wiring) for start in (made, SnapshotRestore(ram))])


def snapshot_key(hardware: Hardware, kernel: KernelBoot, image_identity: str) -> str:
    """16 hexadecimal digits that change with everything that a booted snapshot depends on.

    That is QEMU, the image, and the commands that make and restore it, whatever their options may be tomorrow.
    """
    binary = hardware.binary.resolve()
    status = binary.stat()
    identity = [image_identity, str(binary), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(
        json.dumps([identity, normal_command(hardware, kernel.kernel_args)]).encode()
    ).hexdigest()[:16]


def _machine(hardware: Hardware, start: KernelBoot | SnapshotRestore) -> list[str]:
    memory = f"{hardware.spec.memory_mib}M"
    ram = f"id=ram,size={memory}"
    match start:
        case SnapshotRestore(ram=path):
            backend = f"memory-backend-file,{ram},share=off,mem-path={escaped(path)}"
        case KernelBoot(ram=Path() as path):
            backend = f"memory-backend-file,{ram},share=on,mem-path={escaped(path)}"
        case KernelBoot():
            backend = f"memory-backend-ram,{ram}"
    return [
        *("-machine", f"{hardware.arch.machine},memory-backend=ram", "-object", backend, "-m", memory),
        *("-accel", hardware.accel.value),
        *("-cpu", "host" if hardware.accel is Accelerator.KVM else hardware.arch.cpu),
        *("-smp", str(hardware.spec.vcpus)),
    ]


def _clock(spec: QemuSpec) -> list[str]:
    if spec.clock is Clock.HOST:
        return ["-rtc", "base=utc,clock=host"]
    # sleep=off skips idle time instead of waiting it out, which would let the host's timing in.
    return [
        *("-icount", f"shift={spec.icount_shift},align=off,sleep=off"),
        *("-rtc", f"base={_VIRTUAL_EPOCH},clock=vm"),
    ]


def _devices(wiring: Wiring) -> list[str]:
    return [
        # The bell that the guest rings when it is ready.
        *("-device", "pvpanic-pci"),
        *("-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *console_options(wiring),
        *("-serial", "chardev:console"),
    ]


def console_options(wiring: Wiring) -> list[str]:
    """A terminal that anybody may attach to, and the log of all that it shows."""
    if wiring.console_fd is None:
        return ["-chardev", f"pty,id=console,logfile={escaped(wiring.console_log)},logappend=on"]
    return [
        # The file's name is for whoever looks at the processes of this computer.
        *("-add-fd", f"fd={wiring.console_fd},set=1,opaque={escaped(wiring.console_log)}"),
        *("-chardev", "pty,id=console,logfile=/dev/fdset/1,logappend=on"),
    ]


def _network(spec: QemuSpec, wiring: Wiring) -> list[str]:
    """A guest that is asked through its mailbox has no card, unless somebody wants to log in: QEMU's user-mode network
    sends packets of its own at times of the host's, and one boot of four came out differently for them.
    """
    if spec.bridged:
        # Without a tap: what the emulated computer is, for whoever compares.
        tap = "" if wiring.tap_fd is None else f",fd={wiring.tap_fd}"
        card = f"virtio-net-pci,netdev=net,mac={wiring.mac},guest_announce=off,romfile="
        return ["-netdev", f"tap,id=net{tap}", "-device", card]
    if spec.reach is Reach.MAILBOX and spec.ssh_port is None:
        return []
    ports = ((wiring.ssh_port, 22), (wiring.genode_port, GENODE_PORT))
    forward = "".join(
        f",hostfwd=tcp:127.0.0.1:{ours}-:{theirs}" for ours, theirs in ports if ours is not None
    )
    return [
        # restrict=on cuts the guest off from everything but the forwarded ports; nobody speaks IPv6.
        *("-netdev", f"user,id=net,restrict=on,ipv6=off{forward}"),
        # A restored guest that announced itself would talk at a time that the host picks. No option ROM: nobody boots from the card.
        *("-device", "virtio-net-pci,netdev=net,guest_announce=off,romfile="),
    ]


def _mailbox(spec: QemuSpec, wiring: Wiring) -> list[str]:
    if wiring.mailbox is None:
        return []
    backend = f"id=mailbox,size={spec.mailbox_mib}M,share=on,prealloc=off,mem-path={escaped(wiring.mailbox)}"
    return [
        *("-object", f"memory-backend-file,{backend}"),
        # master=on: a peer's memory could not be left out of a snapshot.
        *("-device", "ivshmem-plain,memdev=mailbox,master=on"),
        # Counts in guest time, and is armed by the task loader: a guest that hangs ends itself.
        *("-device", "i6300esb"),
        # The guest stands still from the very instruction that rings the bell.
        *("-action", "panic=pause,watchdog=pause"),
    ]


def _boot(hardware: Hardware, start: KernelBoot | SnapshotRestore) -> list[str]:
    if isinstance(start, SnapshotRestore):
        return ["-incoming", "defer"]
    spec = hardware.spec
    kernel_args = (
        f"console={hardware.arch.console}",
        *_KERNEL_ARGS,
        *(_RACING_KERNEL_ARGS if spec.clock is Clock.ICOUNT and spec.reach is not Reach.MAILBOX else ()),
        *((f"rtfleet.dhcp_retry_s={_DHCP_RETRY_S[spec.clock]}",) if spec.bridged else ()),
        *((f"rtfleet.genode={GENODE_PORT}",) if spec.serves_genode else ()),
        *hardware.arch.kernel_args,
        *(hardware.arch.host_clock_args if spec.clock is Clock.HOST else ()),
        *start.kernel_args,
    )
    return ["-kernel", str(start.kernel), "-initrd", str(start.initrd), "-append", " ".join(kernel_args)]


def escaped(value: str | Path) -> str:
    """The text as part of a QEMU option, where a comma separates and two stand for one."""
    return str(value).replace(",", ",,")
