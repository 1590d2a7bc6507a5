"""Processes that do nothing but keep CPUs busy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# They end by themselves when their time is over or their parent is gone, whatever became of it.
_BUSY = """
import os, sys, time
parent, end_s = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while os.getppid() == parent and time.monotonic() < end_s:
    sum(range(20_000))
"""


@contextmanager
def busy_processes(n: int, *, at_most_s: float) -> Iterator[None]:
    """Keep `n` CPUs busy while the block runs, and `at_most_s` seconds in any case."""
    with ExitStack() as started:
        for _ in range(n):
            process = subprocess.Popen(
                [sys.executable, "-c", _BUSY, str(os.getpid()), str(at_most_s)],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the owner
            )
            started.callback(process.wait)
            started.callback(process.kill)
        yield
