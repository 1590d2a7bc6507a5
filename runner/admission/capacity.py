"""How many machines this computer can bear now, and whether there is room for results: pure, from readings to a decision."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import HostError, HostShortage

MIB = 1 << 20
#: Descriptors that the runner itself needs beside those of its machines: logs, data set, status, control file.
_SPARE_DESCRIPTORS = 64
#: Files that a run still makes when nothing new is started: status, journals, a log.
_SPARE_INODES = 64
#: What has to be free beyond the reserve before it goes on: as much again, a quarter of it.
_BACK = 1.25
#: Room beyond a machine's need before it is started again: half of another one.
_SLACK = 0.5


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a machine takes of this computer at most; a machine without a guest takes next to nothing.

    Attributes:
        memory_bytes: Of memory, its mailbox and its emulators included.
        descriptors: File descriptors of the runner.
        first_port: The first machine's port on the loopback interface, the nth takes the nth from there; None: none is fixed.
    """

    memory_bytes: int = 0
    descriptors: int = 0
    first_port: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reserves:
    """What is left to everybody else on this computer.

    Attributes:
        memory_mib: Memory that stays available.
        disk_mib: Free space of the run folder's file system below which no further task set is started.
        computer_limit: Machines at most on this computer, of all runs that name such a limit; None: this one does not count.
    """

    memory_mib: int = 256
    disk_mib: int = 64
    computer_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Readings:
    """This computer at one instant.

    Attributes:
        memory_total_bytes: All there is, or may be used.
        memory_available_bytes: What can be had without swapping.
        memory_used_bytes: What the machines have of their own already; they need no more than the rest.
        descriptors: How many more the runner may open.
        disk_total_bytes: Size of the run folder's file system.
        disk_free_bytes: What is free there.
        inodes: How many more files fit; None where nothing limits them.
        n_machines: Machines that there are.
    """

    memory_total_bytes: int
    memory_available_bytes: int
    memory_used_bytes: int = 0
    descriptors: int
    disk_total_bytes: int
    disk_free_bytes: int
    inodes: int | None = None
    n_machines: int = 0


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What may be done.

    Attributes:
        n_machines: How many machines there may be; None: as many as wanted.
        why: What limits them, in half a sentence; empty if nothing does.
        held: Why no further task set may be started; empty if it may.
    """

    n_machines: int | None = None
    why: str = ""
    held: str = ""


def refuse(readings: Readings, needs: Needs, reserves: Reserves) -> None:
    """Tell what can never be, however long one waits.

    Raises:
        HostError: not even one machine fits into this computer, or the disk is smaller than the reserve.
    """
    if needs.memory_bytes > readings.memory_total_bytes:
        raise HostError(
            f"a machine needs {_mib(needs.memory_bytes)} of memory, this computer has {_mib(readings.memory_total_bytes)}"
            " for it",
            where="machines.qemu.memory_mib",
            next_step="lower machines.qemu.memory_mib or machines.qemu.mailbox_mib, or allow this process more memory",
        )
    if reserves.disk_mib * MIB > readings.disk_total_bytes:
        raise HostError(
            f"{reserves.disk_mib} MiB are to stay free on the run folder's disk, which holds"
            f" {_mib(readings.disk_total_bytes)} in all",
            where="machines.admission.disk_reserve_mib",
            next_step="lower machines.admission.disk_reserve_mib, or choose another place: hydra.run.dir=/path/with/room",
        )


def decide(
    readings: Readings, needs: Needs, reserves: Reserves, before: Admission | None = None
) -> Admission:
    """How many machines there may be, and whether the disk has room.

    Memory: what is available, and what the machines have already, less the reserve, is shared out; a machine counts with
    all that it may ever take (`Needs`). So the sum of what was promised fits, and what a machine takes of it changes nothing.
    One machine is always allowed, for there is no smaller run. Fewer at once, more only with room to spare (half a
    machine, a quarter of the disk's reserve): what sways within that changes nothing.

    Args:
        before: What was decided last.
    """
    limits = []
    if needs.memory_bytes:
        to_share = readings.memory_available_bytes + readings.memory_used_bytes - reserves.memory_mib * MIB
        n = _share(to_share, needs.memory_bytes, before)
        why = (
            f"memory for {n}: {_mib(readings.memory_available_bytes)} are available and {_mib(readings.memory_used_bytes)} in"
            f" use by machines, each needs {_mib(needs.memory_bytes)}, {reserves.memory_mib} MiB are reserved"
            " (machines.qemu.memory_mib, machines.admission.memory_reserve_mib)"
        )
        limits.append((n, why))
    if needs.descriptors:
        to_share = readings.descriptors + readings.n_machines * needs.descriptors - _SPARE_DESCRIPTORS
        n = _share(to_share, needs.descriptors, before)
        limits.append(
            (
                n,
                f"descriptors for {n}: {readings.descriptors} are left, each needs {needs.descriptors} (ulimit -n)",
            )
        )
    held = _held(readings, reserves, was_held=before is not None and bool(before.held))
    n_machines, why = min(limits, default=(None, ""))
    return Admission(n_machines=n_machines, why=why, held=held)


def _share(to_share: int, need: int, before: Admission | None) -> int:
    """How often the need goes into it, at least once."""
    n = max(1, to_share // need)
    if before is None or before.n_machines is None or n <= before.n_machines:
        return n
    return max(before.n_machines, int(to_share - _SLACK * need) // need)


def _held(readings: Readings, reserves: Reserves, *, was_held: bool) -> str:
    factor = _BACK if was_held else 1.0
    least_bytes, least_inodes = reserves.disk_mib * MIB * factor, _SPARE_INODES * factor
    if readings.disk_free_bytes < least_bytes:
        return (
            f"the run folder's disk has {_mib(readings.disk_free_bytes)} free, {reserves.disk_mib} MiB are reserved"
            " (machines.admission.disk_reserve_mib)"
        )
    if readings.inodes is not None and readings.inodes < least_inodes and reserves.disk_mib:
        return f"the run folder's disk takes {readings.inodes} more files only"
    return ""


def port_taken(port: int, number: int, holder: str) -> HostShortage:
    """The error that says so.

    Args:
        number: Of the machine that needs it.
        holder: Who has it; empty if nobody can tell.
    """
    return HostShortage(
        f"port {port} of 127.0.0.1, which machine {number} needs, is in use"
        + (f" by {holder}" if holder else ""),
        where="machines.qemu.ssh_port",
        next_step="choose another first port, or machines.qemu.ssh_port=null for ports that are free",
    )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB"
