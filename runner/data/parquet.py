"""The data set as Parquet: one file per table of `runner.data.schema`, with the same names, columns and types."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.data import schema
from runner.data.database import SQLITE_ERRORS, open_database, unreadable
from runner.data.features import FEATURES, feature_rows
from runner.data.schema import Kind, Table
from runner.errors import HostError, ProtocolError, UsageError
from runner.files.durable import sync_file, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are Python objects at a time: more are slower, for they leave the processor's caches.
_CHUNK_ROWS = 1 << 12
# Chunks that form one row group of the file.
_GROUP_CHUNKS = 16
_BUFFER_BYTES = 1 << 20
# How the name of a folder begins in which files become whole.
_PARTIAL = ".partial-"

_VERSION_KEY = "rtfleet.schema_version"
#: What there is a file of each.
STORED = (*schema.TABLES, FEATURES)

_T = TypeVar("_T")

# Runs in an order that does not depend on who measured when; whatever belongs to runs follows it.
_RUN_ORDER = "taskset_id, repetition, attempt, run_id"
_RUN_IDS = f"SELECT run_id FROM runs ORDER BY {_RUN_ORDER}"  # noqa: S608 - own names


def write_parquet(database: Path, folder: Path) -> None:
    """Write every table of an SQLite data set, and `features`, to `folder`, as `tasksets.parquet`, `jobs.parquet` …

    Guarantees: all files show one state of the data; each appears whole, in place of an older one, and only after all could be
    written, and survives a power loss. What a writer that was killed has left is removed: there is one at a time. Memory does not
    grow with the data. Rows are in the order of (taskset_id, repetition, attempt) and of the table's key, so that equal data make
    equal files. Truth values are bool, enumerations dictionaries, what is not known is null.

    Raises:
        UsageError: when `database` is no data set of this schema, or damaged.
        HostError: when it cannot be read, or the files cannot be written; the data set itself is whole then.
    """
    with closing(open_database(database)) as source:
        try:
            folder.mkdir(exist_ok=True)
            source.execute("BEGIN")
            for stale in folder.glob(f"{_PARTIAL}*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder) as partial:
                names = [f"{table.name}.parquet" for table in STORED]
                for table, name in zip(STORED, names, strict=True):
                    _write(source, table, Path(partial, name))
                for name in names:
                    os.replace(Path(partial, name), folder / name)
            sync_folder(folder)
            sync_folder(folder.parent)
        except SQLITE_ERRORS as exc:
            raise unreadable(database, exc) from exc
        except (ValueError, TypeError, ArithmeticError) as exc:  # pyarrow's errors are of these kinds, too
            raise UsageError(
                f"{database} holds what its tables cannot hold: {exc}",
                next_step="it was changed, or its disk is damaged: python -m runner.check tells what else is wrong",
            ) from exc
        except OSError as exc:
            raise HostError(
                f"the Parquet files cannot be written to {folder}: {exc}",
                next_step=f"nothing is lost: {database} is complete. Make room, or choose another folder, and call"
                " runner.data.parquet.write_parquet(database, folder)",
            ) from exc


def _write(source: sqlite3.Connection, table: Table, path: Path) -> None:
    # late import: 0.12 s and 40 MiB, which are of no use before the end of a run
    import pyarrow as pa
    from pyarrow import parquet  # late import: as above

    # Otherwise it writes dozens of bytes at a time.
    with (
        pa.output_stream(str(path), compression=None, buffer_size=_BUFFER_BYTES) as file,
        parquet.ParquetWriter(file, arrow_schema(table), compression="zstd") as writer,
    ):
        for group in _cut(_batches(source, table), _GROUP_CHUNKS):
            writer.write_table(pa.Table.from_batches(group))
    sync_file(path)


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow has them: truth values bool, enumerations dictionaries of texts."""
    import pyarrow as pa  # late import: as in `_write`

    fields = [
        pa.field(column.name, _type(column.kind), nullable=not column.required) for column in table.columns
    ]
    return pa.schema(fields, metadata={_VERSION_KEY: str(schema.SCHEMA_VERSION)})


def from_database(source: sqlite3.Connection, table: Table) -> pa.Table:
    """A table of an SQLite data set that is open for reading, whole in memory."""
    import pyarrow as pa  # late import: as in `_write`

    # Each chunk has a dictionary of its own; whoever looks at codes wants one.
    return pa.Table.from_batches(_batches(source, table), arrow_schema(table)).unify_dictionaries()


