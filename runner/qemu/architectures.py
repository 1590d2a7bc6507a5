"""One row per guest architecture: all that differs between them, from Debian's package names to QEMU's machine type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runner.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of guest.

    Attributes:
        name: Debian's name of the architecture; also ours.
        machine: QEMU's `-machine` value. No ACPI and no random seeds in the device tree: both made one boot differ from another.
        cpu: QEMU's `-cpu` under TCG. Real models rather than `max`, whose pointer authentication is emulated in software.
        qemu_binary: The emulator's name on the PATH.
        qemu_package: The Debian package that holds it.
        kernel_package: Metapackage whose dependency names the PREEMPT_RT kernel.
        compiler: The C compiler that builds for it on an amd64 host.
        compiler_packages: The Debian packages that hold compiler and static C library.
        console: The kernel's name of the serial console.
        kernel_args: Boot parameters that only this architecture needs.
        host_clock_args: And those that it needs besides where this computer's clock rules.
        kvm_host_machine: `platform.machine()` of hosts whose KVM could run it.
        min_memory_mib: The least RAM with which its kernel boots (measured).
    """

    name: str
    machine: str
    cpu: str
    qemu_binary: str
    qemu_package: str
    kernel_package: str
    compiler: str
    compiler_packages: tuple[str, ...]
    console: str
    kernel_args: tuple[str, ...]
    host_clock_args: tuple[str, ...]
    kvm_host_machine: str
    min_memory_mib: int


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        row.name: row
        for row in (
            Architecture(
                name="arm64",
                machine="virt,acpi=off,dtb-randomness=off,gic-version=3",
                cpu="cortex-a57",
                qemu_binary="qemu-system-aarch64",
                qemu_package="qemu-system-arm",
                kernel_package="linux-image-rt-arm64",
                compiler="aarch64-linux-gnu-gcc",
                compiler_packages=("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
                console="ttyAMA0",
                kernel_args=(),
                host_clock_args=(),
                kvm_host_machine="aarch64",
                min_memory_mib=64,
            ),
            Architecture(
                name="amd64",
                machine="q35",
                # Emulated, it boots a tenth faster than Haswell, whose wider registers cost; rdrand spares the first
                # SSH connection a wait for entropy (with -seed, QEMU's random numbers repeat as well).
                cpu="Westmere,+rdrand",
                qemu_binary="qemu-system-x86_64",
                qemu_package="qemu-system-x86",
                kernel_package="linux-image-rt-amd64",
                compiler="x86_64-linux-gnu-gcc",
                compiler_packages=("gcc", "libc6-dev"),
                console="ttyS0",
                kernel_args=("tsc=reliable",),
                # It would count timer interrupts for 40 ms, and panic where QEMU had to wait for a processor meanwhile.
                host_clock_args=("no_timer_check",),
                kvm_host_machine="x86_64",
                min_memory_mib=96,
            ),
        )
    }
)


def architecture(name: str) -> Architecture:
    """The row of that name.

    Raises:
        UsageError: when there is none; lists those that there are.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UsageError(
            f"no guest architecture is called {name!r}",
            where="machines.qemu.arch",
            next_step=f"choose one of: {', '.join(ARCHITECTURES)}",
        ) from None
