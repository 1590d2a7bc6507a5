"""What this computer has left: read from where the kernel tells it, nothing decided."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner.admission.capacity import Readings

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
#: Where a computer limits nothing, the kernel says so by a number beyond any memory.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class _Memory:
    """What there is and what is left of it, in bytes."""

    total: int
    available: int


def read_host(folder: Path, *, n_machines: int = 0, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Readings:
    """This computer now; takes a millisecond.

    Args:
        folder: The run folder, or where it will be.
        n_machines: Machines that there are.
        proc: Where `/proc` is.
        cgroups: Where the control groups are.

    Raises:
        OSError: it cannot be read.
    """
    memories = [_of_computer(proc), *_of_groups(proc, cgroups)]
    disk = os.statvfs(_existing(folder))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Readings(
        memory_total_bytes=min(one.total for one in memories),
        memory_available_bytes=max(0, min(one.available for one in memories)),
        memory_used_bytes=sum(_own_bytes(proc, pid) for pid in _descendants(proc, "self")),
        descriptors=max(0, soft - len(os.listdir(proc / "self" / "fd"))),
        disk_total_bytes=disk.f_blocks * disk.f_frsize,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        # Some file systems make them as they need them, and name none.
        inodes=disk.f_favail if disk.f_files else None,
        n_machines=n_machines,
    )


def _existing(path: Path) -> Path:
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _of_computer(proc: Path) -> _Memory:
    values = dict(_words((proc / "meminfo").read_text(encoding="ascii")))
    return _Memory(int(values["MemTotal:"]) << 10, int(values["MemAvailable:"]) << 10)


def _words(text: str) -> Iterator[tuple[str, str]]:
    """First and second word of each line."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2:
            yield words[0], words[1]


def _of_groups(proc: Path, cgroups: Path) -> Iterator[_Memory]:
    """What the control group of this process and those above it may have; the page cache, where it is old, can be had back."""
    for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, old = cgroups / "memory", True
        elif not controllers:
            root, old = cgroups, False
        else:
            continue
        group = root / path.lstrip("/")
        # Inside a container the group's own path may not be there: what is mounted is the container's.
        for folder in (group, *group.parents) if group.is_dir() else (root,):
            if found := _of_group(folder, old=old):
                yield found
            if folder == root:
                break


def _of_group(folder: Path, *, old: bool) -> _Memory | None:
    limits = ("memory.limit_in_bytes",) if old else ("memory.max", "memory.high")
    usage = "memory.usage_in_bytes" if old else "memory.current"
    inactive = "total_inactive_file" if old else "inactive_file"
    try:
        limit = min(_limit(folder / name) for name in limits)
        if limit >= _NO_LIMIT:
            return None
        used = int((folder / usage).read_text(encoding="ascii"))
        cached = int(dict(_words((folder / "memory.stat").read_text(encoding="ascii"))).get(inactive, 0))
    except (OSError, ValueError):
        return None  # the root has no limit, and no such files
    return _Memory(limit, limit - used + cached)


def _limit(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _NO_LIMIT
    return _NO_LIMIT if text == "max" else int(text)


def _descendants(proc: Path, pid: str) -> Iterator[str]:
    """Every process that was started from here, at any remove."""
    for path in (proc / pid / "task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            for child in path.read_text(encoding="ascii").split():
                yield child
                yield from _descendants(proc, child)


def _own_bytes(proc: Path, pid: str) -> int:
    """What a process has of memory that is no file's: it is free when the process ends."""
    try:
        values = dict(_words((proc / pid / "status").read_text(encoding="utf-8", errors="replace")))
        return sum(int(values.get(key, 0)) for key in ("RssAnon:", "RssShmem:")) << 10
    except (OSError, ValueError):
        return 0


def taken_port(ports: Sequence[int]) -> int | None:
    """The first of these ports of the loopback interface that somebody has; None if all are free."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As QEMU asks for it: what a connection has left behind a moment ago is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    return port
    return None


def holder_of(port: int, *, proc: Path = _PROC) -> str:
    """Which process listens at a port, `nginx (process 123)`; empty if nobody can tell, as of another user's."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                # State 0A: it listens.
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for fd in proc.glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(fd) in inodes:
                pid = fd.parts[-3]
                return f"{(proc / pid / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (process {pid})"
    return ""
