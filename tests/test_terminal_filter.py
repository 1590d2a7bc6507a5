"""What a hostile guest writes, as it is shown."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import GuestDied
from runner.text.excerpt import printable, printable_line
from runner.text.terminal_filter import TerminalFilter

# Whatever xterm lets a program do beside showing text: control characters, two-character escapes and sequences.
CONTROL = re.compile(r"\x1b\[[^@-~]*[@-~]|\x1b[ -/]*.|[\x00-\x1f\x7f-\x9f]", re.S)
HARMLESS = re.compile(
    r"\x1b\[[0-9;]*[ABCDEFGHJKLMPSTXZ@`abdefmr]|\x1b\[6n|\x1b\[\?(25|7|1049)[hl]|\x1b[78=>DEM]|[\a\b\t\n\r]"
)


def shown(*parts: bytes) -> bytes:
    stream = TerminalFilter()
    return b"".join(map(stream.feed, parts))


@pytest.mark.parametrize(
    "text",
    [
        b"plain text, \xc3\xb6\r\n",
        b"\x1b[1;31mred\x1b[0m",
        b"\x1b[2J\x1b[H\x1b[10;20Htop",
        b"~ # \x1b[6n",
        b"\x1b[?25l\x1b[?1049h\x1b7\x1b8",
    ],
)
def test_what_a_console_needs_is_shown(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    "text",
    [
        b"\x1b]52;c;cm0gLXJmIC8=\x07",  # sets the clipboard
        b"\x1b]0;title\x1b\\",
        b"\x9d0;title\x9c",
        b"\xc2\x9b2J",
        b"\x1b[21t",  # has the terminal type its title
        b"\x1b[c\x1b[>c\x1b[5n\x1b[0x\x05",  # have it type what it is
        b'\x1bP$q"p\x1b\\',
        b"\x1b[?1000h\x1b[?2004h",  # has it type where the mouse is
        b"\x1b(0\x1b[!p\x1bc\x1b%G",
        b"\x1b[" + b"1;" * 100 + b"m",
    ],
)
def test_what_sets_a_terminal_or_has_it_type_is_not(text):
    assert shown(b"a" + text + b"b").replace(b"\xef\xbf\xbd", b"") in (b"ab", b"a0;titleb", b"a2Jb")


@given(st.binary(max_size=300), st.integers(0, 300))
def test_nothing_but_the_harmless_comes_through_however_it_is_cut(data, cut):
    whole = shown(data)
    assert shown(data[:cut], data[cut:]) == whole
    for match in CONTROL.finditer(whole.decode()):
        assert HARMLESS.fullmatch(match[0]), match[0]


@given(st.lists(st.sampled_from(["\x1b", "[", "]", "?", "1", ";", "m", "n", "6", "\a", "\\", "P", "(", "x"])))
def test_nor_do_those_that_look_like_sequences(characters):
    for match in CONTROL.finditer(shown("".join(characters).encode()).decode()):
        assert HARMLESS.fullmatch(match[0]), match[0]


@given(st.text())
def test_printable_text_obeys_no_terminal_and_can_be_written(text):
    obeyed = {char for char in printable(text) if unicodedata.category(char) in ("Cc", "Cs")}
    assert obeyed <= {"\t", "\n"}
    assert printable(text).encode().decode() == printable(text)
    assert len(printable_line(text).splitlines()) <= 1


def test_an_error_speaks_to_no_terminal():
    error = GuestDied("it said \x1b]0;owned\x07", where="\x1b[2J", evidence="one\ntwo\x1b[31m\rthree")
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert error.what.isprintable()
    assert error.evidence == "one\ntwo\\x1b[31m\\x0dthree"
