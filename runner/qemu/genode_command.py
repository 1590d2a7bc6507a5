"""QEMU's command line for Genode's board, as a list, built by a pure function."""

from __future__ import annotations

from pathlib import Path

from runner.errors import HostError, UsageError
from runner.genode import PORT
from runner.qemu.command import Wiring, console_options, escaped
from runner.specs import CPU_MIPS, Clock, GenodeSpec

_MACHINE = "realview-pbx-a9"
_CPUS_MAX = 4
_MEMORY_MAX_MIB = 1024


def check_genode_spec(spec: GenodeSpec) -> None:
    """Refuse what contradicts itself or is not there.

    Raises:
        UsageError: the settings.
        HostError: the image.
    """
    if not 1 <= spec.vcpus <= (1 if spec.clock is Clock.ICOUNT else _CPUS_MAX):
        raise UsageError(
            f"{_MACHINE} with clock={spec.clock} cannot have {spec.vcpus} processors",
            where="machines.genode.vcpus",
            next_step="set 1 … 4, or exactly 1 with clock=icount: all would share one instruction counter",
        )
    if not 64 <= spec.memory_mib <= _MEMORY_MAX_MIB:
        raise UsageError(
            f"{_MACHINE} cannot have {spec.memory_mib} MiB of memory",
            where="machines.genode.memory_mib",
            next_step=f"set 64 … {_MEMORY_MAX_MIB}",
        )
    if spec.cpu_mips not in CPU_MIPS:
        raise UsageError(
            f"there is no processor of {spec.cpu_mips:g} MIPS: an instruction takes a power of two of nanoseconds",
            where="machines.genode.cpu_mips",
            next_step=f"choose one of: {', '.join(f'{mips:g}' for mips in CPU_MIPS)}",
        )
    try:
        with spec.image.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise HostError(
            f"the Genode image cannot be read: {exc}",
            where="machines.genode.image",
            next_step="name the image.elf that your Genode build made: machines.genode.image=/path/image.elf",
        ) from exc
    if magic != b"\x7fELF":
        raise HostError(
            f"{spec.image} is no ELF file",
            where="machines.genode.image",
            next_step="name the image.elf that your Genode build made",
        )


def build_genode_command(binary: Path, spec: GenodeSpec, image: Path, wiring: Wiring) -> list[str]:
    """The command that starts one guest, standing still until QMP says `cont`. Equal arguments give equal commands."""
    return [
        *(str(binary), "-name", escaped(wiring.name), "-S"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # The board has a sound card, and this computer may have none.
        *("-audiodev", "none,id=audio"),
        *("-M", _MACHINE, "-accel", "tcg", "-smp", str(spec.vcpus), "-m", str(spec.memory_mib)),
        *_clock(spec),
        *("-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *console_options(wiring),
        *("-serial", "chardev:console"),
        *_network(wiring),
        *("-kernel", str(image)),
    ]


def _clock(spec: GenodeSpec) -> list[str]:
    if spec.clock is Clock.HOST:
        return ["-rtc", "base=utc,clock=host"]
    # sleep=on: the guest's network must survive, and idle time that was skipped would outrun it.
    return ["-icount", f"shift={spec.icount_shift},align=off,sleep=on", "-rtc", "base=utc,clock=vm"]


def _network(wiring: Wiring) -> list[str]:
    if wiring.tap_fd is not None:
        return ["-nic", f"tap,id=net,fd={wiring.tap_fd},model=lan9118,mac={wiring.mac}"]
    # restrict=on cuts the guest off from everything but the forwarded port; it still gets an address.
    forward = f"hostfwd=tcp:127.0.0.1:{wiring.ssh_port or 0}-:{PORT}"
    return ["-nic", f"user,id=net,restrict=on,ipv6=off,model=lan9118,{forward}"]
