"""The data set of a run, opened for reading: one SQLite file that its runner may still be writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

from runner.data import schema
from runner.errors import HostError, RunnerError, UsageError
from runner.text.excerpt import excerpt

_T = TypeVar("_T")

# A reader of a file in WAL mode waits for its writer only while that recovers or closes the file.
_BUSY_TIMEOUT_S = 30.0
#: What reading can raise: `sqlite3` also fails to decode SQLite's message where that quotes a damaged file.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_UNSOUND = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, and may be used by any one thread at a time; the caller closes it.

    Raises:
        UsageError: when the file is missing, no data set, or one of another schema.
        HostError: when it cannot be read.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no data set at {path}",
            next_step="name a run folder, or the SQLite file in it (results.sqlite unless the config says otherwise)",
        )
    database = None
    try:
        database = _connect(path)
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if (application_id, version) != (schema.APPLICATION_ID, schema.SCHEMA_VERSION):
            raise _other(path, application_id, version)
    except BaseException as exc:
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
        if isinstance(exc, SQLITE_ERRORS):
            raise unreadable(path, exc) from exc
        raise
    return database


def is_blank(path: Path) -> bool:
    """Whether a file is there that nobody has put anything into: its runner ended before it had made the tables.

    Raises:
        HostError, UsageError: when it cannot be read, or is no database.
    """
    try:
        with closing(_connect(path)) as database:
            (n_tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return bool(n_tables == 0)
    except SQLITE_ERRORS as exc:
        raise unreadable(path, exc) from exc


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads, to the state of the last commit."""
    try:
        return _opened(path, "ro")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    # A runner died while it changed the file in place, as it does at the very end: whoever may write brings it back.
    _opened(path, "rw").close()
    return _opened(path, "ro")


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # To connect does not look at the file; to read does.
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def row_of(kind: Callable[..., _T], values: Mapping[str, object]) -> _T:
    """An object of a dataclass from the columns of its names.

    Raises:
        sqlite3.DatabaseError: when a value is not of its field's type: a damaged file holds numbers as texts, and worse.
    """
    for name, types in _types_of(kind).items():
        if not isinstance(values[name], types):
            raise _damaged(f"{name} is {excerpt(values[name])}")
    return kind(**values)


def whole_numbers(*values: object) -> None:
    """As `row_of`, for values that must be whole numbers."""
    for value in values:
        if not isinstance(value, int):
            raise _damaged(f"{excerpt(value)} stands where a whole number must be")


@cache
def _types_of(kind: Callable[..., object]) -> dict[str, tuple[type, ...]]:
    # SQLite has 0 and 1 for truth values, and keeps 1.0 as 1.
    wider = {bool: (bool, int), float: (float, int)}
    found = {}
    for name, hint in get_type_hints(kind).items():
        found[name] = tuple(one for given in get_args(hint) or (hint,) for one in wider.get(given, (given,)))
    return found


def _damaged(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def unreadable(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> RunnerError:
    """What it means that reading failed."""
    # The lowest byte of SQLite's codes is the kind, the others are details.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind in _UNSOUND or isinstance(error, UnicodeDecodeError):
        return UsageError(
            f"{path} is no sound SQLite database: {error}", next_step="name the file of another run"
        )
    return HostError(
        f"{path} cannot be read: {error}",
        next_step="see who may read it and whether its disk answers; a run that was killed leaves a file that needs a folder"
        " one can write in: copy it there together with the files beside it (-wal, -shm)",
    )


def _other(path: Path, application_id: int, version: int) -> UsageError:
    ours = application_id == schema.APPLICATION_ID
    return UsageError(
        f"{path} holds {f'data of schema {version}' if ours else 'other data'};"
        f" this version reads schema {schema.SCHEMA_VERSION}",
        next_step="name the data of a run of this version, or measure again"
        if ours
        else "name a run folder, or the SQLite file in it",
    )
