"""A connection to a peer that may send without end: what a library would keep of it is bounded."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

# SSH's own limit is 35,000 bytes (RFC 4253, 6.1).
_PACKET_BYTES_MAX = 1 << 18
# A key exchange and a log-in take some 5 KB.
_HANDSHAKE_BYTES_MAX = 1 << 20
# What paramiko lets a peer send before it was read is 2 MiB a channel; it does not see to it that the peer obeys.
_UNREAD_BYTES_MAX = 8 << 20


class BoundedSocket(socket.socket):
    """A socket for paramiko, whose thread reads whatever comes, packet by packet.

    Attributes:
        unread_bytes: Tells how much was received and not read yet; None while the connection is made.
    """

    def __init__(self, connected: socket.socket) -> None:
        """Takes the connection over."""
        timeout_s = connected.gettimeout()
        super().__init__(fileno=connected.detach())
        self.settimeout(timeout_s)
        self.unread_bytes: Callable[[], int] | None = None
        self._handshake_bytes = 0

    def recv(self, n_bytes: int, flags: int = 0, /) -> bytes:
        """As ever. paramiko asks for all that is still to come of a packet.

        Raises:
            OSError: also when the peer sends more than anybody keeps for it.
        """
        if n_bytes > _PACKET_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, f"the guest announced a packet of {n_bytes} bytes")
        data = super().recv(n_bytes, flags)
        if self.unread_bytes is None:
            self._handshake_bytes += len(data)
            if self._handshake_bytes > _HANDSHAKE_BYTES_MAX:
                raise OSError(errno.EMSGSIZE, "the guest talks without end before it says who it is")
        elif self.unread_bytes() > _UNREAD_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, "the guest sent more than it was allowed to")
        return data
