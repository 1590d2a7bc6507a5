"""Values and texts from outside, as messages show them: short, printable, and made in no time, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

MAX_CHARS = 80
_MAX_ITEMS = 3
_MAX_DEPTH = 2
# Python writes 4,300 decimal digits at most; nobody reads half as many.
_MAX_BITS = 128
#: What moves a terminal's cursor, forges a line of a log or cannot be encoded -> how it is shown instead.
_ESCAPES = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0xD800, 0xE000))}


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey and a file could not hold; line breaks and tabs stay."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)


def printable_line(text: str) -> str:
    """As `printable`, and on one line."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def excerpt(value: object, *, depth: int = _MAX_DEPTH) -> str:
    """As `repr`, of values that may be of any size, depth or self-reference."""
    match value:
        case bool() | None:
            return repr(value)
        case int() if value.bit_length() > _MAX_BITS:
            return f"a number of {value.bit_length()} bits"
        case str() | bytes():
            return printable(repr(value[:MAX_CHARS])) + "…" * (len(value) > MAX_CHARS)
        case Mapping():
            items = [
                f"{excerpt(key, depth=0)}: {excerpt(value[key], depth=depth - 1)}"
                for key in _first(value, depth)
            ]
            return f"{{{_listed(items, len(value))}}}"
        case Sequence() | Set():
            items = [excerpt(item, depth=depth - 1) for item in _first(value, depth)]
            return f"[{_listed(items, len(value))}]"
        case int() | float():
            return repr(value)
        case _:
            return f"a {type(value).__name__}"


def _first(values: Mapping[object, object] | Sequence[object] | Set[object], depth: int) -> list[object]:
    return [item for item, _ in zip(values, range(_MAX_ITEMS if depth > 0 else 0), strict=False)]


def _listed(items: list[str], length: int) -> str:
    return ", ".join([*items, "…"] if len(items) < length else items)
