"""What this computer's kernel says of CPU time and memory."""

from __future__ import annotations

import resource
from pathlib import Path


def own_cpu_s() -> float:
    """CPU seconds of this process so far, user's and system's."""
    return _sum_s(resource.RUSAGE_SELF)


def children_cpu_s() -> float:
    """The same of all processes that it has started and collected."""
    return _sum_s(resource.RUSAGE_CHILDREN)


def _sum_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def pss_bytes(pid: int) -> int:
    """Memory of a process, in which what n processes share counts 1/n for each."""
    return _field_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def available_bytes() -> int:
    """Memory that could be had without swapping."""
    return _field_bytes(Path("/proc/meminfo"), "MemAvailable")


def _field_bytes(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(f"{path} has no line {name}")
