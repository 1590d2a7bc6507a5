"""What a data set tells of its run, and of each of its machines: read in SQL, so that no number of task sets matters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runner.data.audit import Account, accounts_of
from runner.data.database import SQLITE_ERRORS, open_database, row_of, unreadable
from runner.events import VALID_OUTCOMES

#: Of one kind; whoever wants more asks the data set.
SHOWN = 20
#: An open data set, for whoever hands it on.
DataSet = sqlite3.Connection
_T = TypeVar("_T")

# A column beside max(seq) is that of the row with the highest one: SQLite promises it.
_FAULTS = (
    "SELECT fault, count(*) AS n, count(DISTINCT taskset_id) AS n_tasksets, count(DISTINCT machine) AS n_machines,"
    " max(seq) AS last_seq, utc AS last_utc, substr(what, 1, 4000) AS last_what FROM incidents WHERE {where} GROUP BY fault"
    " ORDER BY n DESC"
)
_OUTCOMES = "SELECT machine, outcome, count(*) FROM runs GROUP BY 1, 2 ORDER BY length(machine), machine"
_TROUBLES = (
    "SELECT machine, count(*) AS n, count(aside_s) AS n_asides, max(seq), utc || ': ' || what AS last_fault"
    " FROM incidents GROUP BY machine"
)
_BAD = """
WITH sets AS MATERIALIZED (
    SELECT submission, set_idx, taskset_id, max(error) AS error FROM ledger
    WHERE state = 'bad' GROUP BY submission, set_idx LIMIT ?
), told AS MATERIALIZED (
    SELECT seq, taskset_id, fault, evidence FROM incidents WHERE taskset_id IN (SELECT taskset_id FROM sets)
)
SELECT submission, set_idx, taskset_id, name, error,
    (SELECT fault FROM told WHERE told.taskset_id = sets.taskset_id ORDER BY seq DESC LIMIT 1) AS fault,
    (SELECT evidence FROM told WHERE told.taskset_id = sets.taskset_id AND evidence <> ''
        ORDER BY seq DESC LIMIT 1) AS evidence
FROM sets JOIN tasksets USING (taskset_id) ORDER BY submission, set_idx
"""
_DISAGREEING = """
SELECT taskset_id, name, (SELECT max(error) FROM ledger WHERE ledger.taskset_id = tasksets.taskset_id) AS error
FROM tasksets WHERE state = 'unrepeatable' LIMIT ?
"""
_ATTEMPTS = (
    "SELECT run_id, taskset_id, name, machine, repetition, attempt, outcome, started_utc, wall_s, n_jobs, n_missed, validity,"
    " reused_from, substr(error, 1, 4000) AS error FROM runs JOIN tasksets USING (taskset_id)"
    " WHERE {where} ORDER BY started_utc DESC LIMIT ?"
)
_INCIDENTS = (
    "SELECT seq, utc, machine, fault, substr(what, 1, 4000) AS what, recovery, aside_s, taskset_id, submission, set_idx,"
    " repetition, attempt, evidence FROM incidents WHERE {where} ORDER BY seq DESC LIMIT ?"
)


@dataclass(frozen=True, kw_only=True)
class FaultCount:
    """The incidents of one kind, and the last of them."""

    fault: str
    n: int
    n_tasksets: int
    n_machines: int
    last_seq: int
    last_utc: str
    last_what: str


@dataclass(frozen=True, kw_only=True)
class MachineCount:
    """What a machine did, in numbers; `n_measured` of its attempts were valid."""

    name: str
    n_attempts: int = 0
    n_measured: int = 0
    n_incidents: int = 0
    n_asides: int = 0
    last_fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class BadSet:
    """A task set that was given up; `evidence` is a folder, relative to the run folder."""

    submission: int
    set_idx: int
    taskset_id: str
    name: str
    error: str | None
    fault: str | None
    evidence: str | None


@dataclass(frozen=True, kw_only=True)
class DisagreeingSet:
    """A task set that gave two job tables where it should have given one."""

    taskset_id: str
    name: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One row of `runs`."""

    run_id: str
    taskset_id: str
    name: str
    machine: str
    repetition: int
    attempt: int
    outcome: str
    started_utc: str
    wall_s: float
    n_jobs: int | None
    n_missed: int | None
    validity: str | None
    reused_from: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class IncidentRow:
    """One row of `incidents`."""

    seq: int
    utc: str
    machine: str
    fault: str
    what: str
    recovery: str | None
    aside_s: float | None
    taskset_id: str | None
    submission: int | None
    set_idx: int | None
    repetition: int | None
    attempt: int | None
    evidence: str | None


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """A whole run; the last of each kind where there are many."""

    accounts: tuple[Account, ...] = ()
    faults: tuple[FaultCount, ...] = ()
    machines: tuple[MachineCount, ...] = ()
    bad: tuple[BadSet, ...] = ()
    disagreeing: tuple[DisagreeingSet, ...] = ()
    n_disagreeing: int = 0


