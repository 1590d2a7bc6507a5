"""Values of task sets that were written down: each reader takes a value and its full key, and refuses what makes no sense there."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeGuard, TypeVar

from runner.errors import UsageError
from runner.model import WorkloadArg
from runner.text.excerpt import excerpt
from runner.units import parse_bytes, parse_ns

E = TypeVar("E", bound=StrEnum)
Reader = Callable[[object, str], Any]
# Of all combinations of values in one source, which are checked before the first is measured: some seconds' worth.
MAX_COMBINATIONS = 100_000
_MAX_WORD = 100  # to compare words takes time with the square of their length


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word most like this one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word[:_MAX_WORD], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def mapping(value: object, key: str) -> Mapping[str, Any]:
    """A mapping with texts as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{key} is {excerpt(value)}, not a mapping of keys to values", where=key)
    return value


def sequence(value: object, key: str) -> Sequence[Any]:
    """A list."""
    if not is_list(value):
        raise UsageError(f"{key} is {excerpt(value)}, not a list", where=key)
    return list(value)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list (and a text is none)."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def time_ns(value: object, key: str) -> int:
    """A time with its unit."""
    return _with_unit(value, key, parse_ns, "10ms")


def size_bytes(value: object, key: str) -> int:
    """A size with its unit."""
    return _with_unit(value, key, parse_bytes, "100M")


def _with_unit(value: object, key: str, parse: Callable[..., int], example: str) -> int:
    if isinstance(value, str) and value.strip()[-1:].isalpha():
        return parse(value, key=key)
    if value in (0, "0") and value is not False:
        return 0
    name = key.rpartition(".")[2]
    raise UsageError(
        f"{key} is {excerpt(value)}, without a unit",
        where=key,
        next_step=f'write it like {name}: "{example}"',
    )


def whole(value: object, key: str) -> int:
    """A whole number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > 63:
        raise UsageError(f"{key} is {excerpt(value)}, not a whole number of 64 bits", where=key)
    return value


def text(value: object, key: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise UsageError(f"{key} is {excerpt(value)}, not a text", where=key)
    return value


def flag(value: object, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{key} is {excerpt(value)}, neither true nor false", where=key)
    return value


def member(kind: type[E]) -> Callable[[object, str], E]:
    """A reader of one of an enum's values."""

    def read(value: object, key: str) -> E:
        try:
            return kind(text(value, key))
        except ValueError:
            known = [member.value for member in kind]
            raise UsageError(
                f"{key} is {excerpt(value)}, not one of: {', '.join(known)}",
                where=key,
                next_step=nearest(str(value), known),
            ) from None

    return read


def cpus(value: object, key: str) -> tuple[int, ...]:
    """A list of CPUs."""
    return tuple(whole(cpu, f"{key}[{idx}]") for idx, cpu in enumerate(sequence(value, key)))


def argument(name: str, value: object, key: str) -> WorkloadArg:
    """One argument of a workload; whether the workload takes it is for the model to say."""
    match name:
        case "cpu":
            return time_ns(value, key)
        case "path":
            return text(value, key)
        case "argv":
            return tuple(text(word, f"{key}[{idx}]") for idx, word in enumerate(sequence(value, key)))
        case _:
            return whole(value, key)


def several(value: object, read: Reader, key: str, *, lists: bool = False) -> list[Any]:
    """The values of one key, one or many; where a value is a list itself (`lists`), many are a list of lists."""
    if not is_list(value) or (lists and not any(is_list(item) for item in value)):
        return [read(value, key)]
    if not value:
        raise UsageError(f"{key} is an empty list", where=key, next_step="give it a value, or leave it out")
    return [read(item, f"{key}[{idx}]") for idx, item in enumerate(value)]


def check_number(counts: Iterable[int], key: str) -> int:
    """The number of combinations of so many values each, which must not be too many to check."""
    number = math.prod(counts)
    if number > MAX_COMBINATIONS:
        raise UsageError(
            f"{key} has {excerpt(number)} combinations of values, more than the {MAX_COMBINATIONS} that are checked beforehand",
            where=key,
            next_step="give fewer values, or write a class that yields the task sets: tasksets=custom",
        )
    return number


def arguments(value: object, key: str) -> list[dict[str, WorkloadArg]]:
    """Every combination of the arguments' values; `cpu: 5ms` stands for `cpu_ns: 5000000`."""
    names: list[str] = []
    values: list[list[WorkloadArg]] = []
    for name, given in mapping(value, key).items():

        def read(item: object, at: str, name: str = name) -> WorkloadArg:
            return argument(name, item, at)

        names.append("cpu_ns" if name == "cpu" else name)
        values.append(several(given, read, f"{key}.{name}", lists=name == "argv"))
    check_number(map(len, values), key)
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]
