"""Times and sizes: written with a unit by people, kept as integers of one unit by the program."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from runner.errors import UsageError
from runner.text.excerpt import excerpt

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

# The guest keeps times in signed 64-bit nanoseconds; a tenth of that leaves room for sums and stays far from overflow.
MAX_TIME_NS = (1 << 63) // 10

_NS_PER_UNIT = {
    "ns": 1,
    "us": NS_PER_US,
    "µs": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
}
_BYTES_PER_UNIT = {
    "B": 1,
    "K": 1 << 10,
    "KiB": 1 << 10,
    "M": 1 << 20,
    "MiB": 1 << 20,
    "G": 1 << 30,
    "GiB": 1 << 30,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_NUMBER_CHARS = 100
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([A-Za-zµ]*)\s*")


def _parse(text: str | int, factors: dict[str, int], *, key: str, example: str, plain_unit: str) -> int:
    if isinstance(text, bool):
        raise UsageError(
            f"{key} is {excerpt(text)}, not a quantity", where=key, next_step=f"write it like {example}"
        )
    if isinstance(text, int):
        return text
    match = _QUANTITY.fullmatch(text)
    factor = factors.get(match[2] or plain_unit) if match else None
    if match is None or factor is None:
        raise UsageError(
            f"{key} is {excerpt(text)}, which is not a number with one of the units {', '.join(factors)}",
            where=key,
            next_step=f"write it like {example}",
        )
    try:
        exact = Decimal(match[1]) * factor
        rounded = int(exact)
    except (InvalidOperation, OverflowError) as exc:
        raise UsageError(f"{key} is {excerpt(text)}, which is out of range", where=key) from exc
    if exact != rounded:
        raise UsageError(
            f"{key} is {excerpt(text)}, which is not a whole number of {plain_unit}",
            where=key,
            next_step=f"write it like {example}",
        )
    return rounded


def parse_ns(text: str | int, *, key: str = "time") -> int:
    """Nanoseconds from `"10ms"`, `"1.5 us"` or a plain integer, which is taken as nanoseconds.

    Raises:
        UsageError: when the text is no quantity, its unit is unknown, or it is no whole number of nanoseconds;
            `key` names the culprit.
    """
    value = _parse(text, _NS_PER_UNIT, key=key, example='"10ms"', plain_unit="ns")
    if abs(value) > MAX_TIME_NS:
        raise UsageError(f"{key} is {excerpt(text)}, more than {MAX_TIME_NS} ns", where=key)
    return value


def parse_bytes(text: str | int, *, key: str = "size") -> int:
    """Bytes from `"100M"` (binary, as QEMU writes it), `"1 GiB"`, `"5MB"` (decimal) or a plain integer.

    Raises:
        UsageError: as `parse_ns`.
    """
    return _parse(text, _BYTES_PER_UNIT, key=key, example='"100M"', plain_unit="B")


def shown_ns(value_ns: int | None) -> str:
    """A time for people, to six digits: `10 ms`, `1.5 us`; a dash where it is not known."""
    if value_ns is None:
        return "-"
    for unit in ("s", "ms", "us"):
        if abs(value_ns) >= _NS_PER_UNIT[unit]:
            return f"{value_ns / _NS_PER_UNIT[unit]:.6g} {unit}"
    return f"{value_ns} ns"


def written_ns(value_ns: int) -> str:
    """A time as `parse_ns` reads it again, exactly: `28.5ms`, `1.000000001s`."""
    return f"{in_unit(value_ns, unit)}{unit}" if (unit := _unit_of(value_ns)) else f"{value_ns}ns"


def written_bytes(n_bytes: int) -> str:
    """A size as `parse_bytes` reads it again, exactly: `100MiB`, `123B`."""
    for unit in ("GiB", "MiB", "KiB"):
        if n_bytes and n_bytes % _BYTES_PER_UNIT[unit] == 0:
            return f"{n_bytes // _BYTES_PER_UNIT[unit]}{unit}"
    return f"{n_bytes}B"


def in_unit(value_ns: int, unit: str) -> str:
    """The number of units that a time is, as an exact decimal fraction: 28500000 in `ms` is `28.5`."""
    return f"{Decimal(value_ns) / _NS_PER_UNIT[unit]:f}"


def _unit_of(value_ns: int) -> str | None:
    return next((unit for unit in ("s", "ms", "us") if abs(value_ns) >= _NS_PER_UNIT[unit]), None)


def rounded_ns(number: str, ns_per_unit: int, *, key: str) -> tuple[int, bool]:
    """Nanoseconds of a plain decimal number of some unit, rounded half to even, and whether that was exact.

    Raises:
        UsageError: when it is no finite decimal number, or beyond `MAX_TIME_NS`.
    """
    match = _NUMBER.fullmatch(number.strip()) if len(number) <= _MAX_NUMBER_CHARS else None
    if match is None:
        raise UsageError(f"{key} is {excerpt(number)}, not a decimal number", where=key)
    exact = Fraction(match[0]) * ns_per_unit
    if abs(exact) > MAX_TIME_NS:
        raise UsageError(f"{key} is {excerpt(number)}, more than {MAX_TIME_NS} ns", where=key)
    value_ns = round(exact)
    return value_ns, value_ns == exact
