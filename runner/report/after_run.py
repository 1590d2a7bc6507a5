"""The report at the end of a run: made by a process of its own, within bounds, so that the run loses nothing by it."""

from __future__ import annotations

import logging
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

from runner.paths import RunPaths

TIMEOUT_S = 180.0
# Measured: 0.2 GiB for some sets, 0.6 GiB for 10^6 jobs. It is address space, of which libraries take more than memory.
MEMORY_BYTES = 3 << 30
_TOLD_CHARS = 500
_log = logging.getLogger("runner.report")


def report_after(
    paths: RunPaths, results: Path, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES
) -> bool:
    """Make `report.html` in the run folder; True: it is there.

    Guarantees: raises nothing, and returns after `timeout_s` at the latest. What went wrong is a line of the log, with the command
    that makes the report. Its process has a low priority, bounded memory and CPU time, and so outlives nobody for long.
    """
    arguments = ["-m", "runner.report", str(results), "--output", str(paths.report)]
    by_hand = shlex.join(["python", *arguments])
    try:
        with subprocess.Popen(
            ["nice", "-n", "10", sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        ) as process:
            # Before it has taken any: its interpreter starts meanwhile.
            resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            cpu_s = int(timeout_s) + 1
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
            try:
                _, told = process.communicate(timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        failure = (
            ""
            if process.returncode == 0
            else told[-_TOLD_CHARS:].strip() or f"ended with {process.returncode}"
        )
    except subprocess.TimeoutExpired:
        failure = f"not ready after {timeout_s:g} s"
    except OSError as exc:
        failure = str(exc)
    if failure:
        _log.warning(
            "no report was made (%s); the data are complete. To make it: %s",
            failure.splitlines()[-1],
            by_hand,
        )
    return not failure
