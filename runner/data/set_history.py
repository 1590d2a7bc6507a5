"""What a data set tells of one task set, and which task set somebody means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.history import SHOWN, AttemptRow, DataSet, IncidentRow, all_of, attempts, incidents
from runner.errors import UsageError

_PLACE = re.compile(r"#(?:(\d{1,18}):)?(\d{1,18})")
_CANDIDATES = 10
_PARAMETERS = (
    "SELECT taskset_id, name, generator, seed, n_tasks, utilization, hyperperiod_ns, stop_ns, state FROM tasksets"
    " WHERE taskset_id = ?"
)
_TASKS = (
    "SELECT name, period_ns, wcet_ns, deadline_ns, offset_ns, priority_rank, n_jobs, policy, workload FROM tasks"
    " WHERE taskset_id = ? ORDER BY task_idx LIMIT ?"
)
_PLACES = """
SELECT submission, set_idx, repeat, max(ledger.state = 'bad') AS bad, count(*) FILTER (WHERE ledger.state = 'done') AS n_done,
    max(n_failed) AS n_failed, max(error) AS error
FROM ledger JOIN submissions USING (submission) WHERE taskset_id = ? GROUP BY submission, set_idx LIMIT ?
"""
_LABELS = """
SELECT count(*) AS n_measured, count(*) FILTER (WHERE schedulable) AS n_schedulable,
    count(*) FILTER (WHERE NOT schedulable) AS n_unschedulable, count(*) FILTER (WHERE validity = 'disturbed') AS n_disturbed
FROM valid_runs WHERE taskset_id = ?
"""
# One with a miss, if there is any.
_TELLING = """
SELECT run_id, outcome, n_jobs, n_missed, schedulable FROM valid_runs
WHERE taskset_id = ? ORDER BY schedulable IS NOT 0, repetition, attempt LIMIT 1
"""
_WORST = """
SELECT name AS task, max(response_ns) AS response_ns, deadline_ns
FROM jobs JOIN tasks ON tasks.taskset_id = ?2 AND tasks.task_idx = jobs.task_idx
WHERE run_id = ?1 AND response_ns IS NOT NULL GROUP BY jobs.task_idx
ORDER BY 1.0 * max(response_ns) / deadline_ns DESC NULLS LAST LIMIT 1
"""
_FIRST_MISS = """
SELECT name AS task, job_idx, release_ns, deadline_abs_ns, finish_ns, exit_type
FROM jobs JOIN tasks ON tasks.taskset_id = ?2 AND tasks.task_idx = jobs.task_idx
WHERE run_id = ?1 AND missed ORDER BY deadline_abs_ns, jobs.task_idx LIMIT 1
"""
_REFUSED = """
SELECT name FROM events JOIN tasks ON tasks.taskset_id = ?2 AND tasks.task_idx = events.task_idx
WHERE run_id = ?1 AND kind = 'refused' ORDER BY seq LIMIT 5
"""


@dataclass(frozen=True, kw_only=True)
class TaskParameters:
    """One task, as in `tasks`."""

    name: str
    period_ns: int | None
    wcet_ns: int | None
    deadline_ns: int | None
    offset_ns: int
    priority_rank: int
    n_jobs: int
    policy: str
    workload: str


@dataclass(frozen=True, kw_only=True)
class SetParameters:
    """One task set, as in `tasksets`."""

    taskset_id: str
    name: str
    generator: str
    seed: int | None
    n_tasks: int
    utilization: float | None
    hyperperiod_ns: int | None
    stop_ns: int | None
    state: str | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """What became of the set at one place of its source; `n_done` of `repeat` measurements are there.

    Attributes:
        n_failed: Tries that came to nothing.
        error: Why the last one did.
    """

    submission: int
    set_idx: int
    repeat: int
    bad: int
    n_done: int
    n_failed: int
    error: str | None

    @property
    def state(self) -> str:
        """done, bad or pending."""
        return "bad" if self.bad else "done" if self.n_done >= self.repeat else "pending"


@dataclass(frozen=True, kw_only=True)
class WorstResponse:
    """The largest response time over its deadline."""

    task: str
    response_ns: int
    deadline_ns: int | None


@dataclass(frozen=True, kw_only=True)
class Miss:
    """The job whose deadline was the first to be missed."""

    task: str
    job_idx: int
    release_ns: int | None
    deadline_abs_ns: int | None
    finish_ns: int | None
    exit_type: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the valid runs say, one of them in detail: one with a miss if there is any."""

    n_measured: int
    n_schedulable: int
    n_unschedulable: int
    n_disturbed: int
    outcome: str
    n_jobs: int | None
    n_missed: int | None
    worst: WorstResponse | None
    first_miss: Miss | None
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SetHistory:
    """A task set from its parameters to its label; the last of each kind where there are many."""

    parameters: SetParameters
    tasks: tuple[TaskParameters, ...]
    places: tuple[Place, ...]
    attempts: tuple[AttemptRow, ...]
    n_attempts: int
    incidents: tuple[IncidentRow, ...]
    n_incidents: int
    measured: Measured | None


@dataclass(frozen=True, kw_only=True)
class NotBegun:
    """A place whose set was not handed out; of `n_total`, None where nobody knows how many there are."""

    submission: int
    set_idx: int
    n_total: int | None


