"""Results in a PostgreSQL database that several runs may share, through SQLAlchemy (the extra `postgresql`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.data.batch import DATA_TABLES, Batch
from runner.data.schema import SCHEMA_VERSION, TASKSETS, Kind, Table
from runner.errors import ProtocolError, UsageError
from runner.monitors.batching import BatchingMonitor, StoreUnavailable
from runner.text.secrets import masked

if TYPE_CHECKING:
    import sqlalchemy as sa

_CHUNK_ROWS = 1000
_CONNECT_TIMEOUT_S = 5


class PostgreSQLMonitor(BatchingMonitor):
    """Add every attempt to the tables `tasksets`, `tasks`, `analyses`, `analysis_tasks`, `runs`, `jobs` and `events` of a database.

    Guarantees: an attempt's rows appear at once; what is there already stays as it is, so that a run that is resumed, or another one that
    measures the same set, adds a set once and an identity once. Only `tasksets.state` changes. Where the server goes away the monitor is
    `blocked` and goes on when it is back. The address is shown without its password.

    Args:
        url: `postgresql://user@host/database`; with a password in it from the environment: `${oc.env:RESULTS_URL}`.
        db_schema: The schema (name space) of the tables, made if need be.
        required, flush_interval_s, max_waiting_rows: As `BatchingMonitor`.

    Raises:
        UsageError: SQLAlchemy or psycopg is not installed, or the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        db_schema: str = "rtfleet",
        required: bool = False,
        flush_interval_s: float = 1.0,
        max_waiting_rows: int = 2_000_000,
    ) -> None:
        super().__init__(
            required=required, flush_interval_s=flush_interval_s, max_waiting_rows=max_waiting_rows
        )
        try:
            import psycopg  # noqa: F401  # late import: an extra
            import sqlalchemy as sa  # late import: an extra
        except ImportError as exc:
            raise UsageError(
                "SQLAlchemy and psycopg are not installed", next_step="pip install 'rtfleet[postgresql]'"
            ) from exc
        try:
            parsed = sa.engine.make_url(url)
        except (sa.exc.ArgumentError, ValueError) as exc:
            raise UsageError("url is no address of a database", where="url", next_step=_EXAMPLE) from exc
        if parsed.get_backend_name() != "postgresql":
            raise UsageError(
                f"url names a {parsed.get_backend_name()} database", where="url", next_step=_EXAMPLE
            )
        self._sa: Any = sa
        self._url = parsed.set(drivername="postgresql+psycopg")
        self._engine: Any = None
        self._db_schema = db_schema
        self._tables = _tables(sa, db_schema)

    @property
    def place(self) -> str:
        return masked(self._url.render_as_string(hide_password=True))

    def open_store(self) -> None:
        """Connect, and make the tables that are not there.

        Raises:
            UsageError: the tables are of another schema.
            StoreUnavailable: the server cannot be reached, or refuses.
        """
        sa = self._sa
        engine = sa.create_engine(
            self._url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
        )
        comment = f"rtfleet schema {SCHEMA_VERSION}"
        quoted = engine.dialect.identifier_preparer.quote(self._db_schema)
        try:
            with engine.begin() as connection:
                # Two runners that begin at the same time would make the same table.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(1381254705)"))
                query = sa.text("SELECT obj_description(to_regnamespace(:name)::oid, 'pg_namespace')")
                found = connection.execute(query, {"name": quoted}).scalar()
                if found is not None and found.startswith("rtfleet schema ") and found != comment:
                    raise UsageError(
                        f"schema {self._db_schema} of {self.place} holds data of {found}; this version writes {comment}",
                        next_step="choose another db_schema",
                    )
                connection.execute(sa.schema.CreateSchema(self._db_schema, if_not_exists=True))
                connection.execute(sa.text(f"COMMENT ON SCHEMA {quoted} IS '{comment}'"))
                self._tables[TASKSETS].metadata.create_all(connection)
        except sa.exc.SQLAlchemyError as exc:
            engine.dispose()
            raise StoreUnavailable(_why(exc)) from exc
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine

    def write(self, batches: Sequence[Batch]) -> None:
        """Add all in one transaction.

        Raises:
            StoreUnavailable: the server is away, or has no room.
            ProtocolError: a row does not fit.
        """
        errors = self._sa.exc
        try:
            with self._engine.begin() as connection:
                for table in DATA_TABLES:
                    self._insert(connection, table, batches)
                self._set_states(connection, batches)
        except (errors.DataError, errors.IntegrityError, errors.StatementError) as exc:
            if isinstance(exc, errors.DBAPIError) and not isinstance(
                exc, errors.DataError | errors.IntegrityError
            ):
                raise StoreUnavailable(_why(exc)) from exc
            names = ", ".join(sorted({batch.taskset_id for batch in batches})[:3])
            raise ProtocolError(
                f"results of task set {names} do not fit the tables in {self.place}: {_why(exc)}",
                next_step="correct the session that reported them",
            ) from exc
        except errors.SQLAlchemyError as exc:
            raise StoreUnavailable(_why(exc)) from exc

    def _insert(self, connection: sa.Connection, table: Table, batches: Sequence[Batch]) -> None:
        from sqlalchemy.dialects.postgresql import insert  # late import: an extra

        bools = {one.name for one in table.columns if one.kind is Kind.BOOL}
        rows = [
            {
                name: bool(value) if name in bools and value is not None else _storable(value)
                for name, value in zip(table.names, row, strict=True)
            }
            for batch in batches
            for row in (*batch.of_set.get(table, ()), *batch.of_run.get(table, ()))
        ]
        statement = insert(self._tables[table]).on_conflict_do_nothing()
        for start in range(0, len(rows), _CHUNK_ROWS):
            connection.execute(statement, rows[start : start + _CHUNK_ROWS])

    def _set_states(self, connection: sa.Connection, batches: Sequence[Batch]) -> None:
        known = self._tables[TASKSETS].c
        for state, replaced in (("done", ("bad",)), ("bad", ())):
            ids = [batch.taskset_id for batch in batches if batch.state == state]
            if ids:
                connection.execute(
                    self._tables[TASKSETS]
                    .update()
                    .where(known.taskset_id.in_(ids))
                    .where(known.state.is_(None) | known.state.in_(replaced))
                    .values(state=state)
                )

    def close_store(self) -> None:
        """Disconnect."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


_EXAMPLE = "write it as postgresql://user@host/database; a password comes from the environment: ${oc.env:RESULTS_URL}"


def _tables(sa: Any, db_schema: str) -> dict[Table, sa.Table]:  # noqa: ANN401 - a module that may not be there
    types = {
        Kind.INT: sa.BigInteger,
        Kind.REAL: sa.Double,
        Kind.TEXT: sa.Text,
        Kind.ENUM: sa.Text,
        Kind.BOOL: sa.Boolean,
    }
    metadata = sa.MetaData(schema=db_schema)
    return {
        table: sa.Table(
            table.name,
            metadata,
            *(
                sa.Column(
                    one.name,
                    types[one.kind],
                    primary_key=one.name in table.key,
                    autoincrement=False,
                    nullable=not one.required,
                )
                for one in table.columns
            ),
            *(
                sa.ForeignKeyConstraint(own, [f"{db_schema}.{other}.{name}" for name in _key_of(other)])
                for own, other in [table.parent or ((), "")]
                if other
            ),
        )
        for table in DATA_TABLES
    }


def _key_of(name: str) -> tuple[str, ...]:
    return next(table.key for table in DATA_TABLES if table.name == name)


def _storable(value: object) -> object:
    return value.replace("\0", "\\0") if isinstance(value, str) else value  # PostgreSQL knows no NUL


def _why(error: Exception) -> str:
    """The server's own words, without the statement and its values."""
    return masked(" ".join(str(getattr(error, "orig", None) or error).split()))
