"""The `newc` archive that Linux unpacks as its first root file system, written byte for byte reproducibly.

Of what `cpio` would record, only content, name, mode and device numbers reach the guest: owner is root, the time is
the epoch, inode numbers count up. So no root, umask, time zone or order of a folder can change an archive, and device
nodes can be put in it without being root.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, folder, link or device of an archive.

    Attributes:
        path: Where, without a leading slash.
        mode: Type and permissions, as `stat.st_mode` has them.
        content: A file's bytes or a link's target.
        device: Major and minor number of a device node.
    """

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, content: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path=path, mode=stat.S_IFREG | permissions, content=content)


def folder(path: str, permissions: int = 0o755) -> Entry:
    """A folder; only those need one that are empty or not world-readable."""
    return Entry(path=path, mode=stat.S_IFDIR | permissions)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, content=target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """A character device node, for root alone."""
    return Entry(path=path, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries and the folders above them, sorted by path, as one archive.

    A path that occurs twice is taken from its last entry.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        for above in PurePosixPath(entry.path).parents:
            if above.name:
                by_path.setdefault(str(above), folder(str(above)))
        by_path[entry.path] = entry
    parts = [_record(number, by_path[path]) for number, path in enumerate(sorted(by_path), start=1)]
    parts.append(_record(0, Entry(path="TRAILER!!!", mode=0)))
    return b"".join(parts)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
