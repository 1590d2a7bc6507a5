"""Folders and files that are the user's alone, whatever the umask says."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS = 0o077


def make_private(folder: Path) -> None:
    """Make a folder of our own, and those above it that are missing, with no way in for other users.

    One that is there is closed to them; those above it stay as they are.

    Raises:
        OSError: it cannot be made, or is somebody else's and open to others.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_mode & _OTHERS:
        os.chmod(folder, stat.S_IMODE(status.st_mode) & ~_OTHERS)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file, or replace the content of one that is there.

    Raises:
        OSError: it cannot be written.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
