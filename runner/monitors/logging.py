"""Task sets in the run's log."""

from __future__ import annotations

import logging

from runner.errors import RunnerError, UsageError
from runner.events import Event, Run, RunResult
from runner.monitors.base import AbstractMonitor
from runner.monitors.digest import finished_line, started_line, stopped_line


class LoggingMonitor(AbstractMonitor):
    """Log a line when an attempt at a task set starts and when it ends; its single events at DEBUG.

    An attempt that does not count is a WARNING, a task set that is given up an ERROR. Sets up no handler: where lines go
    is decided by whoever configures `logging`.

    Args:
        level: Level of the lines about starts and finishes: `DEBUG`, `INFO` …
        logger: Name of the logger.

    Raises:
        UsageError: when there is no such level.
    """

    def __init__(self, level: str = "INFO", logger: str = "runner.tasksets") -> None:
        levels = logging.getLevelNamesMapping()
        if level.upper() not in levels:
            raise UsageError(
                f"LoggingMonitor: level is {level!r}", next_step=f"choose one of: {', '.join(levels)}"
            )
        self._level = levels[level.upper()]
        self._logger = logging.getLogger(logger)

    def __taskset_start__(self, run: Run) -> None:
        self._logger.log(self._level, "%s: start %s", run.machine, started_line(run))

    def __taskset_event__(self, run: Run, event: Event) -> None:
        self._logger.debug("%s: %s %s", run.machine, run.taskset.taskset_id, event)

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        if self._logger.isEnabledFor(self._level):
            self._logger.log(self._level, "%s: finish %s", run.machine, finished_line(run, result))

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        self._logger.warning("%s: stop %s", run.machine, stopped_line(run, result))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        taskset = run.taskset
        self._logger.error(
            "%s: bad %s [%s], given up after %d attempts: %s%s",
            run.machine,
            taskset.name,
            taskset.taskset_id,
            run.attempt,
            error.what,
            f" (log: {error.log_path})" if error.log_path else "",
        )
