"""How generators refuse what cannot be made: by the name of the parameter, with what can be made instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.errors import UsageError
from runner.tasksets.written import is_list, mapping, nearest, time_ns, whole
from runner.text.excerpt import excerpt


def require(condition: bool, key: str, what: str, next_step: str = "") -> None:
    """Raise the error unless the condition holds; what it says begins with the key."""
    if not condition:
        raise UsageError(f"{key} {what}", where=key, next_step=next_step)


def number(value: object, key: str, low: float, high: float) -> float:
    """A number within bounds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    within = is_number and low <= value <= high  # type: ignore[operator] # a number, and no NaN passes
    require(within, key, f"is {excerpt(value)}, must be a number in {low:g}…{high:g}")
    return float(value)  # type: ignore[arg-type] # as above


def real(value: object, key: str) -> float:
    """A number, whatever it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{key} is {excerpt(value)}, not a number", where=key)
    require(isinstance(value, float) or value.bit_length() < 64, key, f"is {excerpt(value)}, beyond 64 bits")
    return float(value)


def count(value: object, key: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    within = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(within, key, f"is {excerpt(value)}, must be {low}…{high}")
    return int(value)  # type: ignore[call-overload,no-any-return] # as above


def period_ns(value: object, key: str) -> int:
    """A time with its unit, or whole nanoseconds."""
    return whole(value, key) if isinstance(value, int) else time_ns(value, key)


def kind_of(value: object, key: str, kinds: Iterable[str], word: str) -> tuple[str, dict[str, Any]]:
    """The kind that `word` names, and its parameters: of a text `uniform`, or a mapping `{kind: uniform, min: 1ms}`."""
    known = list(kinds)
    given = {word: value} if isinstance(value, str) else dict(mapping(value, key))
    kind = given.pop(word, None)
    if kind not in known:
        at = key if isinstance(value, str) else f"{key}.{word}"
        raise UsageError(
            f"{at} is {excerpt(kind)}, not one of: {', '.join(known)}",
            where=at,
            next_step=nearest(str(kind), known),
        )
    return str(kind), given


def only(given: Mapping[str, Any], known: Iterable[str], key: str) -> None:
    """Refuse a parameter that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise UsageError(
                f"{key}.{name} is not known",
                where=f"{key}.{name}",
                next_step=nearest(name, known) if known else "leave it out",
            )


def each(value: object, key: str) -> list[tuple[object, str]]:
    """One value, or each of several, with its key."""
    if not is_list(value):
        return [(value, key)]
    require(bool(value), key, "is an empty list", "give it a value, or leave it out")
    return [(item, f"{key}[{idx}]") for idx, item in enumerate(value)]
