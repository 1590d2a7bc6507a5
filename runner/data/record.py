"""What is written to the ledger as a whole or not at all."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Protocol

from runner.analysis import CHEAP_TESTS, Finding, analyse
from runner.data import rows, schema
from runner.data.ideal import simulated
from runner.errors import RunnerError, UnrepeatableError
from runner.events import VALID_OUTCOMES, Event, Outcome, Run, RunResult, Validity
from runner.faults.incidents import Incident
from runner.submission import Submission

_SUBMIT = (
    f"{schema.SUBMISSIONS.insert} ON CONFLICT (submission) DO UPDATE SET repeat = excluded.repeat,"
    " n_total = coalesce(excluded.n_total, n_total)"
)
_IS_KNOWN = "SELECT 1 FROM tasksets WHERE taskset_id = ?"
_IS_SIMULATED = "SELECT 1 FROM analyses WHERE taskset_id = ? AND test = 'simulation'"
_INSERT_RUN = f"{schema.RUNS.insert} ON CONFLICT (run_id) DO NOTHING"
_REPLACE_RUN = schema.RUNS.insert.replace("INSERT", "INSERT OR REPLACE", 1)
_SAME_RUN = "SELECT table_sha256, machine, started_utc FROM runs WHERE run_id = ?"
_DONE = "UPDATE tasksets SET state = 'done' WHERE taskset_id = ? AND (state IS NULL OR state = 'bad')"
_BAD = "UPDATE tasksets SET state = 'bad' WHERE taskset_id = ? AND state IS NULL"
_UNREPEATABLE = "UPDATE tasksets SET state = 'unrepeatable' WHERE taskset_id = ?"

_BEGIN = f"{schema.LEDGER.insert} ON CONFLICT DO NOTHING"
_TAKE_OVER = (
    "ON CONFLICT DO UPDATE SET state = excluded.state, n_failed = excluded.n_failed, run_id = excluded.run_id,"
    " error = excluded.error"
)
# A set that was given up stays so, whatever its other measurements, still out then, come to.
_SUCCEED = f"{schema.LEDGER.insert} {_TAKE_OVER} WHERE state <> 'bad'"
_FAIL = f"{schema.LEDGER.insert} {_TAKE_OVER} WHERE state = 'pending'"
_GIVE_UP = (
    f"{schema.LEDGER.insert} {_TAKE_OVER.replace('excluded.run_id', 'coalesce(excluded.run_id, run_id)')}"
)
_GIVE_UP_REST = "UPDATE ledger SET state = 'bad' WHERE submission = ? AND set_idx = ? AND state = 'pending'"


class Entry(Protocol):
    """Something that the ledger is told."""

    @property
    def n_jobs(self) -> int:
        """Rows in `jobs` that it may become: what it weighs while it waits in memory."""
        ...

    @property
    def subject(self) -> str:
        """What it is about, for messages."""
        ...

    def insert(self, database: sqlite3.Connection) -> None:
        """Add its rows, inside the caller's transaction; what is known already changes nothing.

        Raises:
            sqlite3.Error: when a row does not fit, or the file cannot be written.
        """
        ...


@dataclass(frozen=True)
class Submitted:
    """Task sets were handed in, or it has become known how many they are."""

    submission: Submission
    n_jobs: int = 0

    @property
    def subject(self) -> str:
        return f"submission {self.submission.number}"

    def insert(self, database: sqlite3.Connection) -> None:
        """Add or complete its row."""
        one = self.submission
        database.execute(_SUBMIT, (one.number, one.source, one.repeat, one.n_total))


@dataclass(frozen=True)
class Begun:
    """An attempt begins: its set was handed out."""

    submission: int
    run: Run
    n_jobs: int = 0
    tests: tuple[str, ...] = CHEAP_TESTS

    @property
    def subject(self) -> str:
        return _named(self.run)

    def insert(self, database: sqlite3.Connection) -> None:
        """The set is pending, unless more is known."""
        _insert_taskset(database, self.run, self.tests)
        database.execute(_BEGIN, _entry(self.submission, self.run, "pending", n_failed=self.run.attempt - 1))


@dataclass(frozen=True)
class Noted:
    """Something went wrong on a machine."""

    submission: int | None
    incident: Incident
    n_jobs: int = 0

    @property
    def subject(self) -> str:
        return f"an incident on {self.incident.machine}"

    def insert(self, database: sqlite3.Connection) -> None:
        """Add its row."""
        database.execute(schema.INCIDENTS.insert, rows.incident_row(self.incident, self.submission))


@dataclass(frozen=True)
class Record:
    """An attempt that ended, or (without a result) why its set was given up.

    Attributes:
        submission: The ledger's number of the submission that the set belongs to.
        tests: Analyses that are written beside a set that is not known yet; none: not the ideal processor's, either.
    """

    submission: int
    run: Run
    result: RunResult | None
    events: tuple[Event, ...] = ()
    error: RunnerError | None = None
    tests: tuple[str, ...] = CHEAP_TESTS

    @property
    def n_jobs(self) -> int:
        return 0 if self.result is None else len(self.result.jobs)

    @property
    def subject(self) -> str:
        return _named(self.run)

    def insert(self, database: sqlite3.Connection) -> None:
        """Add the attempt's data, and what that makes of its set.

        Raises:
            UnrepeatableError: when the run is in the data with another job table, though equal identities mean equal tables.
        """
        _insert_taskset(database, self.run, self.tests)
        if self.result is None:
            self._give_up(database)
        elif self.result.outcome in VALID_OUTCOMES:
            self._succeed(database, self.result)
        else:
            self._fail(database, self.result)

    def condemn(self, database: sqlite3.Connection) -> None:
        """Mark the set as one that does not repeat; that stays."""
        _insert_taskset(database, self.run, self.tests)
        database.execute(_UNREPEATABLE, (self.run.taskset.taskset_id,))
        self._mark_bad(database)

    def _succeed(self, database: sqlite3.Connection, result: RunResult) -> None:
        run = self.run
        if database.execute(_INSERT_RUN, rows.run_row(run, result)).rowcount:
            database.executemany(schema.JOBS.insert, rows.job_rows(run, result.jobs))
            database.executemany(schema.EVENTS.insert, rows.event_rows(run.run_id, self.events))
            database.execute(_DONE, (run.taskset.taskset_id,))
            if self.tests and result.validity is not Validity.COMPUTED:
                _insert_ideal(database, run)
        else:
            self._compare(database, result)
        done = _entry(self.submission, run, "done", n_failed=run.attempt - 1, run_id=run.run_id)
        database.execute(_SUCCEED, done)

    def _fail(self, database: sqlite3.Connection, result: RunResult) -> None:
        run = self.run
        database.execute(_REPLACE_RUN, rows.run_row(run, result))
        # What the operator ended did not fail.
        n_failed = run.attempt - (result.outcome is Outcome.ABORTED)
        error = result.error.splitlines()[0] if result.error else None
        database.execute(_FAIL, _entry(self.submission, run, "pending", n_failed=n_failed, error=error))

    def _give_up(self, database: sqlite3.Connection) -> None:
        unrepeatable = isinstance(self.error, UnrepeatableError)
        database.execute(_UNREPEATABLE if unrepeatable else _BAD, (self.run.taskset.taskset_id,))
        self._mark_bad(database)

    def _mark_bad(self, database: sqlite3.Connection) -> None:
        run = self.run
        error = None if self.error is None else self.error.what
        database.execute(_GIVE_UP, _entry(self.submission, run, "bad", n_failed=run.attempt, error=error))
        database.execute(_GIVE_UP_REST, (self.submission, run.set_idx))

    def _compare(self, database: sqlite3.Connection, result: RunResult) -> None:
        run = self.run
        table_sha256, machine, started_utc = database.execute(_SAME_RUN, (run.run_id,)).fetchone()
        if result.table_sha256 != table_sha256:
            raise UnrepeatableError(
                f"task set {run.taskset.taskset_id} does not repeat: run {run.run_id} of {started_utc} on {machine} is in the data"
                f" with job table {table_sha256}, and {run.machine} has now measured {result.table_sha256}",
                next_step="the data keep the first; look for what reaches the guest besides the task set,"
                " or write to another file",
            )


def _named(run: Run) -> str:
    return f"task set {run.taskset.taskset_id} from {run.machine}"


def _insert_taskset(database: sqlite3.Connection, run: Run, tests: tuple[str, ...]) -> None:
    # Asked first: to make the rows takes longer.
    if database.execute(_IS_KNOWN, (run.taskset.taskset_id,)).fetchone() is None:
        database.execute(schema.TASKSETS.insert, rows.taskset_row(run.taskset))
        database.executemany(schema.TASKS.insert, rows.task_rows(run.taskset))
        for finding in analyse(run.taskset, n_cpus=_n_cpus(run), tests=tests):
            _insert_finding(database, run, finding)


def _n_cpus(run: Run) -> int:
    """Processors of the guest that the set is begun on; one where nobody tells."""
    return int(run.facts.get("vcpus") or 1)


def _insert_ideal(database: sqlite3.Connection, run: Run) -> None:
    if database.execute(_IS_SIMULATED, (run.taskset.taskset_id,)).fetchone() is None:
        finding = simulated(run.taskset, n_cpus=_n_cpus(run))
        if finding is not None:
            _insert_finding(database, run, finding)


def _insert_finding(database: sqlite3.Connection, run: Run, finding: Finding) -> None:
    database.execute(schema.ANALYSES.insert, rows.analysis_row(run.taskset, finding))
    if finding.wcrt_ns:
        database.executemany(schema.ANALYSIS_TASKS.insert, rows.analysis_task_rows(run.taskset, finding))


def _entry(
    submission: int,
    run: Run,
    state: str,
    *,
    n_failed: int,
    run_id: str | None = None,
    error: str | None = None,
) -> rows.Row:
    text = None if error is None else error.encode("utf-8", "replace").decode()
    return (
        submission,
        run.set_idx,
        run.repetition,
        run.taskset.taskset_id,
        state,
        n_failed,
        run_id,
        text,
    )
