"""Profiles: what happened to the jobs, in XML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from xml.parsers import expat

from runner.errors import ProtocolError
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS, NS_PER_MS

_END = b"</profile>"
_MAX_DEPTH = 8
_NUMBER = re.compile(r"[0-9]{1,15}")
_MAX_MS = MAX_TIME_NS // NS_PER_MS


class ProfileEventType(StrEnum):
    """What can happen."""

    START = "START"
    EXIT = "EXIT"
    EXIT_CRITICAL = "EXIT_CRITICAL"
    EXIT_PERIOD = "EXIT_PERIOD"
    EXIT_EXTERNAL = "EXIT_EXTERNAL"
    EXIT_ERROR = "EXIT_ERROR"
    OUT_OF_QUOTA = "OUT_OF_QUOTA"
    OUT_OF_CAPS = "OUT_OF_CAPS"
    NOT_SCHEDULED = "NOT_SCHEDULED"
    JOBS_DONE = "JOBS_DONE"


@dataclass(frozen=True)
class ProfileEvent:
    """One of them.

    Attributes:
        task_id: As the descriptions gave it.
        t_ms: On the task loader's own clock.
    """

    task_id: int
    kind: ProfileEventType
    t_ms: int


def parse_profile(content: bytes) -> tuple[ProfileEvent, ...]:
    """The events of a profile, in order; what follows its end is dropped.

    Raises:
        ProtocolError: it is no profile. Document types, and with them entities, and deep nests are refused unread.
    """
    end_byte = content.find(_END)
    if end_byte < 0:
        raise ProtocolError("a profile has no end", evidence=excerpt(content[:200]))
    reader = _Reader()
    try:
        reader.read(content[: end_byte + len(_END)])
    except (expat.ExpatError, ValueError) as exc:  # ValueError: an encoding that Python does not know
        raise ProtocolError(f"a profile is no XML: {exc}", evidence=excerpt(content[:200])) from exc
    return tuple(reader.events)


class _Reader:
    def __init__(self) -> None:
        self.events: list[ProfileEvent] = []
        self._path: list[str] = []

    def read(self, content: bytes) -> None:
        parser = expat.ParserCreate("us-ascii")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._open
        parser.EndElementHandler = self._close
        parser.Parse(content, True)

    def _doctype(self, *_: object) -> None:
        raise ProtocolError("a profile has a document type, which nobody needs")

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > _MAX_DEPTH:
            raise ProtocolError(f"a profile nests more than {_MAX_DEPTH} deep")
        if self._path == ["profile", "events", "event"]:
            self.events.append(_event(attributes))
        elif self._path[0] != "profile":
            raise ProtocolError(f"a profile begins with <{excerpt(name)}>")

    def _close(self, _: str) -> None:
        self._path.pop()


def _event(attributes: dict[str, str]) -> ProfileEvent:
    kind = attributes.get("type", "")
    if kind not in ProfileEventType.__members__:
        raise ProtocolError(f"a profile has an event of type {excerpt(kind)}")
    return ProfileEvent(
        _number(attributes, "task-id"), ProfileEventType(kind), _number(attributes, "time-stamp")
    )


def _number(attributes: dict[str, str], key: str) -> int:
    text = attributes.get(key, "")
    if _NUMBER.fullmatch(text) is None:
        raise ProtocolError(f"an event's {key} is {excerpt(text)}, no number")
    value = int(text)
    if value > _MAX_MS:
        raise ProtocolError(f"an event's {key} is {value}, more than {_MAX_MS}")
    return value
