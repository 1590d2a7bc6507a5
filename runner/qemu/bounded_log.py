"""Files that a process appends to run after run, and that stay bounded all the same."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# A boot says some 20 KB on the console, a restored guest nothing.
_ROTATED_BYTES = 4 << 20


def open_log(path: Path) -> int:
    """Open a log of the user's own for appending; one that has grown long becomes the old one, and a new one begins.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    with suppress(OSError):  # another one has moved it already
        if path.lstat().st_size > _ROTATED_BYTES:
            path.replace(old_log(path))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def old_log(path: Path) -> Path:
    """Where a log went that had grown long."""
    return path.with_name(f"{path.name}.old")
