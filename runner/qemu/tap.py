"""Taps: how a guest's network card gets onto a bridge of this computer."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

from runner.errors import HostError

TUN_DEVICE = Path("/dev/net/tun")
# By Python's full name: sudo finds another one, without our packages.
_CREATE = f"sudo {sys.executable} -m host_setup network create, with the same settings"

# linux/if_tun.h, linux/if.h
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFREQ = struct.Struct("=16sH22x")


def open_tap(name: str) -> int:
    """A descriptor by which one process sends and receives a tap's packets; the caller's to close.

    QEMU is handed it open: the user that it runs as may not be allowed to open taps, and its sandbox lets it ask for no rights.

    Raises:
        HostError: there is no such tap, it is not this user's, or another process has it.
    """
    try:
        # Root would make a new one, which leads nowhere.
        socket.if_nametoindex(name)
    except OSError:
        raise HostError(
            f"there is no tap {name} on this computer", where="machines.network", next_step=_CREATE
        ) from None
    fd = -1
    try:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
        raise HostError.because(
            exc, f"the tap {name} cannot be used", where="machines.network", next_step=_advice(exc)
        ) from exc
    return fd


def _advice(exc: OSError) -> str:
    match exc.errno:
        case errno.EBUSY:
            return "another run or program has it: end that, or set another machines.network.tap_prefix"
        case errno.EPERM:
            return f"it is not this user's: {_CREATE}, as the user that runs python -m runner"
        case errno.EACCES:
            return f"{TUN_DEVICE} is closed to this user: sudo chmod 666 {TUN_DEVICE}"
        case errno.ENOENT | errno.ENODEV:
            return "this kernel has no taps: sudo modprobe tun"
        case _:
            return "python -m host_setup network check machines/network=bridge"
