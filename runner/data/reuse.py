"""Results of an earlier run, found by what was measured, so that nobody has to measure it again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from errno import errorcode
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.data.database import SQLITE_ERRORS, open_database, unreadable
from runner.errors import UsageError
from runner.events import (
    REPEATABLE,
    VALID_OUTCOMES,
    EndEvent,
    Event,
    ExitType,
    JobEvent,
    JobRecord,
    Outcome,
    RefusedEvent,
    RunResult,
    StartEvent,
    TaskDoneEvent,
    Validity,
)

RESULTS_NAME = "results.sqlite"


def _listed(members: frozenset[Outcome] | frozenset[Validity]) -> str:
    return ", ".join(f"'{member.value}'" for member in sorted(members))


_FIND = (
    "SELECT run_id, outcome, validity, t0_guest_ns, end_ns, table_sha256, reused_from"  # noqa: S608 - own names
    " FROM runs JOIN tasksets USING (taskset_id) WHERE identity = ? AND state IS NOT 'unrepeatable'"
    f" AND outcome IN ({_listed(VALID_OUTCOMES)}) AND validity IN ({_listed(REPEATABLE)})"
    " ORDER BY repetition, attempt LIMIT 1"
)
_JOBS = f"SELECT {', '.join(JobRecord._fields)} FROM jobs WHERE run_id = ? ORDER BY task_idx, job_idx"  # noqa: S608
_EVENTS = "SELECT kind, t_ns, task_idx, value FROM events WHERE run_id = ? ORDER BY seq"


@dataclass(frozen=True, kw_only=True)
class EarlierResult(RunResult):
    """A result that was measured before.

    Attributes:
        events: What its monitors were told besides of its jobs, in that order.
    """

    events: tuple[Event, ...] = ()

    def replayed(self) -> Iterator[Event]:
        """All its events; the order of the jobs among them is not known any more: they come before the first task's end."""
        told = False
        for event in self.events:
            if not told and isinstance(event, TaskDoneEvent | EndEvent):
                yield from map(JobEvent, self.jobs)
                told = True
            yield event


def stored_table_sha256(database: sqlite3.Connection, run_id: str) -> str | None:
    """Digest of the jobs that the data hold of a valid run; None where they are none that a run could have.

    Raises:
        sqlite3.Error: they cannot be read.
    """
    try:
        jobs = stored_jobs(database, run_id)
    except ValueError:
        return None
    return RunResult(outcome=Outcome.COMPLETED, jobs=jobs).table_sha256


def stored_jobs(database: sqlite3.Connection, run_id: str) -> tuple[JobRecord, ...]:
    """The jobs that the data hold of a valid run, by task and release.

    Raises:
        sqlite3.Error: they cannot be read.
        ValueError: they are none that a run could have: an exit type that there is not.
    """
    return tuple([_job(row) for row in database.execute(_JOBS, (run_id,))])


class EarlierRun:
    """The data of another run, finished or not, open for looking up results.

    Guarantees: never writes to the data, and does not hinder a runner that does; yields only what is bit-repeatable, and only
    after its job table was compared with the digest that was stored with it.
    Threads: every method may be called from any thread; `close()` once, when nobody asks any more.

    Args:
        path: A run folder, or an SQLite file.

    Raises:
        UsageError: when there is no data set of this version's schema.
        HostError: when it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = (path / RESULTS_NAME if path.is_dir() else path).absolute()
        self._database = open_database(self.path)
        self._lock = threading.Lock()

    def find(self, identity: str) -> EarlierResult | None:
        """The result of that `measurement_identity`, with `wall_s` 0; None if it is not among the data.

        Raises:
            UsageError: when the data were changed after they were written.
            HostError: when they cannot be read any more.
        """
        try:
            with self._lock:
                found = self._database.execute(_FIND, (identity,)).fetchone()
                if found is None:
                    return None
                jobs = self._database.execute(_JOBS, found[:1]).fetchall()
                events = self._database.execute(_EVENTS, found[:1]).fetchall()
        except SQLITE_ERRORS as exc:
            raise unreadable(self.path, exc) from exc
        return self._result(found, jobs, events)

    def _result(
        self, found: tuple[Any, ...], jobs: list[tuple[Any, ...]], events: list[tuple[Any, ...]]
    ) -> EarlierResult:
        run_id, outcome, validity, t0_guest_ns, end_ns, table_sha256, reused_from = found
        try:
            result = EarlierResult(
                outcome=Outcome(outcome),
                validity=Validity(validity),
                jobs=tuple([_job(row) for row in jobs]),
                t0_guest_ns=t0_guest_ns,
                end_ns=end_ns,
                events=tuple([_event(*row) for row in events]),
                # Who reads this looks for the measurement, not for whom it was handed on by.
                reused_from=reused_from or f"{run_id} in {self.path}",
            )
        except ValueError as exc:
            raise self._changed(run_id, str(exc)) from exc
        if result.table_sha256 != table_sha256:
            raise self._changed(run_id, f"its jobs have SHA-256 {result.table_sha256}, not {table_sha256}")
        return result

    def _changed(self, run_id: str, how: str) -> UsageError:
        return UsageError(
            f"{self.path} was changed after it was written: run {run_id}: {how}",
            where="reuse",
            next_step="bring the file back as its run left it, or run without reuse",
        )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _job(row: tuple[Any, ...]) -> JobRecord:
    job = JobRecord._make(row)
    return job._replace(exit_type=ExitType(job.exit_type))


def _event(kind: str, t_ns: int, task_idx: int, value: int) -> Event:
    match kind:
        case "start":
            return StartEvent(value)
        case "refused":
            return RefusedEvent(task_idx, value, errorcode.get(value, str(value)))
        case "task_done":
            return TaskDoneEvent(task_idx, t_ns)
        case "end":
            return EndEvent(t_ns, stopped=bool(value))
    raise ValueError(f"an event {kind!r}")
