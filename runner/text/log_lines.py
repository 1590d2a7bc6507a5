"""Lines of logs and consoles: the last ones, or those that are looked for; bounded, and safe to show on a terminal."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 64 << 10
# A line of the log takes about a microsecond to look at, and has some 150 bytes.
_MAX_SEARCHED_BYTES = 128 << 20
# Whatever is longer is looked at in pieces.
_MAX_LINE_BYTES = 4096
# ECMA-48: control sequences, and strings that set a title or the like; then any other escape.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Some lines of a file.

    Attributes:
        path: The file.
        lines: The last of those that were found, clean.
        n_found: How many were found.
        n_skipped_bytes: So much at its beginning was not looked at.
        missing: Why there are none: there is no such file, or it cannot be read; empty otherwise.
    """

    path: Path
    lines: tuple[str, ...] = ()
    n_found: int = 0
    n_skipped_bytes: int = 0
    missing: str = ""


def clean(text: str, max_chars: int = 300) -> str:
    """One line of at most so many characters, without anything that a terminal would act upon."""
    plain = _ESCAPES.sub("", text[: 4 * max_chars]).replace("\t", " ")
    plain = "".join(char for char in plain if char.isprintable()).rstrip()
    return plain if len(plain) <= max_chars else f"{plain[:max_chars]}…"


def last_lines(path: Path, n_lines: int) -> Excerpt:
    """The last lines that are not empty."""
    return search(path, [re.compile(rb"[^\s]")], n_lines, max_bytes=_TAIL_BYTES)[0]


def search(
    path: Path,
    patterns: Sequence[re.Pattern[bytes]],
    n_lines: int,
    *,
    max_bytes: int = _MAX_SEARCHED_BYTES,
) -> tuple[Excerpt, ...]:
    """For each pattern the last lines in which it is found; the file is read once, its last `max_bytes`."""
    kept: list[deque[bytes]] = [deque(maxlen=n_lines) for _ in patterns]
    counts = [0] * len(patterns)
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        with path.open("rb") as file:
            n_skipped = max(0, path.stat().st_size - max_bytes)
            for line in _lines(file, n_skipped, max_bytes):
                for number, pattern in enumerate(patterns):
                    if pattern.search(line):
                        kept[number].append(line)
                        counts[number] += 1
    except OSError as exc:
        return tuple(Excerpt(path=path, missing=exc.strerror or str(exc)) for _ in patterns)
    return tuple(
        Excerpt(
            path=path,
            lines=tuple(clean(line.decode("utf-8", "replace")) for line in lines),
            n_found=count,
            n_skipped_bytes=n_skipped,
        )
        for lines, count in zip(kept, counts, strict=True)
    )


def _lines(file: BinaryIO, n_skipped: int, max_bytes: int) -> Iterator[bytes]:
    """The lines after that many bytes; of a file that grows meanwhile, not for ever."""
    file.seek(n_skipped)
    if n_skipped:
        file.readline(_MAX_LINE_BYTES)  # the rest of one
    n_read = 0
    while n_read < max_bytes and (line := file.readline(_MAX_LINE_BYTES)):
        n_read += len(line)
        yield line
