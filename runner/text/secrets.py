"""Passwords and tokens: recognised in texts and values, so that none of them is written down or shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

#: What stands in the place of a secret.
MASK = "***"
#: Shorter ones are not looked for in texts: they would be found in every second word.
MIN_KNOWN_CHARS = 4

_NAME = (
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
)
_NAMED = re.compile(rf"(?i){_NAME}$")
_BLANK = "\0"
# `key=value`, `key: value`, `'key': 'value'`; what is neither quoted nor a (blanked) reference goes on to the next space.
_ASSIGNED = re.compile(
    rf"""(?i)({_NAME}["']?\s{{0,9}}[=:]\s{{0,9}})"""
    r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\0+(?=[\s,;&}\])>"']|$)|[^\s"']\S*|["']\S+)"""
)
# `scheme://user:password@host`. A password may hold whatever is no space, also a slash or an @ of its own.
_URI = re.compile(r"(://[^\s:/@]{0,256}:)(\0+(?=@)|\S{1,512}(?=@))")
_WHOLE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^:/@]*:(.+)@", re.DOTALL)
# `${oc.env:NAME}`, `${other.key}`, also nested: refers to a value, and is none. One with a default of its own is one.
_REFERENCE = re.compile(r"\$\{[^{}$@,'\"\s]*(?:,\s*null\s*)?\}")
_NO_SECRET = frozenset({"", "null", "none", "~", "???", "true", "false", MASK})


def masked(text: str, known: Collection[str] = ()) -> str:
    """The text with a mask in place of every secret in it: known ones, passwords in URIs, values of keys that are named for one.

    Guarantees: linear in the text's length; masking again changes nothing; references such as `${oc.env:NAME}` stay.
    """
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, closing in ((_URI, ""), (_ASSIGNED, "\"'}])>,;")):
        blanked = _blanked(text)
        spans = [match.span(2) for match in pattern.finditer(blanked) if _is_literal(match[2].strip(closing))]
        for start, end in reversed(spans):
            text = f"{text[:start]}{MASK}{text[end:]}"
    return text


def masked_values(value: Any, mask: Callable[[str], str] = masked) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """The same value with every text in it masked, also below mappings and lists."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: masked_values(one, mask) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(one, mask) for one in value]
    return value


def literal_secrets(value: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 - a config, as plain values
    """The full names of all keys below that hold a secret itself, rather than a reference to one."""
    for name, text in _leaves(value, key):
        if _under_secret_name(name):
            if _is_literal(_blanked(text)):
                yield name
        elif masked(text) != text or ((whole := _WHOLE_URI.match(_blanked(text))) and _is_literal(whole[1])):
            yield name


def secret_values(value: Any) -> frozenset[str]:  # noqa: ANN401 - a config, as plain values
    """Every secret in a config whose references are resolved, as texts to look for."""
    found: set[str] = set()
    for name, text in _leaves(value, ""):
        if _under_secret_name(name) and _is_literal(text):
            found.add(text)
        if whole := _WHOLE_URI.match(text):
            found |= {whole[1], unquote(whole[1])}
    return frozenset(one for one in found if len(one) >= MIN_KNOWN_CHARS)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - as above
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _leaves(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _leaves(one, f"{key}[{place}]")
    elif value is not None and not isinstance(value, bool):
        yield key, str(value)


def _under_secret_name(key: str) -> bool:
    return any(_NAMED.search(part) for part in re.split(r"\.|\[\d+\]", key))


def _is_literal(text: str) -> bool:
    """Whether something is left of a blanked text that could be a secret."""
    return text.replace(_BLANK, "").strip().lower() not in _NO_SECRET


def _blanked(text: str) -> str:
    """The text with its references blanked out, every character in its place."""
    while (shorter := _REFERENCE.sub(lambda match: _BLANK * len(match[0]), text)) != text:
        text = shorter
    return text
