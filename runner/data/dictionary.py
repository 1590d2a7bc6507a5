"""The data dictionary: every table and column with type, unit and meaning. `python -m runner.data.dictionary docs/data-dictionary.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from runner.data.features import FEATURES
from runner.data.meanings import COLUMNS, TABLES
from runner.data.schema import SCHEMA_VERSION, Column, Table
from runner.data.schema import TABLES as STORED

_UNITS = {
    "_ns": "ns",
    "_us": "µs",
    "wall_s": "s",
    "aside_s": "s",
    "_bytes": "bytes",
    "_mips": "1/µs",
    "_utc": "UTC",
}


def unit_of(column: Column) -> str:
    """The unit in the column's name; empty: a number, a ratio or a text."""
    return next((unit for suffix, unit in _UNITS.items() if column.name.endswith(suffix)), "")


def dictionary() -> str:
    """The page, as Markdown.

    Raises:
        KeyError: a table or column has no meaning in `runner.data.meanings`.
    """
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Data dictionary"
    yield ""
    yield f"Schema {SCHEMA_VERSION}. Made from the schema by `python -m runner.data.dictionary docs/data-dictionary.md`; do not edit."
    yield "Times are int64 nanoseconds of guest time after the set's start instant unless it says otherwise; what is not known is null."
    yield "`enum`: a text of a few, a dictionary in Parquet and Arrow. `bool`: 0 or 1 in SQLite."
    for table in (*STORED, FEATURES):
        yield ""
        yield f"## {table.name}"
        yield TABLES[table.name]
        yield f"Key: {', '.join(f'`{name}`' for name in table.key)}.{_parent(table)}"
        yield ""
        yield "| column | type | unit | meaning | null when |"
        yield "|---|---|---|---|---|"
        for column in table.columns:
            meaning, _, absent = COLUMNS[table.name][column.name].partition(" | ")
            absent = "never" if column.required else absent or "not known"
            kind = column.kind.value
            yield f"| `{column.name}` | {kind} | {unit_of(column)} | {meaning} | {absent} |"


def _parent(table: Table) -> str:
    if table.parent is None:
        return ""
    own, other = table.parent
    return f" {', '.join(f'`{name}`' for name in own)}: a row of `{other}`."


if __name__ == "__main__":
    Path(*(sys.argv[1:] or ["/dev/stdout"])).write_text(dictionary(), encoding="utf-8")
