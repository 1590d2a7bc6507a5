"""The ledger: what has become of every task set, and what it yielded, in one SQLite file."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.data import schema
from runner.data.database import SQLITE_ERRORS
from runner.data.record import Entry, Record
from runner.data.views import VIEWS
from runner.errors import HostError, ProtocolError, RunnerError, UnrepeatableError, UsageError

_log = logging.getLogger("runner.ledger")

# Someone else's transaction may hold the file up; what is to be written waits in memory meanwhile, so do not wait here.
_BUSY_TIMEOUT_S = 0.5
_BUSY_TIMEOUT_AT_CLOSE_S = 30.0
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_RETRY_INTERVAL_S = 0.5
# Someone who only looks, or copies the file, is gone by then.
_BUSY_FOR_LONG_S = 5.0
# The disk is full (ENOSPC), the quota used up (EDQUOT), the file as large as it may be (EFBIG): there may be room again.
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
# What is wrong with one record (a job reported twice, a number beyond 64 bits), not with the file.
_OWN_FAULTS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)


class Ledger:
    """One file, and what waits to be written to it.

    Guarantees: an entry's rows appear all at once, and in the order in which entries were put; what `flush` has written
    survives a killed runner and a power loss. While the disk is full or the file locked, entries wait in memory and are
    written as soon as they can be. After `close()` the file is complete without any other beside it.
    Threads: one, the one that opens it.

    Args:
        path: The file; added to when it holds data of the same schema. Its folder must exist.
        commit_interval_s: How long entries may wait to be written together.
        max_waiting_jobs: Jobs that may wait in memory while the file cannot be written (2·10^6 are about 1 GiB); attempts
            beyond that are lost, each with an error; their task sets stay pending.
    """

    def __init__(
        self, path: Path, *, commit_interval_s: float = 0.2, max_waiting_jobs: int = 2_000_000
    ) -> None:
        self.path = path
        self.commit_interval_s = commit_interval_s
        self.max_waiting_jobs = max_waiting_jobs
        #: Why what waits cannot be written for now; empty while it can.
        self.blocked = ""
        #: The highest number that a submission has in the file.
        self.n_submissions = 0
        self._database: sqlite3.Connection | None = None
        self._waiting: list[Entry] = []
        self._n_waiting_jobs = 0
        self._due_s = 0.0
        self._retry_s = 0.0
        self._busy_since_s: float | None = None

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            UsageError: when the file is no database, another program's, or of another schema.
            HostError: when it cannot be read or written.
        """
        database = None
        try:
            database = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            self._prepare(database)
        except SQLITE_ERRORS as exc:
            raise self._refused_open(exc) from exc
        finally:
            if database is not None and self._database is None:
                database.close()

    def _prepare(self, database: sqlite3.Connection) -> None:
        (n_tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if n_tables and (application_id, version) != (schema.APPLICATION_ID, schema.SCHEMA_VERSION):
            found = f"data of schema {version}" if application_id == schema.APPLICATION_ID else "other data"
            raise UsageError(
                f"{self.path} holds {found}; this version writes schema {schema.SCHEMA_VERSION}",
                next_step="choose a path that does not exist yet, or move the file away",
            )
        database.execute("PRAGMA journal_mode = WAL")
        # Every commit reaches the disk before the next begins: what is done stays done, power or no power.
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        # In KiB: a group of runs is a few MiB, and what does not fit is written twice. SQLite's default is 2 MiB.
        database.execute("PRAGMA cache_size = -16384")
        if not n_tables:
            with _transaction(database):
                for table in schema.TABLES:
                    database.execute(table.ddl)
                for statement in (*schema.INDICES, *VIEWS):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        (self.n_submissions,) = database.execute(
            "SELECT coalesce(max(submission), 0) FROM submissions"
        ).fetchone()
        self._database = database

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._database is not None

    @property
    def n_waiting(self) -> int:
        """Attempts that ended and are not in the file yet."""
        return sum(isinstance(entry, Record) and entry.result is not None for entry in self._waiting)

    def put(self, entry: Entry) -> None:
        """Take an entry; it is written at most `commit_interval_s` later, with those before it.

        Raises:
            As `flush`.
        """
        if self._waiting and self._n_waiting_jobs + entry.n_jobs > self.max_waiting_jobs:
            self.flush()
            if self._waiting:
                raise self._unwritten("no memory is left for results to wait in: this attempt is lost")
        now_s = time.monotonic()
        if not self._waiting:
            self._due_s = now_s + self.commit_interval_s
        self._waiting.append(entry)
        self._n_waiting_jobs += entry.n_jobs
        if now_s >= self._due_s:
            self.flush()

    def flush(self) -> None:
        """Write what waits; where that is not possible for now, it waits on, and `blocked` says why.

        Raises:
            HostError: the disk fails; it waits on, as it does, without an error, while there is no room.
            UnrepeatableError, ProtocolError: an entry did not fit, and is not in the data; the others are.
        """
        if not self._waiting or self._database is None or time.monotonic() < self._retry_s:
            return
        try:
            refused = self._write_waiting(self._database)
        except SQLITE_ERRORS as exc:
            self._retry_s = time.monotonic() + _RETRY_INTERVAL_S
            code = getattr(exc, "sqlite_errorcode", None)
            if code in _NO_ROOM:
                self.blocked = self.blocked or f"{self.path} cannot be written: {exc}; results wait in memory"
            elif code in _BUSY:
                self._note_lock()
            else:
                raise self._unwritten(str(exc)) from exc
            return
        self._busy_since_s, self.blocked = None, ""
        if refused:
            first, *_ = refused
            raise type(first)("; ".join(error.what for error in refused), next_step=first.next_step)

    def _note_lock(self) -> None:
        now_s = time.monotonic()
        if self._busy_since_s is None:
            self._busy_since_s = now_s
            _log.warning("%s is locked by another program; %d results wait", self.path, self.n_waiting)
        if now_s - self._busy_since_s > _BUSY_FOR_LONG_S:
            self.blocked = self.blocked or f"{self.path} is locked by another program; results wait in memory"

    def close(self) -> None:
        """Write what waits, and close the file.

        Raises:
            HostError: when that was not possible; says how many attempts are missing.
        """
        if self._database is None:
            return
        database = self._database
        try:
            database.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_AT_CLOSE_S * 1000)}")
            self._retry_s = 0.0
            self.flush()
            if self._waiting:
                raise self._unwritten(self.blocked or "another program holds a lock on it")
            # One plain file is easier to copy, and can be read from a read-only disk; a present reader prevents it.
            database.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.OperationalError):
                database.execute("PRAGMA journal_mode = DELETE")
        finally:
            self._database = None
            database.close()

    def _write_waiting(self, database: sqlite3.Connection) -> list[RunnerError]:
        """Write all in one transaction; if an entry does not fit the tables, write each by itself and say which do not."""
        try:
            with _transaction(database):
                for entry in self._waiting:
                    entry.insert(database)
        except UnicodeDecodeError:
            raise  # the file's, not an entry's
        except (*_OWN_FAULTS, UnrepeatableError):
            return self._write_singly(database)
        self._waiting.clear()
        self._n_waiting_jobs = 0
        return []

    def _write_singly(self, database: sqlite3.Connection) -> list[RunnerError]:
        # A savepoint per entry in the common transaction would do as well, but costs every entry a fifth of its time.
        refused: list[RunnerError] = []
        while self._waiting:
            entry = self._waiting[0]
            try:
                with _transaction(database):
                    entry.insert(database)
            except UnrepeatableError as exc:
                if isinstance(entry, Record):
                    with _transaction(database):
                        entry.condemn(database)
                refused.append(exc)
            except UnicodeDecodeError:
                raise  # as above
            except _OWN_FAULTS as exc:
                refused.append(
                    ProtocolError(
                        f"results of {entry.subject} do not fit the tables and are not in the data: {exc}",
                        next_step="correct the session that reported these results",
                    )
                )
            del self._waiting[0]
            self._n_waiting_jobs -= entry.n_jobs
        return refused

    def _unwritten(self, why: str) -> HostError:
        free_mib = shutil.disk_usage(self.path.parent).free >> 20
        return HostError(
            f"results cannot be written to {self.path}: {why}; {self.n_waiting} attempts wait in memory",
            next_step=f"make room in {self.path.parent} ({free_mib} MiB are free) or end the program that holds the file;"
            " what waits is written as soon as it can be; what is not when the run ends is measured again when it is resumed",
        )

    def _refused_open(self, error: sqlite3.Error | UnicodeDecodeError) -> RunnerError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            return UsageError(
                f"{self.path} is not an SQLite database",
                next_step="choose a path that does not exist yet, or move the file away",
            )
        if not self.path.parent.is_dir():
            return UsageError(
                f"{self.path} cannot be made: its folder does not exist", next_step="make the folder first"
            )
        return HostError(
            f"{self.path} cannot be written: {error}",
            next_step=f"see who may write in {self.path.parent}, whether its disk has room, and who else uses the file",
        )


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # Some errors (disk full) have rolled back already; should this fail as well, the first error is the one to show.
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
