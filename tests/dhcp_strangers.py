"""A program for a network namespace: DHCP clients on an interface, of which the server knows only the last; written from RFC 2131."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress

DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
NAMES = {OFFER: "OFFER", ACK: "ACK", NAK: "NAK"}
BROADCAST = 0x8000
COOKIE = b"\x63\x82\x53\x63"
HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s192s4s")
STRANGER = bytes.fromhex("02000000aa01")
KNOWN = bytes.fromhex("0a0600000001")
PATIENCE_S = 2.0
TRIES = 30


def message(kind: int, card: bytes, wanted: str = "") -> bytes:
    """What a client that has no address yet says."""
    nothing = bytes(4)
    head = HEAD.pack(
        *(1, 1, 6, 0, 7, 0, BROADCAST), nothing, nothing, nothing, nothing, card.ljust(16, b"\0"), b"", COOKIE
    )
    asked = b"\x32\x04" + socket.inet_aton(wanted) if wanted else b""
    return head + bytes([53, 1, kind]) + asked + b"\xff"


SAID = (
    message(DISCOVER, STRANGER),
    message(REQUEST, STRANGER, "192.0.2.77"),
    message(REQUEST, STRANGER, "10.200.45.99"),
    message(DISCOVER, KNOWN),
)


def kind_of(answer: bytes) -> int:
    """The type is an option, and not necessarily the first."""
    options = answer[HEAD.size :]
    while options[0] != 53:
        options = options[2 + options[1] :]
    return options[2]


def main() -> None:
    """Print each answer until the known client has one: the server takes one message after the other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
        line.settimeout(PATIENCE_S)
        line.bind(("", 68))
        for _ in range(TRIES):
            for said in SAID:
                line.sendto(said, ("255.255.255.255", 67))
            # As clients do, it asks again: a bridge's new port may not pass the first packets on.
            with suppress(TimeoutError):
                while answered(line.recv(4096)) != KNOWN:
                    pass
                return
    sys.exit("no answer")


def answered(answer: bytes) -> bytes:
    """Print it; whom it is for."""
    fields = HEAD.unpack_from(answer)
    card: bytes = fields[11][:6]
    print(f"{NAMES[kind_of(answer)]} of {socket.inet_ntoa(fields[8])} to {card.hex(':')}", flush=True)
    return card


if __name__ == "__main__":
    main()
