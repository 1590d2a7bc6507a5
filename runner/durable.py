"""Files that are whole or absent, never half-written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Put `text` at `path` at once: a reader sees the old content or the new one.

    Args:
        sync: Survive a power loss as well (fsync of file and folder); off for files that are written every second.

    Raises:
        OSError: when the folder cannot be written; the old file is then untouched and no temporary file is left.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power loss: files that were made, renamed or removed there."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Have what somebody has written to a file survive a power loss."""
    _sync(path, os.O_RDONLY)


def sync_tree(folder: Path) -> None:
    """Have a folder's files and names survive a power loss, at every depth."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
