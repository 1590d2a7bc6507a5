"""Files that a process appends to run after run, and that stay bounded all the same."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# A boot says some 20 KB on the console, a restored guest nothing.
_ROTATED_BYTES = 4 << 20


def make_room(path: Path) -> None:
    """Put a log that has grown long aside, in the place of the one before; whoever writes it still does so there."""
    if size_bytes(path) > _ROTATED_BYTES:
        with suppress(OSError):  # somebody else has done it
            path.replace(old_log(path))


def open_log(path: Path) -> int:
    """Open a log of the user's own for appending, a new one if it has grown long.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    make_room(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def old_log(path: Path) -> Path:
    """Where a log went that had grown long."""
    return path.with_name(f"{path.name}.old")


def size_bytes(path: Path) -> int:
    """How long a log is; 0 if there is none."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0
