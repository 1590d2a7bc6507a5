"""One attempt at a task set, and how it gets into the tables of an SQLite data set."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from runner import rows, schema
from runner.errors import RunnerError, UnrepeatableError
from runner.events import VALID_OUTCOMES, Event, Run, RunResult

_INSERT_TASKSET = f"{schema.TASKSETS.insert} ON CONFLICT (taskset_id) DO NOTHING"
_INSERT_RUN = f"{schema.RUNS.insert} ON CONFLICT (run_id) DO NOTHING"
_SAME_RUN = "SELECT outcome, table_sha256, machine, started_utc FROM runs WHERE run_id = ?"
_DELETE_RUN = "DELETE FROM runs WHERE run_id = ?"
_DONE = "UPDATE tasksets SET state = 'done' WHERE taskset_id = ? AND (state IS NULL OR state = 'bad')"
_BAD = "UPDATE tasksets SET state = 'bad' WHERE taskset_id = ? AND state IS NULL"
_UNREPEATABLE = "UPDATE tasksets SET state = 'unrepeatable' WHERE taskset_id = ?"


@dataclass(frozen=True)
class Record:
    """What is written as a whole or not at all: an attempt, or (without a result) why its set was given up."""

    run: Run
    result: RunResult | None
    events: tuple[Event, ...] = ()
    error: RunnerError | None = None

    @property
    def n_jobs(self) -> int:
        """Rows in `jobs` that it may become."""
        return 0 if self.result is None else len(self.result.jobs)

    def insert(self, database: sqlite3.Connection) -> None:
        """Add its rows, inside the caller's transaction; what is known already changes nothing.

        Raises:
            UnrepeatableError: when the run is in the data with another job table, though equal identities mean equal tables.
            sqlite3.Error: when a row does not fit, or the file cannot be written.
        """
        run, result, taskset = self.run, self.result, self.run.taskset
        if database.execute(_INSERT_TASKSET, rows.taskset_row(taskset)).rowcount:
            database.executemany(schema.TASKS.insert, rows.task_rows(taskset))
        if result is None:
            if isinstance(self.error, UnrepeatableError):
                self.condemn(database)
            else:
                database.execute(_BAD, (taskset.taskset_id,))
            return
        row = rows.run_row(run, result)
        if not database.execute(_INSERT_RUN, row).rowcount:
            if self._known(database, result):
                return
            database.execute(_DELETE_RUN, (run.run_id,))
            database.execute(_INSERT_RUN, row)
        if result.outcome in VALID_OUTCOMES:
            database.executemany(schema.JOBS.insert, rows.job_rows(run, result.jobs))
            database.executemany(schema.EVENTS.insert, rows.event_rows(run.run_id, self.events))
            database.execute(_DONE, (taskset.taskset_id,))

    def condemn(self, database: sqlite3.Connection) -> None:
        """Mark the set as one that does not repeat; that stays."""
        database.execute(_UNREPEATABLE, (self.run.taskset.taskset_id,))

    def _known(self, database: sqlite3.Connection, result: RunResult) -> bool:
        """Whether the row with this `run_id` says all that there is to say: an invalid one has no rows elsewhere."""
        run = self.run
        found = database.execute(_SAME_RUN, (run.run_id,)).fetchone()
        outcome, table_sha256, machine, started_utc = found
        if outcome not in VALID_OUTCOMES:
            return False
        if result.table_sha256 not in (None, table_sha256):
            raise UnrepeatableError(
                f"task set {run.taskset.taskset_id} does not repeat: run {run.run_id} of {started_utc} on {machine} is in the data"
                f" with job table {table_sha256}, and {run.machine} has now measured {result.table_sha256}",
                next_step="the data keep the first; look for what reaches the guest besides the task set,"
                " or write to another file",
            )
        return True
