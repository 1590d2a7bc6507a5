"""Data sets that disks and people have damaged: told by everybody who opens them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.data.audit import audit
from runner.data.database import row_of, whole_numbers
from runner.data.ledger import Ledger
from runner.data.parquet import write_parquet
from runner.data.progress import read_progress
from runner.data.record import Submitted
from runner.data.reuse import EarlierRun
from runner.errors import HostError, UsageError
from runner.exit_codes import ExitCode
from runner.submission import Submission
from runner.why import __main__ as why


def opened(path: Path) -> None:
    Ledger(path).open()


def to_parquet(path: Path) -> None:
    write_parquet(path, path.parent / "parquet")


@pytest.mark.parametrize("use", [opened, audit, read_progress, EarlierRun, to_parquet])
def test_a_damaged_schema_that_sqlite_quotes_is_told(tmp_path: Path, use: Callable[[Path], object]) -> None:
    """Python cannot decode SQLite's message then, and raises something else."""
    path = tmp_path / "results.sqlite"
    ledger = Ledger(path)
    ledger.open()
    ledger.close()
    path.write_bytes(path.read_bytes().replace(b"FOREIGN KEY", b"FOREIGN K\xff\xff", 1))
    with pytest.raises((UsageError, HostError)) as caught:
        use(path)
    assert str(path) in caught.value.what


def test_rows_that_the_tables_cannot_hold_are_told(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    ledger = Ledger(path)
    ledger.open()
    ledger.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'repeat INTEGER NOT NULL', 'repeat INTEGER')"
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO submissions (submission, source) VALUES (1, 'a')")
    with pytest.raises(UsageError, match="cannot hold"):
        to_parquet(path)
    assert list((tmp_path / "parquet").iterdir()) == []


def with_text_for_a_number(path: Path, table: str, column: str) -> None:
    """As a flipped bit can leave it, in spite of STRICT."""
    ledger = Ledger(path)
    ledger.open()
    ledger.put(Submitted(Submission(number=1, source="a", n_total=1)))
    ledger.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE type = 'table'")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = ?",
            (f"{column} INTEGER", f"{column} BLOB", table),
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"UPDATE {table} SET {column} = 'x'")


@pytest.mark.parametrize("use", [audit, read_progress])
def test_a_text_where_a_number_belongs_is_told(tmp_path: Path, use: Callable[[Path], object]) -> None:
    path = tmp_path / "results.sqlite"
    with_text_for_a_number(path, "submissions", "n_total")
    with pytest.raises(UsageError, match=r"no sound SQLite database: n_submitted is 'x'|whole number"):
        use(path)
    assert why.main([str(path)]) == ExitCode.USAGE


def test_rows_become_objects_only_with_values_of_their_types() -> None:
    values = {"name": "a", "share": 1, "limit": None, "over": 1}
    assert row_of(Sample, values) == Sample("a", 1, None, True)
    for name, value in (
        ("name", 1),
        ("name", None),
        ("share", "1"),
        ("limit", "1"),
        ("limit", 1.5),
        ("over", "no"),
    ):
        with pytest.raises(sqlite3.DatabaseError, match=name):
            row_of(Sample, {**values, name: value})
    whole_numbers(1, 0)
    for wrong in ("1", 1.5, None, b"1"):
        with pytest.raises(sqlite3.DatabaseError, match="whole number"):
            whole_numbers(1, wrong)


@dataclass(frozen=True)
class Sample:
    name: str
    share: float
    limit: int | None
    over: bool
