"""Files and JSON texts from strangers: bounded in bytes, depth and number of values, and refused where they say a thing twice."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import HostError, UsageError
from runner.text.excerpt import excerpt

#: Of a file that is read as a whole; JSON Lines and SQLite have no such bound.
MAX_BYTES = 16 << 20
MAX_VALUES = 1_000_000


@contextmanager
def located_in(path: Path) -> Iterator[None]:
    """Add the file to what its reader refuses, and say whose fault it is that it cannot be read."""
    try:
        yield
    except UsageError as exc:
        where = f"{path}: {exc.where}" if exc.where else str(path)
        raise UsageError(exc.what, where=where, next_step=exc.next_step, evidence=exc.evidence) from exc
    except OSError as exc:
        raise HostError(f"the file cannot be read: {exc}", where=excerpt(str(path))) from exc


def open_regular(path: Path) -> int:
    """A descriptor of a regular file, for reading; a pipe or a terminal might never say anything.

    Raises:
        UsageError: there is no such file, or it is no regular one.
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UsageError("there is no such file", next_step="correct the path") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageError("this is no regular file", next_step="name a file that holds task sets")
    return handle


def whole_file(path: Path) -> bytes:
    """The content of a file that is read as a whole.

    Raises:
        UsageError: it is too long, or none.
        OSError: it cannot be read.
    """
    with open(open_regular(path), "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"the file has more than the {MAX_BYTES >> 20} MiB that are read as a whole",
            next_step="divide it, or write JSON Lines (.jsonl), which may have any length",
        )
    return data


def parse_document(data: bytes) -> Any:  # noqa: ANN401 - JSON
    """The value of a JSON text.

    Raises:
        UsageError: it is no JSON, has a key twice, numbers that JSON does not know, or too much of anything.
    """
    if data.count(b",") + data.count(b"{") + data.count(b"[") > MAX_VALUES:
        raise UsageError(
            f"the text has more than {MAX_VALUES} values", next_step="divide it, or write JSON Lines (.jsonl)"
        )
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError as exc:
        raise UsageError(f"the text is no UTF-8 (byte {exc.start})", next_step="save it as UTF-8") from None
    except json.JSONDecodeError as exc:
        raise UsageError(
            f"the text is no JSON: {exc.msg}",
            where=f"line {exc.lineno}, column {exc.colno}",
            next_step="correct it there; JSON has no comments and no comma before a closing bracket",
        ) from None
    except RecursionError:
        raise UsageError("the text nests too deeply") from None
    except ValueError as exc:  # Python's bound on the digits of a whole number
        raise UsageError(f"the text has a number that is too long: {exc}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(
                f"the key {excerpt(key)} stands twice in one object",
                next_step="keep one of them: which of the two counts differs from program to program",
            )
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise UsageError(f"the text has {name}, which is no number of JSON")
