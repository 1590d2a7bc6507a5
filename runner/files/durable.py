"""Small files: written whole or not at all, and read whatever became of them since."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

# Ours have some kilobytes; whatever is much longer is another file.
MAX_BYTES = 1 << 20


def read_start(path: Path, max_bytes: int) -> bytes:
    """The first bytes of a regular file.

    Raises:
        OSError: when it cannot be read, or is none: a pipe or a terminal might never say anything.
    """
    # Non-blocking, for a pipe that nobody writes to would hold up the very opening.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read(max_bytes)


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """The value in a JSON file.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no JSON, or too much of it.
    """
    return parse_json(read_start(path, MAX_BYTES + 1))


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - JSON
    """The value of a text.

    Raises:
        ValueError: when it is no JSON, or too much of it.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