@dataclass(frozen=True, kw_only=True)
class MachineHistory:
    """One machine: its attempts by outcome, its incidents by fault and by what was done about them, and the last of both."""

    outcomes: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[FaultCount, ...] = ()
    recoveries: Mapping[str, int] = field(default_factory=dict)
    n_asides: int = 0
    attempts: tuple[AttemptRow, ...] = ()
    incidents: tuple[IncidentRow, ...] = ()

    @property
    def n_measured(self) -> int:
        """Attempts that say something about their task set."""
        return sum(n for outcome, n in self.outcomes.items() if outcome in VALID_OUTCOMES)

    @property
    def known(self) -> bool:
        """Whether the data know of it."""
        return bool(self.outcomes or self.incidents)


@contextmanager
def reading(path: Path) -> Iterator[DataSet]:
    """The data set as it is at one instant, for the functions of this module and of `set_history`.

    Raises:
        UsageError: it is missing, another program's, or damaged.
        HostError: it cannot be read.
    """
    with closing(open_database(path)) as database:
        database.row_factory = sqlite3.Row
        # Texts of a damaged file are shown as far as they can be.
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            database.execute("BEGIN")
            yield database
        except SQLITE_ERRORS as exc:
            raise unreadable(path, exc) from exc


def n_disagreements(path: Path) -> int:
    """In how many cases a run contradicts an oracle.

    Raises:
        As `reading`.
    """
    with reading(path) as database:
        (n,) = database.execute("SELECT count(*) FROM disagreements").fetchone()
    return int(n)


def all_of(kind: Callable[..., _T], database: DataSet, sql: str, *parameters: object) -> tuple[_T, ...]:
    """The rows that a query finds, its columns being the fields of `kind`."""
    return tuple(row_of(kind, dict(row)) for row in database.execute(sql, parameters))


def attempts(
    database: DataSet, where: str, *parameters: object, limit: int = SHOWN
) -> tuple[AttemptRow, ...]:
    """The last attempts, the earliest of them first."""
    return all_of(AttemptRow, database, _ATTEMPTS.format(where=where), *parameters, limit)[::-1]


def incidents(
    database: DataSet, where: str, *parameters: object, limit: int = SHOWN
) -> tuple[IncidentRow, ...]:
    """The last incidents, the earliest of them first."""
    return all_of(IncidentRow, database, _INCIDENTS.format(where=where), *parameters, limit)[::-1]


def run_history(database: DataSet) -> RunHistory:
    """What became of everything that was submitted."""
    (n_disagreeing,) = database.execute(
        "SELECT count(*) FROM tasksets WHERE state = 'unrepeatable'"
    ).fetchone()
    return RunHistory(
        accounts=tuple(accounts_of(database)),
        faults=all_of(FaultCount, database, _FAULTS.format(where="true")),
        machines=_machines(database),
        bad=all_of(BadSet, database, _BAD, SHOWN),
        disagreeing=all_of(DisagreeingSet, database, _DISAGREEING, SHOWN) if n_disagreeing else (),
        n_disagreeing=n_disagreeing,
    )


def _machines(database: DataSet) -> tuple[MachineCount, ...]:
    counts: dict[str, dict[str, Any]] = {}
    for machine, outcome, n in database.execute(_OUTCOMES):
        count = counts.setdefault(machine, {"name": machine, "n_attempts": 0, "n_measured": 0})
        count["n_attempts"] += n
        count["n_measured"] += n if outcome in VALID_OUTCOMES else 0
    for one in database.execute(_TROUBLES):
        trouble = {"n_incidents": one["n"], "n_asides": one["n_asides"], "last_fault": one["last_fault"]}
        counts.setdefault(one["machine"], {"name": one["machine"]}).update(trouble)
    return tuple(MachineCount(**count) for count in counts.values())


def machine_history(database: DataSet, name: str) -> MachineHistory:
    """What became of one machine."""
    outcomes = "SELECT outcome, count(*) FROM runs WHERE machine = ? GROUP BY outcome ORDER BY 2 DESC"
    recoveries = "SELECT recovery, count(*) FROM incidents WHERE machine = ? AND recovery IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
    asides = "SELECT count(aside_s) FROM incidents WHERE machine = ?"
    return MachineHistory(
        outcomes=dict(database.execute(outcomes, (name,)).fetchall()),
        faults=all_of(FaultCount, database, _FAULTS.format(where="machine = ?"), name),
        recoveries=dict(database.execute(recoveries, (name,)).fetchall()),
        n_asides=database.execute(asides, (name,)).fetchone()[0],
        attempts=attempts(database, "machine = ?", name, limit=SHOWN // 2),
        incidents=incidents(database, "machine = ?", name, limit=SHOWN // 2),
    )
