"""What the model refuses: the error that says which field of which task or set is wrong, and the checks that several share."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from runner.errors import UsageError
from runner.text.excerpt import excerpt, printable

MAX_NAME_CHARS = 200
_E = TypeVar("_E", bound=StrEnum)


def refusal(where: str, what: str, next_step: str = "") -> UsageError:
    """The error that says which field of which task is wrong."""
    return UsageError(f"{where} {what}", next_step=next_step)


def check(condition: bool, where: str, what: str, next_step: str = "") -> None:
    """Raise the refusal unless the condition holds."""
    if not condition:
        raise refusal(where, what, next_step)


def can_be_passed(word: str) -> bool:
    """Whether a program can be given the text as an argument, or opened by it as a path."""
    try:
        return b"\0" not in word.encode()
    except UnicodeEncodeError:
        return False


def check_name(name: object, of: str) -> None:
    """Refuse a name that some table, log or screen could not hold on one line."""
    plain = isinstance(name, str) and "\n" not in name and "\t" not in name and printable(name) == name
    if not plain:
        raise refusal(
            f"{of} {excerpt(name)}",
            "has a name with characters that are no text on one line",
            "name it otherwise",
        )
    if len(str(name)) > MAX_NAME_CHARS:
        raise refusal(
            f"{of} {excerpt(name)}", f"has a name of more than {MAX_NAME_CHARS} characters", "shorten it"
        )


def member_of(kind: type[_E], value: str, where: str) -> _E:
    """The member of an enumeration that `value` names, or the refusal that lists them all."""
    try:
        return kind(value)
    except ValueError:
        raise refusal(where, f"is {excerpt(value)}", f"choose one of: {', '.join(kind)}") from None
