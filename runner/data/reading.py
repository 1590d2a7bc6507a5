"""The data of runs, as tables of Arrow, pandas or polars: `runner.load("outputs/2026-11-23/23-52-37").pandas("features")`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from runner.data.database import SQLITE_ERRORS, open_database, unreadable
from runner.data.features import FEATURES, TASK_COLUMNS, lineages_of
from runner.data.parquet import (
    STORED,
    columns,
    from_database,
    is_enum,
    read_files,
    side_by_side,
    with_texts,
)
from runner.data.schema import Table
from runner.errors import UsageError
from runner.text.excerpt import excerpt

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_DATABASE = "results.sqlite"
_FOLDER = "parquet"
_TABLES = {table.name: table for table in STORED}


def load(*paths: str | PathLike[str]) -> DataSet:
    """The data of one run, or of several together.

    Args:
        paths: Run folders, SQLite files, or folders with Parquet files. Of a run folder the SQLite file is read where there is one.

    Raises:
        UsageError: when there is none, or no data at one of them.
    """
    if not paths:
        raise UsageError("load() was given no path", next_step="name a run folder or a results.sqlite")
    return DataSet(tuple(_found(Path(path)) for path in paths))


class DataSet:
    """Tables of runs, read when they are asked for.

    Attributes:
        sources: The SQLite file or the folder of Parquet files of each run.
        tables: Name -> `pyarrow.Table`; a mapping that reads a table at its first use and keeps it.
    """

    def __init__(self, sources: tuple[Path, ...]) -> None:
        self.sources = sources
        self.tables: Mapping[str, pa.Table] = _Tables(sources)

    def pandas(self, name: str) -> pd.DataFrame:
        """A table as a pandas frame: integers stay integers where some are null, enumerations are categories.

        Raises:
            UsageError: when there is no such table, or no pandas.
        """
        table = self.tables[name]
        try:
            import pandas  # late import: an extra, and half a second
        except ImportError as exc:
            raise _not_installed("pandas") from exc
        return table.to_pandas(types_mapper=lambda kind: None if is_enum(kind) else pandas.ArrowDtype(kind))

    def polars(self, name: str) -> pl.DataFrame:
        """A table as a polars frame: enumerations are categories, null is null.

        Raises:
            UsageError: when there is no such table, or no polars.
        """
        table = self.tables[name]
        try:
            import polars  # late import: an extra, and a quarter of a second
        except ImportError as exc:
            raise _not_installed("polars") from exc
        return polars.DataFrame(table)

    def __repr__(self) -> str:
        return f"DataSet({', '.join(map(str, self.sources))}: {', '.join(self.tables)})"


class _Tables(Mapping[str, "pa.Table"]):
    def __init__(self, sources: tuple[Path, ...]) -> None:
        self._sources = sources
        self._read: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._read:
            if name not in _TABLES:
                raise UsageError(
                    f"there is no table {excerpt(name)}", next_step=f"choose one of: {', '.join(_TABLES)}"
                )
            parts = [_read(source, _TABLES[name]) for source in self._sources]
            names = [str(source) for source in self._sources]
            table = parts[0] if len(parts) == 1 else side_by_side(names, parts)
            self._read[name] = self._linked(table) if len(parts) > 1 and name == FEATURES.name else table
        return self._read[name]

    def _linked(self, features: pa.Table) -> pa.Table:
        """With lineages that go across the runs."""
        sets = self._rows("tasksets", "taskset_id", "seed", "generator_params_json")
        groups = lineages_of(sets, self._rows("tasks", "taskset_id", *TASK_COLUMNS))
        ids = [taskset_id for (taskset_id,) in columns(features, "taskset_id")]
        return with_texts(features, "group_lineage", [groups.get(one, one) for one in ids])

    def _rows(self, name: str, *names: str) -> Iterator[tuple[object, ...]]:
        """Some columns, read from one run after the other and not kept."""
        table = _TABLES[name]
        part = replace(table, columns=tuple(one for one in table.columns if one.name in names))
        for source in self._sources:
            yield from columns(_read(source, part), *names)

    def __contains__(self, name: object) -> bool:
        return name in _TABLES

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLES)

    def __len__(self) -> int:
        return len(_TABLES)


def _found(path: Path) -> Path:
    if path.is_file() or (path.is_dir() and _files(path, "runs")):
        return path
    for candidate in (path / _DATABASE, path / _FOLDER):
        if candidate.is_file() or _files(candidate, "runs"):
            return candidate
    raise UsageError(
        f"there is no data at {path}",
        next_step=f"name a run folder (with {_DATABASE} or {_FOLDER}/), an SQLite file, or a folder of Parquet files",
    )


def _files(folder: Path, name: str) -> list[Path]:
    """The files of a table: one, or the parts that a monitor has written one after the other."""
    whole = folder / f"{name}.parquet"
    return [whole] if whole.is_file() else sorted((folder / name).glob("*.parquet"))


def _read(source: Path, table: Table) -> pa.Table:
    if source.is_dir():
        return read_files(table, _files(source, table.name))
    with closing(open_database(source)) as database:
        try:
            return from_database(database, table)
        except SQLITE_ERRORS as exc:
            raise unreadable(source, exc) from exc
        except (ValueError, TypeError, ArithmeticError) as exc:
            raise UsageError(
                f"{source} holds what {table.name} cannot hold: {exc}",
                next_step="it was changed, or its disk is damaged: python -m runner.check tells what else is wrong",
            ) from exc


def _not_installed(library: str) -> UsageError:
    return UsageError(
        f"{library} is not installed",
        next_step=f"pip install 'rtfleet[{library}]', or use .tables: they are Arrow",
    )
