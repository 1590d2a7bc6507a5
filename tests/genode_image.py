"""An image for Genode's board that is none of Genode's: made by hand, to be booted."""

from __future__ import annotations

import struct
from pathlib import Path

#: Of the frames that it sends: one that is free for experiments (IEEE 802).
ETHERTYPE = 0x88B5

_AT = 0x10000
_UART, _CARD = 0x10009000, 0x4E000000
# LAN9118: the queue of what is to be sent, the switch for sending, and the window on the registers behind.
_SEND, _TRANSMIT, _COMMAND, _DATA = 0x20, 0x70, 0xA4, 0xA8
_READ, _WRITE = 0xC0000000, 0x80000000
_CONTROL, _ADDRESS_HIGH, _ADDRESS_LOW = 1, 2, 3
_FRAME_BYTES = 60


class _Code:
    """Words of ARM's, with the constants that they load behind them."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._loads: list[tuple[int, int, int]] = []

    def add(self, *words: int) -> None:
        self._words += words

    def load(self, register: int, value: int) -> None:
        """ldr register, =value"""
        self._loads.append((len(self._words), register, value))
        self.add(0)

    def store(self, register: int, base: int, offset: int) -> None:
        """str register, [base, #offset]"""
        self.add(0xE5800000 | base << 16 | register << 12 | offset)

    def put(self, base: int, offset: int, value: int) -> None:
        """By way of r1."""
        self.load(1, value)
        self.store(1, base, offset)

    def branch(self, to: int, condition: int = 0xE) -> None:
        """b to"""
        self.add(condition << 28 | 0x0A000000 | (to - self.here - 2) & 0xFFFFFF)

    @property
    def here(self) -> int:
        return len(self._words)

    def assembled(self) -> bytes:
        values = sorted({value for _, _, value in self._loads})
        for place, register, value in self._loads:
            distance = self.here + values.index(value) - place - 2
            self._words[place] = 0xE59F0000 | register << 12 | distance * 4
        return struct.pack(f"<{self.here + len(values)}I", *self._words, *values)


def write_image(path: Path) -> Path:
    """An ELF file whose only segment says OK on the board's first serial line, and then sends one broadcast frame after the other.

    Their sender's address is what the board's card says it has. All but the first processor stop at once.
    """
    code = _Code()
    code.add(0xEE100FB0, 0xE3100003)  # mrc p15, 0, r0, c0, c0, 5; tst r0, #3
    code.branch(code.here, condition=1)  # bne .
    code.load(0, _UART)
    for character in b"OK\n":
        code.put(0, 0, character)
    code.load(2, _CARD)
    code.put(2, _TRANSMIT, 2)
    code.put(2, _DATA, 1 << 3)
    code.put(2, _COMMAND, _WRITE | _CONTROL)
    for register, number in ((3, _ADDRESS_LOW), (4, _ADDRESS_HIGH)):
        code.put(2, _COMMAND, _READ | number)
        code.add(0xE5920000 | register << 12 | _DATA)  # ldr register, [r2, #data]
    again = code.here
    code.put(2, _SEND, 3 << 12 | _FRAME_BYTES)  # the first and the last piece
    code.put(2, _SEND, _FRAME_BYTES)
    code.put(2, _SEND, 0xFFFFFFFF)
    code.load(1, 0xFFFF)
    code.add(0xE1811803, 0xE5821020)  # orr r1, r1, r3, lsl #16; str r1, [r2, #send]
    code.add(0xE1A01823, 0xE1811804, 0xE5821020)  # lsr r1, r3, #16; orr r1, r1, r4, lsl #16; str
    code.put(2, _SEND, int.from_bytes(ETHERTYPE.to_bytes(2), "little"))
    code.load(1, 0)
    for _ in range(_FRAME_BYTES // 4 - 4):
        code.store(1, 2, _SEND)
    code.load(1, 1 << 26)  # before the next one it counts
    counting = code.here
    code.add(0xE2511001)  # subs r1, r1, #1
    code.branch(counting, condition=1)
    code.branch(again)
    segment = code.assembled()
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 40, 1, _AT, 52, 0, 0x5000200, 52, 32, 1, 0, 0, 0
    )
    path.write_bytes(head + struct.pack("<8I", 1, 84, _AT, _AT, len(segment), len(segment), 5, 4) + segment)
    return path
