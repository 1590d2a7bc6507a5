"""A stream from somebody who may mean harm, as a terminal can be shown it."""

from __future__ import annotations

import codecs
from enum import Enum, auto

# Control characters and two-character sequences that only move the cursor, or ring.
_CONTROLS = frozenset("\a\b\t\n\r")
_ESCAPES = frozenset("78=>DEM")
# The ends of the sequences by which programs move the cursor, erase, insert, scroll and colour (ECMA-48, 8.3).
_MOVES = frozenset("ABCDEFGHJKLMPSTXZ@`abdefmr")
# Whole sequences that are of use beyond these: where is the cursor, show it, hide it, wrap, another screen and back.
_OTHERS = frozenset({"6n", "?25h", "?25l", "?7h", "?7l", "?1049h", "?1049l"})
_PARAMETERS = frozenset("0123456789;")
# No sequence of use is longer.
_SEQUENCE_MAX = 32


class _State(Enum):
    """What the next character of a stream belongs to."""

    TEXT = auto()
    #: A sequence that has begun with ESC.
    ESCAPE = auto()
    #: A character set's name.
    CHARACTER_SET = auto()
    #: A sequence that has begun with ESC [.
    SEQUENCE = auto()
    #: A text of any length that a terminal takes for a command: it sets the clipboard, the title, what keys send.
    COMMAND = auto()


class TerminalFilter:
    """A stream as it may be shown on a terminal: text and what moves the cursor, but nothing that sets the terminal itself, or has
    it type.

    Guarantees: keeps no more than an unfinished sequence of 32 characters, however long the stream is; what comes out does not
    depend on how the stream was cut.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = _State.TEXT
        self._sequence = ""

    def feed(self, data: bytes) -> bytes:
        """What to show of the next part."""
        return "".join(map(self._next, self._decoder.decode(data))).encode()

    def _next(self, char: str) -> str:
        if char == "\x1b":
            self._state = _State.ESCAPE
            return ""
        match self._state:
            case _State.TEXT:
                return char if char.isprintable() or char in _CONTROLS else ""
            case _State.ESCAPE:
                return self._after_escape(char)
            case _State.SEQUENCE:
                return self._in_sequence(char)
            case _State.COMMAND if char not in "\a\x18\x1a":
                return ""
        self._state = _State.TEXT
        return ""

    def _after_escape(self, char: str) -> str:
        self._sequence = ""
        if char == "[":
            self._state = _State.SEQUENCE
        elif char in "P]X^_":
            self._state = _State.COMMAND
        elif " " <= char <= "/":
            self._state = _State.CHARACTER_SET
        else:
            self._state = _State.TEXT
        return f"\x1b{char}" if char in _ESCAPES else ""

    def _in_sequence(self, char: str) -> str:
        if " " <= char <= "?":
            # One that is too long is swallowed whole, as the terminal would.
            self._sequence = (self._sequence + char)[: _SEQUENCE_MAX + 1]
            return ""
        self._state = _State.TEXT
        parameters, whole = self._sequence, self._sequence + char
        moves = char in _MOVES and _PARAMETERS.issuperset(parameters) and len(whole) <= _SEQUENCE_MAX
        return f"\x1b[{whole}" if moves or whole in _OTHERS else ""
