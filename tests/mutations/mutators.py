"""Specimens, changed: as bytes, as tokens of text, as values. Pure: what comes out depends on the random source alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import yaml

#: What numbers, and whatever should be one, are replaced by.
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 63, 64, 65, 255, 256, 65535, 65536, 10_000_000, 10_000_001),
    *(
        2**31 - 1,
        2**31,
        -(2**31),
        2**32,
        2**53 + 1,
        2**63 - 1,
        2**63,
        -(2**63),
        -(2**63) - 1,
        2**64,
        2**63 // 10,
    ),
    *(10**20, 10**400, -(10**400), 0.1, -0.5, 1e-320, 1e308, -1e308),
    *(float("inf"), float("-inf"), float("nan"), 1 << 20_000),
)
#: Texts that somebody may take for something else, or cannot write, print, store or encode.
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "-",
        ".",
        "..",
        "/",
        "\0",
        "a\0b",
        "\n",
        "\r\n",
        "\t",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *(
        "\ud800",
        "\udcff",
        "a\udfffb",
        "\U0001f600",
        "e\u0301",
        "\u202e",
        "\u0660\u0661",
        "½",
        "ⅷ",
        "١٠ms",
        "²",
    ),
    *(
        "nan",
        "inf",
        "-inf",
        "NaN",
        "1e308",
        "1e999",
        "-0",
        "+1",
        "0x10",
        "0b1",
        "1_000",
        "12:30:45",
        "2001-01-01",
    ),
    *(
        "null",
        "~",
        "true",
        "Yes",
        "off",
        "None",
        "10ms",
        "0ms",
        "1e300s",
        "1e-30ns",
        "9" * 18 + "s",
        "1e9999ms",
        "5 min",
    ),
    *(
        "'",
        '"',
        "'; DROP TABLE runs; --",
        "%s%n",
        "{0}",
        "$(id)",
        "`id`",
        "a,b",
        "a=b",
        "../../x",
        "a" * 300,
        "9" * 5000,
    ),
    *(
        "???",
        "${",
        "${}",
        "${tasksets}",
        "${.}",
        "${..}",
        "${a}",
        "${oc.env:HOME}",
        "${oc.env:NOSUCH}",
        "${oc.decode:'['}",
    ),
    *(
        "${oc.create:${tasksets}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "${run_folder}",
        "${nosuch:1}",
        "${machines.${repeat}}",
    ),
)
#: Words of YAML, JSON and the override grammar, to be put between others.
TOKENS: tuple[str, ...] = (
    *(
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ":",
        ": ",
        "? ",
        "- ",
        ",",
        "|",
        ">",
        "&a ",
        "*a",
        "<<: ",
        "<<: *a",
        "#",
        "%",
        "@",
        "`",
        "!",
    ),
    *(
        "!!int ",
        "!!str ",
        "!!binary ",
        "!!set ",
        "!!omap ",
        "!!python/name:os.getcwd ",
        "!!python/tuple ",
        "!nosuch ",
    ),
    *(
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "%TAG ! x\n",
        "\t",
        "\r",
        "\n",
        "\n\n",
        " ",
        "  ",
        "=",
        "~",
        "+",
        "++",
        "\\",
        "\\u0000",
    ),
)
_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)
MAX_BYTES = 1 << 20


def some(chance: Random, few: int = 1, many: int = 5) -> int:
    """A small number, mostly the least."""
    return few if chance.random() < 0.6 else chance.randint(few, many)


# Bytes


def changed_bytes(data: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """Some bytes flipped, cut out, cut off, doubled, put in, or spliced with another specimen."""
    changed = bytearray(data)
    for _ in range(some(chance)):
        at = chance.randrange(len(changed) + 1)
        length = chance.choice((1, 1, 2, 4, 8, chance.randrange(1, 64)))
        match chance.randrange(8):
            case 0 | 1 if changed:
                at = chance.randrange(len(changed))
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * chance.choice((1, 1, 2, 1000))
            case 5:
                changed[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
            case 6:
                changed[at:at] = chance.randbytes(length)
            case _ if others:
                other = chance.choice(others)
                changed[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(changed[:MAX_BYTES])


# Tokens


def changed_tokens(text: str, chance: Random, words: Sequence[str] = ()) -> str:
    """Some words, blanks or signs exchanged, left out, doubled, or replaced by others, of the text itself or from outside."""
    tokens = _TOKEN.findall(text)
    for _ in range(some(chance)):
        at = chance.randrange(len(tokens) + 1)
        match chance.randrange(6):
            case 0 if len(tokens) > 1:
                at, other = chance.sample(range(len(tokens)), 2)
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 1:
                del tokens[at : at + chance.randint(1, 4)]
            case 2:
                tokens[at:at] = tokens[at : at + chance.randint(1, 20)]
            case 3:
                tokens[at : at + 1] = [chance.choice(TOKENS)]
            case 4:
                tokens[at : at + 1] = [
                    written_number(chance) if chance.random() < 0.5 else chance.choice(TEXTS)
                ]
            case _:
                tokens[at : at + 1] = [chance.choice(words or TOKENS)]
    return "".join(tokens)


def written_number(chance: Random) -> str:
    """An extreme number as it may stand in a text."""
    return _written(chance.choice(NUMBERS))


def _written(number: float) -> str:
    # Python writes no more than 4,300 decimal digits.
    return hex(number) if isinstance(number, int) and abs(number) > 10**400 else str(number)


# Values


def changed_value(value: Any, chance: Random) -> Any:
    """A tree of mappings and lists with some of its nodes replaced, removed, doubled, exchanged, renamed or nested."""
    root = [value]
    for _ in range(some(chance)):
        places = list(_places(root))
        holder, key = chance.choice(places)
        match chance.randrange(7):
            case 0 | 1 | 2:
                holder[key] = strange(chance, holder[key])
            case 3 if holder is not root:
                del holder[key]
            case 4:
                other, other_key = chance.choice(places)
                holder[key] = _copy(other[other_key])
            case 5 if isinstance(holder, dict):
                holder[strange_key(chance, key)] = holder.pop(key)
            case 5 | 6 if isinstance(holder, list):
                holder[key:key] = [_copy(holder[key]) for _ in range(chance.choice((1, 1, 3, 100)))]
            case _:
                for _ in range(chance.choice((1, 1, 3, 60))):
                    holder[key] = [holder[key]] if chance.random() < 0.5 else {"a": holder[key]}
    return root[0]


def _places(holder: Any) -> Any:
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def strange(chance: Random, value: Any) -> Any:
    """Something else in the place of a value."""
    match chance.randrange(9):
        case 0 | 1:
            return chance.choice(NUMBERS)
        case 2 | 3:
            return chance.choice(TEXTS)
        case 4 if isinstance(value, str) and value:
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(TEXTS) + value[at + chance.randrange(2) :]
        case 4 | 5:
            return chance.choice((None, True, False, [], {}, [[]], [None], {"a": 1}, [1, "a"], b"\0\xff"))
        case 6:
            return [_copy(value) for _ in range(chance.choice((0, 1, 2, 10, 40)))]
        case 7:
            return (
                chance.choice((7, 1.5, [value], {value: value})) if isinstance(value, str) else shown(value)
            )
        case _:
            return "x" * chance.choice((10, 1000, 100_000))


def shown(value: Any) -> str:
    """As a text that may be taken for the value."""
    return _written(value) if isinstance(value, int | float) else str(type(value).__name__)


def strange_key(chance: Random, key: Any) -> Any:
    """Another key."""
    name = key if isinstance(key, str) else "key"
    return chance.choice((f"{name}s", name[1:], name.upper(), 1, None, True, 1.5, "", chance.choice(TEXTS)))


# Written down


def as_yaml(value: Any) -> bytes:
    """In YAML; what YAML has no form for, as text."""
    try:
        text = yaml.dump(value, Dumper=_Dumper, allow_unicode=False, default_flow_style=None)
    except (yaml.YAMLError, ValueError, RecursionError):
        text = f"a: {'9' * 5000}"
    return text.encode("utf-8", "surrogatepass")


class _Dumper(yaml.SafeDumper):
    """Without anchors for equal values, and with numbers of any size."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_int(dumper: yaml.SafeDumper, number: int) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:int", _written(number))


