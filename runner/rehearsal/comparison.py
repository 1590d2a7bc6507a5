"""Whether a run that was disturbed yielded what an undisturbed one did."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from runner.data.audit import audit
from runner.data.database import open_database, unreadable

_SHOWN = 3
Place = tuple[int, int, int]

_MEASURED = (
    "SELECT submission, set_idx, ledger.repetition, ledger.taskset_id, run_id, identity, outcome, schedulable, n_missed, n_jobs,"
    " table_sha256, validity FROM ledger JOIN runs USING (run_id) WHERE state = 'done'"
    " ORDER BY submission, set_idx, ledger.repetition"
)
_FAILED = "SELECT count(*) FROM runs WHERE run_id NOT IN (SELECT run_id FROM valid_runs)"
_RECOVERIES = "SELECT recovery FROM incidents WHERE recovery IS NOT NULL ORDER BY seq"
_JOBS = "SELECT * FROM jobs WHERE run_id = ? ORDER BY task_idx, job_idx"


@dataclass(frozen=True)
class Measured:
    """What became of a measurement that is done."""

    taskset_id: str
    identity: str | None
    label: tuple[object, ...]
    rows: tuple[tuple[object, ...], ...]

    @property
    def job_rows(self) -> bytes:
        """The rows as text: equal bytes, equal rows."""
        return "\n".join(map(repr, self.rows)).encode()


@dataclass(frozen=True)
class DataSet:
    """What a run's file holds.

    Attributes:
        n_pending: Sets that were neither measured nor given up.
        n_bad: Sets that were given up.
        violations: What must not be, of the ledger alone.
        measured: By place: submission, set, repetition.
        n_failed: Attempts that came to nothing.
        recoveries: What machines did to be of use again, in that order.
    """

    n_pending: int
    n_bad: int
    violations: tuple[str, ...]
    measured: Mapping[Place, Measured]
    n_failed: int = 0
    recoveries: tuple[str, ...] = ()


def read_data_set(path: Path) -> DataSet:
    """All of a run's data.

    Raises:
        UsageError, HostError: it cannot be read.
    """
    found = audit(path)
    with closing(open_database(path)) as database:
        try:
            measured = dict(_measured(database))
            (n_failed,) = database.execute(_FAILED).fetchone()
            recoveries = tuple(row[0] for row in database.execute(_RECOVERIES))
        except sqlite3.Error as exc:
            raise unreadable(path, exc) from exc
    return DataSet(
        n_pending=sum(one.n_pending for one in found.accounts) if found.accounts else 1,
        n_bad=sum(one.n_bad for one in found.accounts),
        violations=found.violations,
        measured=measured,
        n_failed=n_failed,
        recoveries=recoveries,
    )


def _measured(database: sqlite3.Connection) -> Iterator[tuple[Place, Measured]]:
    for submission, set_idx, repetition, taskset_id, run_id, identity, *label in database.execute(
        _MEASURED
    ).fetchall():
        # A measurement that does not repeat has a random `run_id`, which says nothing.
        rows = tuple(row[1:] if identity is None else row for row in database.execute(_JOBS, (run_id,)))
        yield (
            (submission, set_idx, repetition),
            Measured(taskset_id, identity, tuple(label), rows),
        )


def differences(found: DataSet, reference: DataSet, *, repeats: bool) -> Iterator[str]:
    """What is wrong with a data set, a sentence each.

    Args:
        repeats: Whether each measurement is a function of its set: then everything must be equal bit for bit, otherwise the same sets
            must be done, and be equal where their identities are.
    """
    yield from found.violations
    if found.n_pending:
        yield f"{found.n_pending} sets are still pending"
    if found.n_bad != reference.n_bad:
        yield f"{found.n_bad} sets are bad, and {reference.n_bad} without the fault"
    lost = sorted(reference.measured.keys() - found.measured.keys())
    if lost:
        yield f"{len(lost)} measurements are missing: {_places(lost)}"
    added = sorted(found.measured.keys() - reference.measured.keys())
    if added:
        yield f"{len(added)} measurements are there that should not be: {_places(added)}"
    wrong = [
        place
        for place in sorted(found.measured.keys() & reference.measured.keys())
        if not _agree(found.measured[place], reference.measured[place], repeats=repeats)
    ]
    if wrong:
        yield f"{len(wrong)} measurements differ from those without the fault: {_places(wrong)}"


def _agree(one: Measured, other: Measured, *, repeats: bool) -> bool:
    if one.taskset_id != other.taskset_id:
        return False
    comparable = one.identity is not None and one.identity == other.identity
    if not comparable:
        return not repeats
    return one.label == other.label and one.job_rows == other.job_rows


def _places(places: list[Place]) -> str:
    shown = [f"set {set_idx}, repetition {repetition}" for _, set_idx, repetition in places[:_SHOWN]]
    return "; ".join(shown) + (" …" if len(places) > _SHOWN else "")
