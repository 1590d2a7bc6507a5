"""The shapes of `conf/monitors/`; what the fields mean stands at the classes that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from omegaconf import MISSING


@dataclass
class LoggingConf:
    """A line per attempt in the run's log."""

    _target_: str = "runner.monitors.logging.LoggingMonitor"
    level: str = "INFO"


@dataclass
class StdoutConf:
    """A line per attempt on standard output."""

    _target_: str = "runner.monitors.stdout.StdoutMonitor"


@dataclass
class ProgressConf:
    """A progress bar."""

    _target_: str = "runner.monitors.progress.ProgressMonitor"
    interval_s: float = 5.0


@dataclass
class SQLiteConf:
    """The data set."""

    _target_: str = "runner.monitors.sqlite.SQLiteMonitor"
    path: str = "${run_folder}/results.sqlite"
    commit_interval_s: float = 0.2
    parquet: str | None = "${run_folder}/parquet"
    analyses: str = "cheap"


@dataclass
class CSVConf:
    """Results as CSV, a file per table; see `runner.monitors.csv.CSVMonitor`."""

    _target_: str = "runner.monitors.csv.CSVMonitor"
    folder: str = "${run_folder}/csv"
    required: bool = False
    flush_interval_s: float = 1.0


@dataclass
class ParquetConf:
    """Results as Parquet while the run goes on; see `runner.monitors.parquet.ParquetMonitor`."""

    _target_: str = "runner.monitors.parquet.ParquetMonitor"
    folder: str = "${run_folder}/stream"
    required: bool = False
    flush_interval_s: float = 60.0
    rows_per_part: int = 200_000


@dataclass
class PostgreSQLConf:
    """Results in a PostgreSQL database; see `runner.monitors.postgresql.PostgreSQLMonitor`."""

    _target_: str = "runner.monitors.postgresql.PostgreSQLMonitor"
    url: str = MISSING
    db_schema: str = "rtfleet"
    required: bool = False
    flush_interval_s: float = 1.0


@dataclass
class MongoDBConf:
    """Results in a MongoDB database; see `runner.monitors.mongodb.MongoDBMonitor`."""

    _target_: str = "runner.monitors.mongodb.MongoDBMonitor"
    url: str = MISSING
    database: str = "rtfleet"
    required: bool = False
    flush_interval_s: float = 1.0


@dataclass
class SummaryConf:
    """The table at the end."""

    _target_: str = "runner.monitors.summary.SummaryMonitor"


#: Name in the group -> its schema.
MONITORS: Mapping[str, type] = MappingProxyType(
    {
        "logging": LoggingConf,
        "stdout": StdoutConf,
        "progress": ProgressConf,
        "sqlite": SQLiteConf,
        "summary": SummaryConf,
        "csv": CSVConf,
        "parquet": ParquetConf,
        "postgresql": PostgreSQLConf,
        "mongodb": MongoDBConf,
    }
)
