"""An image for Genode's board that says the same again and again: QEMU keeps nothing for who comes to a console later."""

from __future__ import annotations

import struct
from pathlib import Path

_AT = 0x10000
_CODE = struct.pack(
    "<10I",
    0xE59F001C,  # ldr r0, =the first serial line
    *(0xE3A01000 | ord("O"), 0xE5801000),  # mov r1, #'O'; str r1, [r0]
    *(0xE3A01000 | ord("K"), 0xE5801000),
    *(0xE3A02402, 0xE2522001, 0x1AFFFFFD),  # mov r2, #2^25; subs r2, r2, #1; bne to there
    0xEAFFFFF7,  # b to the first mov
    0x10009000,
)


def write_talking_image(path: Path) -> Path:
    """An ELF file that says OK some times a second on the board's first serial line."""
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 40, 1, _AT, 52, 0, 0x5000200, 52, 32, 1, 0, 0, 0
    )
    path.write_bytes(head + struct.pack("<8I", 1, 84, _AT, _AT, len(_CODE), len(_CODE), 5, 4) + _CODE)
    return path
