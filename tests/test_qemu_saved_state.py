"""A saved device state, corrected: everything else is kept, and what is not understood stays as it is."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from runner.qemu.saved_state import loadable

ZERO, PAGE, EOS, CONTINUE = 0x02, 0x08, 0x10, 0x20
NUMBER = struct.pack(">I", 2)
FOOTER = b"\x7e" + NUMBER
FIRST = b"QEVM\0\0\0\3\x01" + NUMBER + b"\x03ram\0\0\0\0\0\0\0\4"


def blocks(mailbox_address: int) -> bytes:
    """Two blocks of memory, and the word that says how much that is."""
    words = [struct.pack(">Q", 0x300000 | 0x04)]
    for name, length, address in (
        ("ram", 0x100000, 1 << 30),
        ("0000:00:03.0/mailbox", 0x200000, mailbox_address),
    ):
        words.append(bytes([len(name)]) + name.encode() + struct.pack(">QQ", length, address))
    return b"".join([*words, struct.pack(">Q", EOS)])


WRITTEN = FIRST + blocks(0x8000000000) + FOOTER
HEAD = FIRST + blocks(0) + FOOTER
TAIL = b"\x04the devices" + b"\0" * 40
Page = tuple[str, int, bytes]

pages = st.lists(
    st.tuples(
        st.sampled_from(["virt.flash0", "virt.flash1", "rom"]),
        st.integers(0, 1 << 20).map(lambda number: number << 12),
        st.sampled_from([b"\0", b"\1", b"\0" * 4096, bytes(range(256)) * 16]),
    )
)


def section(kind: int, records: list[Page]) -> bytes:
    """As QEMU writes it: a block is named when it is another one than the last record's."""
    parts, last = [bytes([kind]) + NUMBER], ""
    for block, address, content in records:
        flags = (ZERO if len(content) == 1 else PAGE) | (CONTINUE if block == last else 0)
        name = b"" if block == last else bytes([len(block)]) + block.encode()
        parts.append(struct.pack(">Q", address | flags) + name + content)
        last = block
    return b"".join([*parts, struct.pack(">Q", EOS), FOOTER])


@given(pages, pages)
def test_the_mailbox_lies_nowhere_and_only_zeros_are_left_out(first: list[Page], second: list[Page]) -> None:
    state = WRITTEN + section(2, first) + section(3, second) + TAIL
    kept = [[page for page in part if page[2] != b"\0"] for part in (first, second)]
    assert loadable(state) == HEAD + section(2, kept[0]) + section(3, kept[1]) + TAIL


@given(pages, st.integers(0, 300))
def test_a_stream_that_was_cut_off_stays_as_it_is_or_is_as_it_should(records: list[Page], cut: int) -> None:
    """It never raises; QEMU finds the damage, not this."""
    state = (WRITTEN + section(3, records) + TAIL)[: -cut or None]
    assert loadable(state) in (
        state,
        HEAD + section(3, [p for p in records if p[2] != b"\0"]) + TAIL[: len(TAIL) - cut],
    )


def test_a_record_of_another_kind_is_not_touched() -> None:
    state = WRITTEN + b"\x03" + NUMBER + struct.pack(">Q", 0x1000 | 0x40) + b"xbzrle" + TAIL
    assert loadable(state) == state


@given(st.binary())
def test_anything_else_stays_as_it_is(state: bytes) -> None:
    assert loadable(state) == state
