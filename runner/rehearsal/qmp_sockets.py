"""The sockets on which this process speaks to its emulators' monitors, found from outside of what owns them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct

# What follows is as in linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h.
_NETLINK_SOCK_DIAG, _BY_FAMILY, _DUMP, _DONE, _ERROR = 4, 20, 0x301, 3, 2
_HEADER = Struct("=IHHII")
_REQUEST = Struct("=BBHIIIII")
_FOUND = Struct("=BBBBIII")
_ATTRIBUTE = Struct("=HH")
_SHOW_PEER, _PEER = 4, 2
_ALL_STATES = 0xFFFFFFFF


def shut_monitors() -> int:
    """Shut down every connected pair of stream sockets of which only one end is here; how many there were.

    An emulator holds the other one: event loops, too, have such pairs, but hold both ends, and whoever has a stem speaks to it by
    packets.
    """
    own = dict(_own_stream_sockets())
    peers = dict(_peers())
    n_shut = 0
    for inode, fd in own.items():
        peer = peers.get(inode)
        if peer is None or peer in own:
            continue
        with socket.socket(fileno=os.dup(fd)) as monitor, suppress(OSError):
            monitor.shutdown(socket.SHUT_RDWR)
            n_shut += 1
    return n_shut


def _own_stream_sockets() -> Iterator[tuple[int, int]]:
    """Inode -> descriptor of each Unix stream socket without a name."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found = os.stat(int(name))
            if not stat.S_ISSOCK(found.st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                nameless = one.family == socket.AF_UNIX and not one.getsockname() and not one.getpeername()
                if nameless and one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM:
                    yield found.st_ino, int(name)


def _peers() -> Iterator[tuple[int, int]]:
    """Inode of every Unix socket of this computer -> that of its other end."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_PEER, 0, 0)
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                n_bytes, kind, *_ = _HEADER.unpack_from(data)
                if kind in (_DONE, _ERROR):
                    return
                yield from _peer_in(data[_HEADER.size : n_bytes])
                data = data[_aligned(n_bytes) :]


def _peer_in(message: bytes) -> Iterator[tuple[int, int]]:
    inode = _FOUND.unpack_from(message)[4]
    rest = message[_FOUND.size :]
    while len(rest) >= _ATTRIBUTE.size:
        n_bytes, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _PEER:
            yield inode, int.from_bytes(rest[4:8], "little")
        rest = rest[max(_ATTRIBUTE.size, _aligned(n_bytes)) :]


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // 4) * 4