def from_rows(table: Table, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows as `runner.data.rows` makes them, as Arrow.

    Raises:
        ProtocolError: when a value does not fit its column.
    """
    import pyarrow as pa  # late import: as in `_write`

    arrow = arrow_schema(table)
    try:
        return pa.Table.from_batches([_batch(rows, arrow)] if rows else [], arrow)
    except (ValueError, TypeError, ArithmeticError) as exc:
        raise ProtocolError(
            f"results do not fit the table {table.name}: {exc}",
            next_step="correct the session that reported them",
        ) from exc


def write_file(table: pa.Table, path: Path) -> None:
    """Write a table to a file of its own, which survives a power loss (its name does once its folder is synced)."""
    from pyarrow import parquet  # late import: as in `_write`

    parquet.write_table(table, path, compression="zstd")
    sync_file(path)


def to_csv(table: Table, rows: list[tuple[Any, ...]], *, header: bool = False) -> bytes:
    """Rows as lines of CSV: null is an empty field, texts stand in quotes, truth values are true and false."""
    import pyarrow as pa  # late import: as in `_write`
    from pyarrow import csv  # late import: as in `_write`

    plain = pa.schema(
        [pa.field(one.name, pa.string() if is_enum(one.type) else one.type) for one in arrow_schema(table)]
    )
    out = pa.BufferOutputStream()
    csv.write_csv(from_rows(table, rows).cast(plain), out, csv.WriteOptions(include_header=header))
    return bytes(out.getvalue())


def read_files(table: Table, files: list[Path]) -> pa.Table:
    """The table in these files, one after the other; of a table with some of its columns left out, those that it has.

    Raises:
        UsageError: when one is no Parquet file, or holds another table or schema.
        HostError: when one cannot be read.
    """
    import pyarrow as pa  # late import: as in `_write`
    from pyarrow import parquet  # late import: as in `_write`

    parts = [arrow_schema(table).empty_table()]
    some = None if table in STORED else list(table.names)
    for path in files:
        try:
            part = parquet.ParquetFile(path).read(columns=some)
            version = (
                (part.schema.metadata or {}).get(_VERSION_KEY.encode(), b"none").decode("ascii", "replace")
            )
            if version != str(schema.SCHEMA_VERSION):
                raise UsageError(
                    f"{path} holds data of schema {version}; this version reads schema {schema.SCHEMA_VERSION}",
                    next_step="name the data of a run of this version, or measure again",
                )
            parts.append(part.cast(arrow_schema(table)))
        except (ValueError, TypeError, KeyError, ArithmeticError) as exc:
            raise UsageError(
                f"{path} is no Parquet file of the table {table.name}: {exc}", next_step="name another run"
            ) from exc
        except OSError as exc:
            raise HostError(f"{path} cannot be read: {exc}", next_step="see who may read it") from exc
    return pa.concat_tables(parts).unify_dictionaries()


def side_by_side(names: list[str], parts: list[pa.Table]) -> pa.Table:
    """Tables of several runs as one, with a last column `source` that says which run a row is of."""
    import pyarrow as pa  # late import: as in `_write`

    kind = _type(Kind.ENUM)
    named = [
        part.append_column(
            pa.field("source", kind, nullable=False), pa.array([name] * part.num_rows, pa.string()).cast(kind)
        )
        for name, part in zip(names, parts, strict=True)
    ]
    return pa.concat_tables(named).unify_dictionaries()


def columns(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns."""
    for batch in table.select(names).to_batches():
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def with_texts(table: pa.Table, name: str, texts: list[str]) -> pa.Table:
    """The table with other texts in one of its columns."""
    import pyarrow as pa  # late import: as in `_write`

    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(texts, pa.string()))


def is_enum(kind: pa.DataType) -> bool:
    """Whether a column of this type is an enumeration."""
    import pyarrow as pa  # late import: as in `_write`

    return bool(pa.types.is_dictionary(kind))


def _batches(source: sqlite3.Connection, table: Table) -> Iterator[pa.RecordBatch]:
    arrow = arrow_schema(table)
    return (_batch(rows, arrow) for rows in _cut(_rows(source, table), _CHUNK_ROWS))


def _batch(rows: list[tuple[Any, ...]], arrow: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa  # late import: as in `_write`

    return pa.record_batch(list(map(_array, zip(*rows, strict=True), arrow.types)), schema=arrow)


def _cut(items: Iterator[_T], length: int) -> Iterator[list[_T]]:
    while part := list(islice(items, length)):
        yield part


def _rows(source: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    if table is FEATURES:
        yield from feature_rows(source)
        return
    select = f"SELECT {', '.join(table.names)} FROM {table.name}"  # noqa: S608 - own names
    order = ", ".join(table.key)
    if table.parent is not None and table.parent[1] == schema.RUNS.name:
        # Run by run: one query for all would sort all the jobs there are before it yields the first.
        for run_id in source.execute(_RUN_IDS):
            yield from source.execute(f"{select} WHERE run_id = ? ORDER BY {order}", run_id)
    else:
        yield from source.execute(f"{select} ORDER BY {_RUN_ORDER if table is schema.RUNS else order}")


def _type(kind: Kind) -> pa.DataType:
    import pyarrow as pa  # late import: as in `_write`

    match kind:
        case Kind.INT:
            return pa.int64()
        case Kind.REAL:
            return pa.float64()
        case Kind.BOOL:
            return pa.bool_()
        case Kind.ENUM:
            return pa.dictionary(pa.int32(), pa.string())
        case Kind.TEXT:
            return pa.string()


def _array(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa  # late import: as in `_write`

    if pa.types.is_boolean(kind):  # SQLite has 0 and 1
        return pa.array([value if value is None else bool(value) for value in values], kind)
    return pa.array(values, kind)
