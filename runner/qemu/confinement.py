"""What an emulator may do on this computer, and as whom: nothing that a guest could use once it has broken out."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: The user that `python -m host_setup packages` makes for emulators, and whom else to take.
QEMU_USER = "rtfleet-qemu"
_ANY_USER = "nobody"

KVM_DEVICE = Path("/dev/kvm")

# Console and stderr are cut off there. The largest file that QEMU writes otherwise, its devices' state, has 370 KB.
_FILE_BYTES = 16 << 20

# Beside the guest's RAM: translated code takes 1 GiB of address space at most, devices and threads some 100 MiB.
_MEMORY_BYTES = 2 << 30

# One at rest has 20 to 30 open; each connection to a forwarded port is one more.
_N_OPEN = 256

# linux/capability.h: CAP_SETGID is bit 6, CAP_SETUID bit 7.
_MAY_CHANGE_USER = 3 << 6


@dataclass(frozen=True)
class Account:
    """A user of this computer.

    Attributes:
        name: As `ps` shows it.
        uid: Its number.
        gid: Its group's.
    """

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What a process may do. Whatever it says, no such process gains rights, leaves a core, or has many files open.

    Attributes:
        account: As whom it runs, without that user's other groups; None: as the runner does.
        group: The one group that it has beside its account's.
        file_bytes: No file that it writes gets longer: writing beyond that is an error. None bounds nothing.
        memory_bytes: How much memory of its own it can have. None bounds nothing.
        n_open: How many files it can have open.
    """

    account: Account | None = None
    group: int | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None
    n_open: int = _N_OPEN


#: Of a process that may do nearly all that the runner may.
UNCONFINED = Confinement()


def for_qemu(*, memory_mib: int = 0, kvm: bool = False) -> Confinement:
    """Of one QEMU.

    Args:
        memory_mib: The guest's RAM.
        kvm: Whether it needs KVM.
    """
    account = qemu_account()
    return Confinement(
        account=account,
        group=device_group(KVM_DEVICE, account) if kvm else None,
        file_bytes=_FILE_BYTES,
        memory_bytes=_MEMORY_BYTES + (memory_mib << 20),
    )


def qemu_account() -> Account | None:
    """As whom QEMU runs: as a user that owns nothing where the runner is root, as the runner itself (None) where it is not.

    None also where root cannot become anybody: in a container that knows but one user.
    """
    if os.geteuid() != 0:
        return None
    for name in (QEMU_USER, _ANY_USER):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            account = Account(name, entry.pw_uid, entry.pw_gid)
            return account if _can_become(account) else None
    return None


def _can_become(account: Account) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.M)
    capable = found is not None and int(found[1], 16) & _MAY_CHANGE_USER == _MAY_CHANGE_USER
    return capable and _mapped("uid_map", account.uid) and _mapped("gid_map", account.gid)


def _mapped(name: str, number: int) -> bool:
    """Whether this user namespace knows a user or a group: each line says from where, to where, how many."""
    rows = Path(f"/proc/self/{name}").read_text().splitlines()
    ranges = [(int(first), int(count)) for first, _, count in map(str.split, rows)]
    return any(first <= number < first + count for first, count in ranges)


def can_open(device: Path, account: Account | None) -> bool:
    """Whether a process of that account can be given the right to use a device."""
    if account is None:
        return os.access(device, os.R_OK | os.W_OK)
    return _opened_to_all(device) or device_group(device, account) is not None


def device_group(device: Path, account: Account | None) -> int | None:
    """The group that opens a device to that account; None where none does, or none is needed. Never root's own."""
    if account is None or _opened_to_all(device):
        return None
    try:
        status = device.stat()
    except OSError:
        return None
    return status.st_gid if status.st_gid != 0 and status.st_mode & 0o060 == 0o060 else None


def _opened_to_all(device: Path) -> bool:
    try:
        return device.stat().st_mode & 0o006 == 0o006
    except OSError:
        return False
