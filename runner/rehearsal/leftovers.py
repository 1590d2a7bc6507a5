"""What a run that has ended has left behind, though it should not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from runner.rehearsal.processes import bury, descendants

# The kernel ends an emulator whose runner was killed at once; it takes a while to give back its memory.
_GONE_S = 3.0
_LOOK_S = 0.01


def leftovers(run_folder: Path, temporary: Path, *, killed: bool) -> Iterator[str]:
    """A sentence for each thing.

    Args:
        temporary: Where it was to put temporary files.
        killed: It had no chance to clear away its files; whoever resumes it has.
    """
    end_s = time.monotonic() + _GONE_S
    while (left := _left()) and time.monotonic() < end_s:
        time.sleep(_LOOK_S)
    yield from (f"process {pid} is left: {command[:80]}" for pid, command in left.items())
    if killed:
        return
    yield from (f"a temporary file is left: {path.name}" for path in temporary.rglob("*"))
    for path in run_folder.rglob("*"):
        ours = path.is_file() or path.is_dir()
        if not ours or (path.name.startswith(".") and path.is_file()):
            yield f"{path.relative_to(run_folder)} is left in the run folder"


def _left() -> dict[int, str]:
    bury()
    return descendants(os.getpid())


def fingerprint() -> tuple[int, int]:
    """How many threads and descriptors this process has; waits for the kernel to bury threads that were joined."""
    end_s = time.monotonic() + _GONE_S
    while len(os.listdir("/proc/self/task")) > threading.active_count() and time.monotonic() < end_s:
        time.sleep(_LOOK_S)
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
