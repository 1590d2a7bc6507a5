"""What a saved device state must not say, or need not say, to the QEMU that loads it.

Two corrections, both to the section `ram` of the stream:

- The mailbox's address. QEMU insists that memory which it leaves out of the stream lies where it lay; but the mailbox is the
  BAR of a PCI device, and lies nowhere until that device's own state is loaded, which comes later.
- Pages of zeros. An arm64 guest has 128 MiB of flash that nobody ever wrote to, and that, unlike its RAM, is in no file. To be
  told of its 32,768 pages costs QEMU more than all its devices together: loading takes 8 ms less without them (QEMU 7.2).

The stream is that of QEMU's migration/savevm.c and ram.c, from version 4.0 on: a section of the kind "start" lists the blocks,
later ones hold records, each a 64-bit word (a page's address with flags in its low bits), the block's name unless the flag
CONTINUE says that it is the last one's, and what the flags announce.
"""

from __future__ import annotations

import struct

_START = b"\x03ram\x00\x00\x00\x00\x00\x00\x00\x04"  # name, instance 0, version 4
_SECTION_PART, _SECTION_END, _FOOTER = 0x02, 0x03, 0x7E
_ZERO, _MEM_SIZE, _PAGE, _EOS, _CONTINUE, _FLAGS = 0x02, 0x04, 0x08, 0x10, 0x20, 0xFFF
_PAGE_BYTES = 4096
_WORD = struct.Struct(">Q")
_MAILBOX = b"/mailbox"


def loadable(state: bytes) -> bytes:
    """The state as a QEMU with untouched memory loads it best; the very same bytes where they are not what this function knows."""
    try:
        return _corrected(state)
    except (struct.error, IndexError, ValueError, _Unknown):
        return state


class _Unknown(Exception):
    """A stream of another form."""


def _corrected(state: bytes) -> bytes:
    start = state.find(_START)
    if start < 4:
        raise _Unknown
    number = state[start - 4 : start]
    footer = bytes([_FOOTER]) + number
    at = start + len(_START)
    parts = [state[:at]]
    kept, at = _blocks(state, at)
    while True:
        parts.append(kept)
        if not state.startswith(footer, at):
            raise _Unknown
        parts.append(footer)
        at += len(footer)
        if state[at] not in (_SECTION_PART, _SECTION_END) or not state.startswith(number, at + 1):
            break
        parts.append(state[at : at + 5])
        kept, at = _records(state, at + 5)
    parts.append(state[at:])
    return b"".join(parts)


def _blocks(state: bytes, at: int) -> tuple[bytes, int]:
    """The list of blocks with the mailbox lying nowhere, and where it ends."""
    (word,) = _WORD.unpack_from(state, at)
    if word & _FLAGS != _MEM_SIZE:
        raise _Unknown
    left, parts = word & ~_FLAGS, [_WORD.pack(word)]
    at += 8
    while left > 0:
        name = state[at : at + 1 + state[at]]
        at += len(name)
        length, address = struct.unpack_from(">QQ", state, at)
        at += 16
        parts += [name, struct.pack(">QQ", length, 0 if name.endswith(_MAILBOX) else address)]
        left -= length
    (word,) = _WORD.unpack_from(state, at)
    if left != 0 or word != _EOS:
        raise _Unknown
    return b"".join([*parts, _WORD.pack(word)]), at + 8


def _records(state: bytes, at: int) -> tuple[bytes, int]:
    """The records of one section without those of zeros, and where it ends."""
    kept: list[bytes] = []
    block = named = b""
    while True:
        (word,) = _WORD.unpack_from(state, at)
        at += 8
        flags = word & _FLAGS
        if flags == _EOS:
            return b"".join([*kept, _WORD.pack(word)]), at
        if not flags & _CONTINUE:
            block = state[at : at + 1 + state[at]]
            at += len(block)
        kind = flags & ~_CONTINUE
        if kind not in (_ZERO, _PAGE):
            raise _Unknown
        content = state[at : at + (1 if kind == _ZERO else _PAGE_BYTES)]
        at += len(content)
        if kind == _PAGE or content != b"\0":
            head = word & ~_CONTINUE if named != block else word | _CONTINUE
            kept += [_WORD.pack(head), block if named != block else b"", content]
            named = block
