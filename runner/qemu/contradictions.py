"""Settings of guests that cannot all be had at once."""

from __future__ import annotations

from runner.errors import UsageError
from runner.qemu.architectures import architecture
from runner.qemu.command import GENODE_PORT
from runner.specs import CPU_MIPS, Clock, QemuSpec, Reach


def check_spec(spec: QemuSpec) -> None:
    """Refuse settings that contradict each other.

    Raises:
        UsageError: naming the key, why it cannot be, and what to write instead.
    """
    if spec.clock is Clock.ICOUNT and spec.vcpus != 1:
        raise UsageError(
            f"clock=icount takes exactly one virtual CPU, not {spec.vcpus}: all CPUs of a guest share one "
            "instruction counter, so each would run slower the more there are, and nothing would repeat",
            where="machines.qemu.vcpus",
            next_step="set machines.qemu.vcpus=1, or for several CPUs machines=host_clock (machines.qemu.clock=host)",
        )
    if spec.clock is Clock.HOST and spec.reach is Reach.MAILBOX:
        raise UsageError(
            "the mailbox is for clock=icount: under the host's clock a guest that stands still loses time",
            where="machines.session",
            next_step="choose machines=host_clock, whose session goes over SSH",
        )
    if spec.genode_port is not None and spec.reach is Reach.MAILBOX:
        raise UsageError(
            "a guest with a mailbox hears nothing else, so it is no Genode host",
            where="machines.qemu.genode_port",
            next_step="choose machines=host_clock or machines=ssh, whose guests have a network, or set it to null",
        )
    if spec.cpu_mips not in CPU_MIPS:
        raise UsageError(
            f"there is no processor of {spec.cpu_mips:g} MIPS: an instruction takes a power of two of nanoseconds",
            where="machines.qemu.cpu_mips",
            next_step=f"choose one of: {', '.join(f'{mips:g}' for mips in CPU_MIPS)}",
        )
    if spec.reach is Reach.MAILBOX and not (spec.mailbox_mib >= 1 and spec.mailbox_mib.bit_count() == 1):
        raise UsageError(
            f"a mailbox of {spec.mailbox_mib} MiB cannot be mapped: its size must be a power of two",
            where="machines.qemu.mailbox_mib",
            next_step="set 1, 2, 4 …; 64 hold a million jobs",
        )
    if spec.bridged:
        _check_ports(spec)
    if spec.vcpus < 1:
        raise UsageError(
            f"{spec.vcpus} virtual CPUs are too few", where="machines.qemu.vcpus", next_step="set at least 1"
        )
    least_mib = architecture(spec.arch).min_memory_mib
    if spec.memory_mib < least_mib:
        raise UsageError(
            f"{spec.memory_mib} MiB of memory are too few for the guest to boot",
            where="machines.qemu.memory_mib",
            next_step=f"set at least {least_mib}",
        )


def _check_ports(spec: QemuSpec) -> None:
    """On a bridge."""
    if spec.ssh_port is not None:
        raise UsageError(
            f"machines.qemu.ssh_port is {spec.ssh_port}, but guests on a bridge have addresses of their own, and no forwarded port",
            where="machines.qemu.ssh_port",
            next_step="set it to null, or machines/network=user",
        )
    if spec.genode_port not in (None, GENODE_PORT):
        raise UsageError(
            f"machines.qemu.genode_port is {spec.genode_port}, but on a bridge nothing is forwarded: machines are at their own "
            f"addresses, port {GENODE_PORT}",
            where="machines.qemu.genode_port",
            next_step=f"set it to {GENODE_PORT}, or machines/network=user",
        )
