"""Data sets that disks and people have damaged: told by everybody who opens them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit import audit
from runner.errors import HostError, UsageError
from runner.ledger import Ledger
from runner.parquet import write_parquet
from runner.progress import read_progress
from runner.reuse import EarlierRun


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
