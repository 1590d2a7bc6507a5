"""Whether a ledger is sound: nothing lost, nothing doubled, nothing half there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from runner.data.database import SQLITE_ERRORS, is_blank, open_database, row_of, unreadable
from runner.data.reuse import stored_table_sha256

# Of one kind; more would not be read.
_SHOWN = 5
_COUNTS = "SELECT submission, source, n_submitted, n_done, n_bad, n_pending, complete FROM progress"
# Counted the other way round than the view does, which takes the difference.
_PENDING = """
WITH sets AS (
    SELECT submission, set_idx, max(state = 'bad') AS bad, count(*) FILTER (WHERE state = 'done') AS n_measured
    FROM ledger GROUP BY submission, set_idx
)
SELECT max(coalesce(n_total, 0) - coalesce(max(set_idx) + 1, 0), 0)
    + coalesce(max(set_idx) + 1, 0) - count(set_idx) FILTER (WHERE bad OR n_measured >= repeat)
FROM submissions LEFT JOIN sets USING (submission) WHERE submission = ?
"""
#: What must not be found, and a query that finds it: one row each, the first column names the culprit.
_RULES = (
    (
        "a measurement is done, and has no valid run of that task set",
        "SELECT set_idx || ', repetition ' || ledger.repetition FROM ledger LEFT JOIN valid_runs USING (run_id)"
        " WHERE state = 'done' AND valid_runs.taskset_id IS NOT ledger.taskset_id",
    ),
    (
        "a valid run belongs to no measurement",
        "SELECT run_id FROM valid_runs WHERE run_id NOT IN (SELECT run_id FROM ledger WHERE run_id IS NOT NULL)",
    ),
    (
        "two task sets share a place in their source",
        "SELECT set_idx FROM ledger GROUP BY submission, set_idx HAVING count(DISTINCT taskset_id) > 1",
    ),
    (
        "more measurements of a set than were asked for",
        "SELECT set_idx FROM ledger JOIN submissions USING (submission) GROUP BY submission, set_idx"
        " HAVING count(*) > repeat",
    ),
    (
        "a run has another number of jobs than it says",
        "SELECT run_id FROM runs WHERE coalesce(n_jobs, 0) <> (SELECT count(*) FROM jobs WHERE jobs.run_id = runs.run_id)",
    ),
    (
        "an attempt that does not count has a label, jobs or events",
        "SELECT run_id FROM runs WHERE run_id NOT IN (SELECT run_id FROM valid_runs) AND (schedulable IS NOT NULL OR n_missed IS NOT NULL"
        " OR EXISTS (SELECT 1 FROM jobs WHERE jobs.run_id = runs.run_id)"
        " OR EXISTS (SELECT 1 FROM events WHERE events.run_id = runs.run_id))",
    ),
    (
        "equal identities have different job tables",
        "SELECT identity FROM valid_runs WHERE identity IS NOT NULL GROUP BY identity"
        " HAVING count(DISTINCT table_sha256) > 1",
    ),
    (
        "a task set has another number of tasks than it says",
        "SELECT taskset_id FROM tasksets WHERE n_tasks <>"
        " (SELECT count(*) FROM tasks WHERE tasks.taskset_id = tasksets.taskset_id)",
    ),
    (
        "a task set counts as measured, and has no valid run",
        "SELECT taskset_id FROM tasksets WHERE state = 'done'"
        " AND taskset_id NOT IN (SELECT taskset_id FROM valid_runs)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """One submission: `n_submitted` = `n_done` + `n_bad` + `n_pending`.

    Attributes:
        n_submitted: Task sets; of a source that does not tell how many it has, those that were handed out.
        complete: Whether `n_submitted` is all that there are.
    """

    submission: int
    source: str
    n_submitted: int
    n_done: int
    n_bad: int
    n_pending: int
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found.

    Attributes:
        accounts: Of each submission.
        n_runs: Attempts.
        n_jobs: Jobs.
        violations: What must not be, a sentence each; empty where the ledger is sound.
    """

    accounts: tuple[Account, ...] = ()
    n_runs: int = 0
    n_jobs: int = 0
    violations: tuple[str, ...] = ()


def audit(path: Path, *, digests: bool = True) -> Audit:
    """Look through a ledger; one that its runner is writing to is seen as it is at one instant.

    Args:
        path: The SQLite file. One that its runner never came to write to is sound, and empty.
        digests: Compare every job table with its digest, too: about 2 s for a million jobs.

    Raises:
        UsageError: there is none, or of another schema.
        HostError: it cannot be read.
    """
    if path.is_file() and is_blank(path):
        return Audit()
    with closing(open_database(path)) as database:
        try:
            database.execute("BEGIN")
            return Audit(
                accounts=tuple(accounts_of(database)),
                n_runs=database.execute("SELECT count(*) FROM runs").fetchone()[0],
                n_jobs=database.execute("SELECT count(*) FROM jobs").fetchone()[0],
                violations=tuple(_violations(database, digests=digests)),
            )
        except SQLITE_ERRORS as exc:
            raise unreadable(path, exc) from exc


def accounts_of(database: sqlite3.Connection) -> Iterator[Account]:
    """Of each submission in an open data set."""
    names = [field.name for field in fields(Account)]
    for row in database.execute(_COUNTS):
        account = row_of(Account, dict(zip(names, row, strict=True)))
        yield replace(account, complete=bool(account.complete))


def _violations(database: sqlite3.Connection, *, digests: bool) -> Iterator[str]:
    for (found,) in database.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if found != "ok":
            yield f"the file is damaged: {found}"
    for table, row_id, parent, _ in database.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN):
        yield f"a row of {table} ({row_id}) refers to one of {parent} that is not there"
    for one in accounts_of(database):
        (n_pending,) = database.execute(_PENDING, (one.submission,)).fetchone()
        if n_pending != one.n_pending:
            yield (
                f"submission {one.submission}: {one.n_submitted} submitted,"
                f" but {one.n_done} done + {one.n_bad} bad + {n_pending} pending"
            )
    for rule, query in _RULES:
        found = [str(row[0]) for row in database.execute(query).fetchmany(_SHOWN + 1)]
        if found:
            more = ", …" if len(found) > _SHOWN else ""
            yield f"{rule}: {', '.join(found[:_SHOWN])}{more}"
    if digests:
        yield from _wrong_digests(database)


def _wrong_digests(database: sqlite3.Connection) -> Iterator[str]:
    n_wrong = 0
    runs = database.execute("SELECT run_id, table_sha256 FROM valid_runs")
    for run_id, table_sha256 in runs:
        if stored_table_sha256(database, run_id) != table_sha256:
            n_wrong += 1
            if n_wrong <= _SHOWN:
                yield f"the jobs of run {run_id} are not those that its digest was made of"
