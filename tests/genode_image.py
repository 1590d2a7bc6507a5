"""An image for Genode's board that is none of Genode's: made by hand, to be booted."""

from __future__ import annotations

import struct
from pathlib import Path

_UART = 0x10009000
_HALT = (0xEAFFFFFE,)
#: Count down from 2^25, and go back to the first character.
_AGAIN = (0xE3A02402, 0xE2522001, 0x1AFFFFFD, 0xEAFFFFF5)


def write_image(path: Path, *, again: bool = False) -> Path:
    """An ELF file whose only segment says OK on the board's first serial line, on each processor, and stops there.

    Args:
        again: Say it some times a second instead: QEMU keeps nothing for who comes to a console later.
    """
    said = [code for character in b"OK\n" for code in (0xE3A01000 | character, 0xE5801000)]
    after = _AGAIN if again else _HALT
    load_uart = 0xE59F0000 | 4 * (len(said) + len(after) - 1)
    codes = (load_uart, *said, *after, _UART)
    code = struct.pack(f"<{len(codes)}I", *codes)
    at = 0x10000
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 40, 1, at, 52, 0, 0x5000200, 52, 32, 1, 0, 0, 0
    )
    path.write_bytes(head + struct.pack("<8I", 1, 84, at, at, len(code), len(code), 5, 4) + code)
    return path
