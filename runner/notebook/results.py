"""What a run has measured, set by set, in the order in which it reached the data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from runner.data.database import is_blank, row_of
from runner.data.history import reading
from runner.data.reuse import stored_jobs
from runner.errors import UsageError
from runner.events import JobRecord

#: Results that are in memory at a time, without their jobs: some 100 kB.
PAGE_RESULTS = 256
# Rows of `runs` are only ever added, but for those of attempts that failed.
_PAGE = """
SELECT runs.rowid AS row, run_id, taskset_id, name, scheduler, n_tasks, utilization, utilization_target, machine, repetition,
    outcome, validity, schedulable, runs.n_jobs, n_missed, wall_s,
    (SELECT max(1.0 * response_ns / (deadline_abs_ns - release_ns)) FROM jobs WHERE jobs.run_id = runs.run_id) AS worst_response
FROM runs JOIN tasksets USING (taskset_id)
WHERE runs.rowid > ? AND outcome IN ('completed', 'timeout', 'rejected') ORDER BY runs.rowid LIMIT ?
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measurement of one task set.

    Attributes:
        run_id: Its key in the table `runs`.
        taskset_id, name: Of the set; its tasks are in the table `tasks`.
        scheduler: `fifo`, `deadline` …
        utilization, utilization_target: Of the set; what was asked for. None where that is not known.
        repetition: 1 … n where each set is measured n times.
        outcome: `completed`, `timeout` (an overload: ended with work left) or `rejected` (by the kernel's admission test).
        validity: How far it is the set's own doing: `exact`, `computed`, `undisturbed`, `disturbed`.
        schedulable: No job missed its deadline; an observation, not a proof. None where failed jobs leave it open.
        n_jobs, n_missed: Jobs, and those that missed their deadline.
        wall_s: Real seconds that it took.
        worst_response: The largest response time over its relative deadline; None if no job has finished.
    """

    run_id: str
    taskset_id: str
    name: str
    scheduler: str
    n_tasks: int
    utilization: float | None
    utilization_target: float | None
    machine: str
    repetition: int
    outcome: str
    validity: str | None
    schedulable: bool | None
    n_jobs: int | None
    n_missed: int | None
    wall_s: float
    worst_response: float | None
    row: int = field(repr=False)
    path: Path = field(repr=False)

    @cached_property
    def jobs(self) -> tuple[JobRecord, ...]:
        """Its jobs, by task and release; read when they are asked for.

        Raises:
            UsageError, HostError: the data set cannot be read any more.
        """
        with reading(self.path) as database:
            try:
                return stored_jobs(database, self.run_id)
            except ValueError as exc:
                raise UsageError(
                    f"{self.path} was changed after it was written: run {self.run_id}: {exc}",
                    next_step="bring the file back as its run left it",
                ) from exc


def _result(values: dict[str, object], path: Path) -> Result:
    verdict = values["schedulable"]
    values["schedulable"] = None if verdict is None else bool(verdict)
    return row_of(Result, {**values, "path": path})


class ResultReader:
    """Reads the results of a run, a page at a time, also while the run goes on.

    Guarantees: each result once, in the order in which they were written, however slow the reader is. The file is open only
    while a page is read, so nobody keeps the runner from closing it; memory holds a page.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._row = 0
        self._begun = False

    def page(self) -> list[Result]:
        """The next ones that are there, at most `PAGE_RESULTS`.

        Raises:
            UsageError, HostError: the data set cannot be read.
        """
        if not self._begun and (not self._path.exists() or is_blank(self._path)):
            return []
        self._begun = True
        with reading(self._path) as database:
            rows = database.execute(_PAGE, (self._row, PAGE_RESULTS)).fetchall()
            found = [_result(dict(row), self._path) for row in rows]
        self._row = found[-1].row if found else self._row
        return found
