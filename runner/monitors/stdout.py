"""Task sets as lines on the standard output."""

from __future__ import annotations

import sys
from typing import TextIO

from runner.errors import RunnerError
from runner.events import Run, RunResult
from runner.monitors.base import AbstractMonitor
from runner.monitors.digest import finished_line, started_line, stopped_line


class StdoutMonitor(AbstractMonitor):
    """Print a line when an attempt at a task set starts and when it ends, as it happens.

    Args:
        stream: Where to print instead of the standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def __taskset_start__(self, run: Run) -> None:
        self._print(run, "run", started_line(run))

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._print(run, "done", finished_line(run, result))

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        self._print(run, "again", stopped_line(run, result))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self._print(run, "bad", f"{run.taskset.name} [{run.taskset.taskset_id}]: {error.what}")

    def _print(self, run: Run, what: str, text: str) -> None:
        # Asked each time: the standard output may have been redirected meanwhile.
        print(f"{run.machine:<8}{what:<6}{text}", file=self._stream or sys.stdout, flush=True)