def set_history(database: DataSet, taskset_id: str) -> SetHistory:
    """All about a set that is in the data."""
    (parameters,) = all_of(SetParameters, database, _PARAMETERS, taskset_id)
    (n_attempts,) = database.execute(
        "SELECT count(*) FROM runs WHERE taskset_id = ?", (taskset_id,)
    ).fetchone()
    (n_incidents,) = database.execute(
        "SELECT count(*) FROM incidents WHERE taskset_id = ?", (taskset_id,)
    ).fetchone()
    return SetHistory(
        parameters=parameters,
        tasks=all_of(TaskParameters, database, _TASKS, taskset_id, SHOWN),
        places=all_of(Place, database, _PLACES, taskset_id, SHOWN),
        attempts=attempts(database, "taskset_id = ?", taskset_id),
        n_attempts=n_attempts,
        incidents=incidents(database, "taskset_id = ?", taskset_id),
        n_incidents=n_incidents,
        measured=_measured(database, taskset_id),
    )


def _measured(database: DataSet, taskset_id: str) -> Measured | None:
    run = database.execute(_TELLING, (taskset_id,)).fetchone()
    if run is None:
        return None
    which = (run["run_id"], taskset_id)
    return Measured(
        **dict(database.execute(_LABELS, (taskset_id,)).fetchone()),
        outcome=run["outcome"],
        n_jobs=run["n_jobs"],
        n_missed=run["n_missed"],
        worst=next(iter(all_of(WorstResponse, database, _WORST, *which)), None),
        first_miss=next(iter(all_of(Miss, database, _FIRST_MISS, *which)), None),
        refused=tuple(name for (name,) in database.execute(_REFUSED, which)),
    )


def find_set(database: DataSet, words: str, path: Path) -> str | NotBegun:
    """The id of the set that is meant by an id, the beginning of one, a place (`#12`, `#SUBMISSION:12`) or a name.

    Args:
        path: Of the data set, for messages.

    Raises:
        UsageError: there is none, or several.
    """
    words = words.encode("utf-8", "replace").decode()  # a shell hands on any bytes
    if place := _PLACE.fullmatch(words):
        return _at_place(database, int(place[2]), None if place[1] is None else int(place[1]), path)
    for condition, parameters in (
        ("taskset_id = ?", (words,)),
        ("name = ?", (words,)),
        ("taskset_id >= ? AND taskset_id < ?", (words, f"{words}\U0010ffff")),
    ):
        found = database.execute(
            f"SELECT taskset_id, name FROM tasksets WHERE {condition} LIMIT ?",  # noqa: S608 - the conditions above
            (*parameters, _CANDIDATES + 1),
        ).fetchall()
        if len(found) == 1:
            return str(found[0][0])
        if found:
            raise _ambiguous(database, words, found, path)
    raise UsageError(
        f"the run has no task set {words!r}",
        where=str(path),
        next_step="name it by its taskset_id or the beginning of it, by its place in the source ('#12', the first is '#0'),"
        " or by its name",
    )


def _ambiguous(database: DataSet, words: str, found: list[Any], path: Path) -> UsageError:
    ids = [one[0] for one in found[:_CANDIDATES]]
    marks = ", ".join("?" * len(ids))
    places = dict(
        database.execute(
            f"SELECT taskset_id, min(set_idx) FROM ledger WHERE taskset_id IN ({marks}) GROUP BY 1",  # noqa: S608 - marks
            ids,
        ).fetchall()
    )
    lines = [f"    {one}  {name}  #{places.get(one, '?')}" for one, name in found[:_CANDIDATES]]
    more = ["    …"] if len(found) > _CANDIDATES else []
    return UsageError(
        "\n".join([f"{words!r} may be any of these task sets:", *lines, *more]),
        where=str(path),
        next_step="name one by its taskset_id, or by its place ('#12')",
    )


def _at_place(database: DataSet, set_idx: int, submission: int | None, path: Path) -> str | NotBegun:
    found = database.execute(
        "SELECT submissions.submission, n_total, max(taskset_id) FROM submissions LEFT JOIN ledger"
        " ON ledger.submission = submissions.submission AND set_idx = ?1"
        " WHERE (?2 IS NULL OR submissions.submission = ?2) AND (n_total IS NULL OR ?1 < n_total)"
        " GROUP BY submissions.submission ORDER BY 1 LIMIT ?3",
        (set_idx, submission, _CANDIDATES),
    ).fetchall()
    if not found:
        (most,) = database.execute("SELECT max(n_total) FROM submissions").fetchone()
        raise UsageError(
            f"the run has no task set at place #{set_idx}"
            if most is None
            else f"the run has no task set at place #{set_idx}: they are #0 … #{most - 1}",
            where=str(path),
            next_step="name one of those",
        )
    if len(found) > 1:
        places = ", ".join(f"'#{number}:{set_idx}'" for number, *_ in found)
        raise UsageError(
            f"#{set_idx} may be a task set of several submissions", where=str(path), next_step=f"say {places}"
        )
    ((number, n_total, taskset_id),) = found
    return taskset_id or NotBegun(submission=number, set_idx=set_idx, n_total=n_total)