_Dumper.add_representer(int, _represent_int)


def as_json(value: Any) -> bytes:
    """In JSON, with what Python reads beyond it: NaN, Infinity, lone surrogates."""
    try:
        return json.dumps(value, default=str).encode()
    except (ValueError, TypeError, RecursionError):
        return b'{"a": ' + b"9" * 5000 + b"}"


def bombs(chance: Random) -> bytes:
    """A text that is small, and is much when it is read."""
    depth = chance.choice((9, 30, 100, 1_000, 20_000))
    match chance.randrange(10):
        case 0:
            return b"[" * depth
        case 1:
            return b"{a: " * depth
        case 2:
            return b"[" * depth + b"]" * depth
        case 3:
            return b"- " * depth
        case 4:
            levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]\n"]
            levels += [
                f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n"
                for i in range(1, chance.choice((3, 8, 40)))
            ]
            return "".join(levels).encode()
        case 5:
            return chance.choice(
                (b"&a [*a]", b"&a {a: *a}", b"a: &a\n  b: *a\n", b"&a {<<: *a}", b"{? &a [*a] : 1}")
            )
        case 6:
            return b"a: " + b"x" * (50 * depth)
        case 7:
            return b"".join(b"k%d: 1\n" % idx for idx in range(depth))
        case 8:
            return b"a: 0x" + b"f" * depth
        case _:
            return b"a: " + b"'" * depth + b'"' + b"\\" * depth


Mutator = Callable[[Random], bytes]
