"""The original's SQLite file: tables Task, TaskSet and Job. Sets are read one after the other, of any number."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from runner.errors import UsageError
from runner.formats.document import located_in, open_regular
from runner.formats.jobs import Options
from runner.formats.notes import FoundSet, Note
from runner.formats.original_task import OriginalTask, found_set, original_tasks
from runner.model import TaskSet
from runner.text.excerpt import excerpt

#: Column of Task -> field of `OriginalTask`, in the order of the table.
_COLUMNS: Mapping[str, str] = {
    "Priority": "priority",
    "Deadline": "deadline_ms",
    "Quota": "quota",
    "CAPS": "caps",
    "PKG": "pkg",
    "Arg": "arg1",
    "CORES": "cores",
    "COREOFFSET": "core",
    "CRITICALTIME": "criticaltime_ms",
    "Period": "period_ms",
    "Number_of_Jobs": "numberofjobs",
    "OFFSET": "offset_ms",
}
_TEXTS = ("quota", "pkg")
_MEMBER = re.compile(r"TASK([0-9]{1,2})_ID", re.IGNORECASE)
_MAX_MEMBERS = 4
_SCHEMA = (
    "CREATE TABLE TaskSet (Set_ID INTEGER PRIMARY KEY, Successful INT, TASK1_ID INTEGER, TASK2_ID INTEGER,"
    " TASK3_ID INTEGER, TASK4_ID INTEGER)",
    "CREATE TABLE Task (Task_ID INTEGER PRIMARY KEY, Priority INT, Deadline INT, Quota INT, CAPS INT, PKG STRING,"
    " Arg INT, CORES INT, COREOFFSET INT, CRITICALTIME INT, Period INT, Number_of_Jobs INT, OFFSET INT)",
    "CREATE TABLE Job (Set_ID INTEGER, Task_ID INTEGER, Job_ID INTEGER, Start_Date INT, End_Date INT,"
    " Exit_Value STRING, PRIMARY KEY (Task_ID, Set_ID, Job_ID))",
)
_INSERT_TASK = "INSERT INTO Task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_MAX_VALUE_BYTES = 1 << 20
# Steps of SQLite's machine between two rows; a file of ours needs some dozens.
_STEPS = 100_000
_MAX_CALLS = 1_000


class _File:
    """The file, opened so that its own schema cannot do anything, and no query can last for ever."""

    def __init__(self, path: Path) -> None:
        with closing(open(open_regular(path), "rb")) as file:  # a regular file, and there
            if file.read(16) != b"SQLite format 3\0":
                raise UsageError("this is no SQLite file", next_step="name the format that the file has")
        self._n_calls = 0
        self.database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            self.database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            self.database.execute("PRAGMA trusted_schema = OFF")
            self.database.set_progress_handler(self._called, _STEPS)
            self.members = self._members()
        except BaseException:
            self.database.close()
            raise

    def _called(self) -> bool:
        self._n_calls += 1
        return self._n_calls > _MAX_CALLS

    def rows(self, query: str, *values: int) -> Iterator[tuple[object, ...]]:
        """The rows of a query, each within bounds."""
        self._n_calls = 0
        for row in self.database.execute(query, values):
            yield row
            self._n_calls = 0

    def _members(self) -> list[str]:
        """The columns of TaskSet that name tasks, in their order; the tables are looked at first."""
        for table, columns in (("TaskSet", {"set_id"}), ("Task", {"task_id", *map(str.lower, _COLUMNS)})):
            kinds = list(
                self.rows(f"SELECT type, sql FROM sqlite_schema WHERE lower(name) = '{table.lower()}'")  # noqa: S608 - ours
            )
            if [str(sql)[:13].upper() for kind, sql in kinds if kind == "table"] != ["CREATE TABLE "]:
                raise UsageError(
                    f"the file has no table {table}", where=table, next_step="name a file of the original's"
                )
            found = {str(row[1]).lower() for row in self.rows(f"PRAGMA table_info({table})")}
            if missing := sorted(columns - found):
                raise UsageError(f"table {table} has no column {missing[0]}", where=table)
        names = [str(row[1]) for row in self.rows("PRAGMA table_info(TaskSet)")]
        found_members = [name for name in names if _MEMBER.fullmatch(name)]
        return sorted(found_members, key=lambda name: int(name[4:-3]))


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    with located_in(path):
        try:
            file = _File(path)
            with closing(file.database):
                yield file
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as exc:
            raise UsageError(
                f"the file cannot be read: {exc}", next_step="is it damaged? PRAGMA integrity_check tells"
            ) from exc


def count_sets(path: Path) -> int:
    """How many sets the file has."""
    with _opened(path) as file:
        ((number,),) = file.rows("SELECT count(*) FROM TaskSet")
        return int(str(number))


def read(path: Path, _: Options) -> Iterator[FoundSet]:
    """The sets of a file, by their ids; at no time is there more than one in memory.

    Raises:
        UsageError: the file is none of the original's, or a set in it is none of ours; names its id.
    """
    with _opened(path) as file:
        notes = _results(file)
        members = "".join(f", {name}" for name in file.members)
        columns = ", ".join(_COLUMNS)
        for set_id, *task_ids in file.rows(f"SELECT Set_ID{members} FROM TaskSet ORDER BY Set_ID"):  # noqa: S608 - checked names
            at = f"TaskSet {excerpt(set_id)}"
            tasks = []
            for task_id in task_ids:
                if task_id in (None, -1):
                    continue
                where = f"{at}, Task {excerpt(task_id)}"
                if not isinstance(task_id, int):
                    raise UsageError(f"{where} is no whole number", where=where)
                query = f"SELECT {columns} FROM Task WHERE Task_ID = ? LIMIT 2"  # noqa: S608 - ours
                rows = list(file.database.execute(query, (task_id,)))
                if len(rows) != 1:
                    raise UsageError(f"there {'is no' if not rows else 'are two'} {where}", where=where)
                tasks.append((where, _task(rows[0], where)))
            if not tasks:
                raise UsageError(f"{at} has no task", where=at, next_step="delete the row")
            with _named(at):
                yield found_set(tasks, f"set{set_id}", notes)
            notes = ()


def _results(file: _File) -> tuple[Note, ...]:
    kinds = list(file.rows("SELECT 1 FROM sqlite_schema WHERE lower(name) = 'job' AND type = 'table'"))
    if kinds and list(file.rows("SELECT 1 FROM Job LIMIT 1")):
        what = "results (also TaskSet.Successful) are no part of a task set, and stay where they are"
        return (Note("table Job", what, lost=False),)
    return ()


@contextmanager
def _named(at: str) -> Iterator[None]:
    try:
        yield
    except UsageError as exc:
        raise UsageError(exc.what, where=exc.where or at, next_step=exc.next_step) from exc


def _task(row: Sequence[object], where: str) -> OriginalTask:
    values: dict[str, int | str] = {}
    for (column, field), value in zip(_COLUMNS.items(), row, strict=True):
        if field in _TEXTS:
            if not isinstance(value, str):
                raise UsageError(f"{column} is {excerpt(value)}, not a text", where=f"{where}, {column}")
        elif isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
            value = int(value)  # noqa: PLW2901 - as SQLite would have stored it, had it been told the type
        elif not isinstance(value, int) or value < 0:
            raise UsageError(
                f"{column} is {excerpt(value)}, not a number from 0 on", where=f"{where}, {column}"
            )
        values[field] = value
    return OriginalTask(**values)  # type: ignore[arg-type] # each by its own column, as checked above


def write(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """All sets; nothing is known of their results, so `Successful` is null and Job empty.

    Raises:
        UsageError: a set has more tasks than the table has columns for, or one that the original cannot have.
    """
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        for statement in _SCHEMA:
            database.execute(statement)
        task_id = 0
        for set_id, taskset in enumerate(tasksets):
            if len(taskset.tasks) > _MAX_MEMBERS:
                raise UsageError(
                    f"task set {taskset.name!r} has {len(taskset.tasks)} tasks, and the table columns for {_MAX_MEMBERS}",
                    where=f"task set {taskset.name!r}.tasks",
                    next_step="write the task hash, or JSON",
                )
            members = []
            for task in original_tasks(taskset):
                values = [getattr(task, field) for field in _COLUMNS.values()]
                database.execute(_INSERT_TASK, (task_id, *values))
                members.append(task_id)
                task_id += 1
            members += [-1] * (_MAX_MEMBERS - len(members))
            database.execute("INSERT INTO TaskSet VALUES (?, NULL, ?, ?, ?, ?)", (set_id, *members))
        database.execute("COMMIT")
