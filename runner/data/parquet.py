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
from runner.data.schema import Kind, Table
from runner.errors import HostError, UsageError
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

_T = TypeVar("_T")

# Runs in an order that does not depend on who measured when; whatever belongs to runs follows it.
_RUN_ORDER = "taskset_id, repetition, attempt, run_id"
_RUN_IDS = f"SELECT run_id FROM runs ORDER BY {_RUN_ORDER}"  # noqa: S608 - own names


def write_parquet(database: Path, folder: Path) -> None:
    """Write every table of an SQLite data set to `folder`, as `tasksets.parquet`, `jobs.parquet` …

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
                names = [f"{table.name}.parquet" for table in schema.TABLES]
                for table, name in zip(schema.TABLES, names, strict=True):
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

    types = [_type(column.kind) for column in table.columns]
    fields = [
        pa.field(column.name, kind, nullable=not column.required)
        for column, kind in zip(table.columns, types, strict=True)
    ]
    arrow = pa.schema(fields, metadata={"rtfleet.schema_version": str(schema.SCHEMA_VERSION)})
    # Otherwise it writes dozens of bytes at a time.
    with (
        pa.output_stream(str(path), compression=None, buffer_size=_BUFFER_BYTES) as file,
        parquet.ParquetWriter(file, arrow, compression="zstd") as writer,
    ):
        chunks = (
            pa.record_batch(list(map(_array, zip(*rows, strict=True), types)), schema=arrow)
            for rows in _cut(_rows(source, table), _CHUNK_ROWS)
        )
        for group in _cut(chunks, _GROUP_CHUNKS):
            writer.write_table(pa.Table.from_batches(group))
    sync_file(path)


def _cut(items: Iterator[_T], length: int) -> Iterator[list[_T]]:
    while part := list(islice(items, length)):
        yield part


def _rows(source: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
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
        return pa.array(values, pa.int8()).cast(kind)
    return pa.array(values, kind)
