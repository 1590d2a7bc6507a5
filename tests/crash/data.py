"""What a run folder's data say, and in what they differ from those of a run that nobody has disturbed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.audit import audit
from runner.errors import RunnerError

_DATABASE = "results.sqlite"
#: SQL whose rows must be the same whatever happened on the way.
_SAME = {
    "jobs": "SELECT * FROM jobs ORDER BY run_id, task_idx, job_idx",
    "events": "SELECT * FROM events ORDER BY run_id, seq",
    "tasks": "SELECT * FROM tasks ORDER BY taskset_id, task_idx",
    "tasksets": "SELECT * FROM tasksets ORDER BY taskset_id",
    "labels": "SELECT run_id, taskset_id, repetition, outcome, n_jobs, n_missed, schedulable, identity, table_sha256, validity"
    " FROM runs WHERE n_jobs IS NOT NULL ORDER BY run_id",
    "fates": "SELECT submission, set_idx, taskset_id, max(state = 'bad'), max(state <> 'done') FROM ledger GROUP BY 1, 2 ORDER BY 1, 2",
    "progress": "SELECT * FROM progress ORDER BY submission",
    "measurements": "SELECT submission, set_idx, repetition, run_id FROM ledger WHERE state = 'done' ORDER BY 1, 2, 3",
    "submissions": "SELECT * FROM submissions",
    "analyses": "SELECT taskset_id, test, n_cpus, verdict, exactness, margin, horizon_ns FROM analyses ORDER BY 1, 2, 3",
    "analysis_tasks": "SELECT * FROM analysis_tasks ORDER BY 1, 2, 3, 4",
}
#: Parquet files that must be the same, byte for byte; the others hold times of day.
_SAME_FILES = ("jobs", "events", "tasks", "tasksets", "submissions", "analysis_tasks")
_TIMES = "SELECT run_id, started_utc FROM runs WHERE n_jobs IS NOT NULL"


@dataclass(frozen=True)
class Data:
    """Of a run that is complete.

    Attributes:
        digests: Of everything that must not differ.
        times: Valid run -> when it was measured.
        n_lost: Task sets and measurements that should be there and are not.
        n_doubled: Measurements of which there are two.
        unsound: What `runner.check` says against it.
    """

    digests: Mapping[str, str]
    times: Mapping[str, str]
    n_lost: int
    n_doubled: int
    unsound: str

    def differences(self, undisturbed: Data) -> list[str]:
        """What differs."""
        names = sorted({*self.digests, *undisturbed.digests})
        return [name for name in names if self.digests.get(name) != undisturbed.digests.get(name)]


def read(folder: Path) -> Data:
    """The data of a run that has ended."""
    path = folder / _DATABASE
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            digests = {name: _digest(database.execute(sql)) for name, sql in _SAME.items()}
            n_lost, n_doubled = _balance(database)
            times = dict(database.execute(_TIMES).fetchall())
        unsound = "; ".join(audit(path).violations)
    except (sqlite3.Error, RunnerError) as exc:
        return Data({}, {}, 0, 0, f"cannot be read: {exc}")
    for name in _SAME_FILES:
        parquet = folder / "parquet" / f"{name}.parquet"
        digests[parquet.name] = (
            hashlib.sha256(parquet.read_bytes()).hexdigest() if parquet.exists() else "missing"
        )
    for parquet in (folder / "parquet").glob("*.parquet"):
        # It begins and ends so, or it is not complete.
        if parquet.read_bytes()[:4] != b"PAR1" or parquet.read_bytes()[-4:] != b"PAR1":
            digests[parquet.name] = "torn"
    return Data(digests, times, n_lost, n_doubled, unsound)


def times_after_crash(folder: Path) -> tuple[dict[str, str], str]:
    """The valid runs that a crash has left, with their times, and what is wrong with the file; touches nothing."""
    if not (folder / _DATABASE).exists():
        return {}, ""
    with _copied(folder) as copy:
        try:
            with closing(sqlite3.connect(copy)) as database:
                if not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
                    return {}, ""
                times = dict(database.execute(_TIMES).fetchall())
            return times, "; ".join(audit(copy).violations)
        except (sqlite3.Error, RunnerError) as exc:
            return {}, f"cannot be read: {exc}"


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="copy-", dir=folder.parent) as copy:
        for suffix in ("", "-wal", "-journal"):
            path = folder / f"{_DATABASE}{suffix}"
            if path.exists():
                shutil.copy(path, copy)
        yield Path(copy, _DATABASE)


def _digest(rows: Any) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _balance(database: sqlite3.Connection) -> tuple[int, int]:
    """Sets and measurements that are lost, and those that are there twice."""
    n_lost = 0
    for number, repeat, n_total in database.execute(
        "SELECT submission, repeat, n_total FROM submissions"
    ).fetchall():
        fates = database.execute(
            "SELECT count(*) FILTER (WHERE state = 'done'), max(state = 'bad') FROM ledger WHERE submission = ?"
            " GROUP BY set_idx",
            (number,),
        ).fetchall()
        n_lost += (n_total or 0) - len(fates)
        n_lost += sum(not bad and n_done != repeat for n_done, bad in fates)
    (n_without_data,) = database.execute(
        "SELECT count(*) FROM ledger LEFT JOIN runs USING (run_id) WHERE state = 'done' AND n_jobs IS NULL"
    ).fetchone()
    (n_doubled,) = database.execute(
        "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM runs WHERE n_jobs IS NOT NULL"
        " GROUP BY taskset_id, repetition)"
    ).fetchone()
    return n_lost + n_without_data, n_doubled
