"""XML from strangers: elements and attributes only, within bounds.

What could expand or fetch (entities) is refused together with the document type that would have to declare it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape

from runner.errors import UsageError
from runner.text.excerpt import excerpt

MAX_DEPTH = 16
MAX_ELEMENTS = 100_000


@dataclass(frozen=True)
class Element:
    """An element, and the line where it begins."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)

    @property
    def where(self) -> str:
        """For messages."""
        return f"line {self.line}, <{self.tag}>"

    def all(self, tag: str) -> Iterator[Element]:
        """The children of that tag."""
        return (child for child in self.children if child.tag == tag)

    def get(self, name: str) -> str:
        """An attribute that has to be there."""
        if name not in self.attributes:
            raise UsageError(f"{self.where} has no {name}", where=self.where, next_step=f'add {name}="…"')
        return self.attributes[name]


def parse_markup(data: bytes) -> Element:
    """The root element of a UTF-8 document.

    Raises:
        UsageError: it is no XML, has a document type (entities), text between its elements, or too much of anything.
    """
    builder = _Builder()
    try:
        builder.parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise UsageError(
            f"the text is no XML: {expat.errors.messages[exc.code]}",
            where=f"line {exc.lineno}, column {exc.offset}",
            next_step="correct it there; it has to be UTF-8",
        ) from None
    except UnicodeDecodeError:
        raise UsageError("the text is no UTF-8", next_step="save it as UTF-8") from None
    return builder.root


class _Builder:
    def __init__(self) -> None:
        # The given encoding counts, whatever the document declares.
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self._open: list[Element] = []
        self._n_elements = 0
        self.root = Element("", {}, 0)

    def _refuse(self, what: str, next_step: str = "") -> NoReturn:
        raise UsageError(what, where=f"line {self.parser.CurrentLineNumber}", next_step=next_step)

    def _doctype(self, *_: object) -> None:
        self._refuse("the document has a document type, which could declare entities", "remove <!DOCTYPE …>")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._n_elements += 1
        if self._n_elements > MAX_ELEMENTS:
            self._refuse(f"the document has more than {MAX_ELEMENTS} elements", "divide it")
        if len(self._open) >= MAX_DEPTH:
            self._refuse(f"the document nests deeper than {MAX_DEPTH} elements")
        element = Element(tag, attributes, self.parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if text.strip():
            self._refuse(f"there is text between the elements: {excerpt(text.strip())}", "remove it")


@contextmanager
def located_at(element: Element) -> Iterator[None]:
    """Add the element's line to what is refused about it."""
    try:
        yield
    except UsageError as exc:
        where = f"{element.where}, {exc.where}" if exc.where else element.where
        raise UsageError(exc.what, where=where, next_step=exc.next_step) from exc


def quoted(value: str, where: str) -> str:
    """A value as an attribute holds it, in double quotes.

    Raises:
        UsageError: XML has no such character.
    """
    if any(char in "\ufffe\uffff" for char in value):
        raise UsageError(
            f"{where} has a character that XML does not know", where=where, next_step="rename it"
        )
    return f'"{escape(value, {chr(34): "&quot;"})}"'
