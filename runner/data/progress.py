"""How far an earlier runner came with a submission, as its ledger tells."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from runner.data.database import SQLITE_ERRORS, is_blank, open_database, row_of, unreadable, whole_numbers
from runner.errors import UsageError
from runner.faults.tries import Tries

_COUNTS = (
    "SELECT source, repeat, CASE WHEN complete THEN n_submitted END, n_handed_out, n_done, n_bad FROM progress"
    " WHERE submission = ?"
)
# Measurements that need not be made: all of a set that was given up, and each that is done.
_ENDED = (
    "SELECT sum(CASE WHEN bad THEN ?2 ELSE n_measured END) FROM (SELECT max(state = 'bad') AS bad,"
    " count(*) FILTER (WHERE state = 'done') AS n_measured FROM ledger WHERE submission = ?1 GROUP BY set_idx)"
)
_CHUNK_SETS = 2048
_ROWS = (
    "SELECT set_idx, ledger.repetition, ledger.taskset_id, state, n_failed, identity, table_sha256, schedulable"
    " FROM ledger LEFT JOIN runs USING (run_id)"
    " WHERE submission = ? AND set_idx >= ? AND set_idx < ? ORDER BY set_idx, ledger.repetition"
)
_TRIES = (
    "SELECT set_idx, repetition, count(*) FILTER (WHERE fault = 'taskset'), count(*) FILTER (WHERE fault = 'guest'),"
    " count(*) FILTER (WHERE fault = 'host') FROM incidents"
    " WHERE submission = ? AND set_idx >= ? AND set_idx < ? GROUP BY set_idx, repetition"
)

_PAST = (
    "SELECT name, utilization_target, utilization, ledger.state = 'bad', coalesce(n_jobs, 0), coalesce(n_missed, 0), schedulable,"
    " (SELECT max(response_over_deadline) FROM responses WHERE responses.run_id = ledger.run_id)"
    " FROM ledger JOIN tasksets ON tasksets.taskset_id = ledger.taskset_id LEFT JOIN runs ON runs.run_id = ledger.run_id"
    # Of a set that was given up the first entry stands for all.
    " WHERE submission = ?1 AND (ledger.state = 'done' OR (ledger.state = 'bad' AND ledger.repetition = (SELECT min(repetition)"
    " FROM ledger AS other WHERE other.submission = ?1 AND other.set_idx = ledger.set_idx AND other.state = 'bad')))"
)


@dataclass(frozen=True, kw_only=True)
class PastSet:
    """What an earlier runner's measurement of one set came to, in the few numbers that a summary shows.

    Attributes:
        name: Of the set.
        utilization_target, utilization: What was asked for, and what it is; None where that is not known.
        bad: Whether it was given up; there is nothing else to tell then.
        n_jobs, n_missed: Its jobs, and those that missed their deadlines.
        schedulable: As `RunResult.schedulable`.
        worst_response: As a fraction of the task's deadline; None if no job finished.
    """

    name: str
    utilization_target: float | None
    utilization: float | None
    bad: bool
    n_jobs: int
    n_missed: int
    schedulable: bool | None
    worst_response: float | None


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """What is known of one task set.

    Attributes:
        taskset_id: Its content's hash.
        bad: Whether it was given up.
        measured: Repetition -> identity and digest of the job table, of each measurement that is done.
        failed: Repetition -> attempts that failed, and what they came to, of those that are not done.
        verdicts: Whether no job missed, of each measurement that is done; None where that is open.
    """

    taskset_id: str
    bad: bool
    measured: Mapping[int, tuple[str | None, str | None]]
    failed: Mapping[int, tuple[int, Tries]]
    verdicts: tuple[bool | None, ...] = ()


class Progress:
    """One submission in a ledger that nobody else writes to but who goes on with it.

    Guarantees: sets are told as they were when it was made, as long as each is asked for before it is begun anew. The file is
    open only while it is read: a reader would keep its writer from leaving it plain. Memory does not grow with the number of
    sets. Threads: one at a time; its queue sees to that.

    Attributes:
        number: Of the submission in the ledger.
        source: What yielded its sets.
        repeat: How often each was to be measured.
        n_total: How many sets there are; None while that is not known.
        n_handed_out: Sets that were handed out; each has an entry.
        n_done: Sets that are done.
        n_bad: Sets that were given up.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, number: int) -> None:
        self.path = path
        self.number = number
        self._chunk: dict[int, KnownSet] = {}
        self._chunk_start = self._chunk_end = 0
        self.source, self.repeat, self.n_total, self.n_handed_out, self.n_done, self.n_bad = database.execute(
            _COUNTS, (number,)
        ).fetchone()
        whole_numbers(self.repeat, self.n_total or 0, self.n_handed_out, self.n_done, self.n_bad)
        (end,) = database.execute(
            "SELECT coalesce(max(set_idx) + 1, 0) FROM ledger WHERE submission = ?", (number,)
        ).fetchone()
        self._end_idx: int = end

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be measured."""
        return self.n_total is not None and self.n_done + self.n_bad >= self.n_total

    def check_repeat(self, repeat: int) -> None:
        """Refuse another number of measurements for each set than the run began with.

        Raises:
            UsageError: it is another.
        """
        if repeat != self.repeat:
            raise UsageError(
                f"repeat is {repeat}, and was {self.repeat} when the run began",
                where="repeat",
                next_step="start a new run; reuse=RUN_FOLDER takes over what was measured",
            )

    @property
    def n_ended(self) -> int:
        """Measurements that need not be made any more, of `repeat` for each set."""
        with closing(open_database(self.path)) as database:
            return database.execute(_ENDED, (self.number, self.repeat)).fetchone()[0] or 0

    def known(self, set_idx: int) -> KnownSet | None:
        """What is known of the set at that place; None if it was never begun. Fast if asked in ascending order.

        Raises:
            HostError: the file cannot be read any more.
        """
        if set_idx >= self._end_idx:
            return None
        if not self._chunk_start <= set_idx < self._chunk_end:
            self._read(set_idx)
        return self._chunk.get(set_idx)

    def past(self) -> Iterator[PastSet]:
        """Every measurement that has ended, and every set that was given up, one at a time.

        Raises:
            HostError: the file cannot be read any more.
        """
        names = [field.name for field in fields(PastSet)]
        try:
            with closing(open_database(self.path)) as database:
                for row in database.execute(_PAST, (self.number,)):
                    past = dict(zip(names, row, strict=True))
                    flags = {"bad": bool(past["bad"])}
                    if past["schedulable"] is not None:
                        flags["schedulable"] = bool(past["schedulable"])
                    yield row_of(PastSet, {**past, **flags})
        except SQLITE_ERRORS as exc:
            raise unreadable(self.path, exc) from exc

    def _read(self, start_idx: int) -> None:
        end_idx = start_idx + _CHUNK_SETS
        try:
            with closing(open_database(self.path)) as database:
                rows = database.execute(_ROWS, (self.number, start_idx, end_idx)).fetchall()
                faults = database.execute(_TRIES, (self.number, start_idx, end_idx)).fetchall()
            for set_idx, repetition, _, _, n_failed, *_ in rows:
                whole_numbers(set_idx, repetition, n_failed)
        except SQLITE_ERRORS as exc:
            raise unreadable(self.path, exc) from exc
        ids: dict[int, str] = {}
        bad: set[int] = set()
        measured: dict[int, dict[int, tuple[str | None, str | None]]] = {}
        verdicts: dict[int, list[bool | None]] = {}
        tries = {(set_idx, repetition): Tries(*counts) for set_idx, repetition, *counts in faults}
        failed: dict[int, dict[int, tuple[int, Tries]]] = {}
        for set_idx, repetition, taskset_id, state, n_failed, identity, table_sha256, schedulable in rows:
            ids[set_idx] = taskset_id
            if state == "bad":
                bad.add(set_idx)
            elif state == "done":
                measured.setdefault(set_idx, {})[repetition] = (identity, table_sha256)
                verdicts.setdefault(set_idx, []).append(None if schedulable is None else bool(schedulable))
            else:
                before = tries.get((set_idx, repetition), Tries())
                # What failed otherwise was disturbed, or its incident did not reach the disk.
                others = n_failed - before.n_taskset - before.n_guest - before.n_host
                failed.setdefault(set_idx, {})[repetition] = (
                    n_failed,
                    replace(before, n_disturbed=max(0, others)),
                )
        self._chunk = {
            set_idx: KnownSet(
                taskset_id=taskset_id,
                bad=set_idx in bad,
                measured=measured.get(set_idx, {}),
                failed=failed.get(set_idx, {}),
                verdicts=tuple(verdicts.get(set_idx, ())),
            )
            for set_idx, taskset_id in ids.items()
        }
        self._chunk_start, self._chunk_end = start_idx, end_idx


def read_progress(path: Path, submission: int = 1) -> Progress | None:
    """How far the submission of that number came; None where the file is missing or knows nothing of it.

    Raises:
        UsageError: when the file is no data set of this version's schema.
        HostError: when it cannot be read.
    """
    if not path.exists() or is_blank(path):
        return None
    with closing(open_database(path)) as database:
        try:
            found = database.execute(
                "SELECT 1 FROM submissions WHERE submission = ?", (submission,)
            ).fetchone()
            return None if found is None else Progress(path, database, submission)
        except SQLITE_ERRORS as exc:
            raise unreadable(path, exc) from exc


def other_set(progress: Progress, set_idx: int, known: str, found: str) -> UsageError:
    """The error for a source that does not yield again what it yielded before."""
    return UsageError(
        f"the source of task sets yields another one at place {set_idx} than when the run began: {found}, not {known}",
        where=str(progress.path),
        next_step="a run is resumed with the task sets that it began with: bring the config, the generator and their seed back,"
        " or start a new run",
    )
