"""The data's tables: names, columns and types, the same in every format that the data is written in.

Times are int64 nanoseconds and end in `_ns`; what is not known is null, never a sentinel; enums are text, truth values 0 or 1.
Read columns by their names: they are only ever added, each time with a new `SCHEMA_VERSION`. `runner.data.meanings` says what each
of them means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import MappingProxyType

SCHEMA_VERSION = 4
#: Marks a file as ours among all SQLite files: `RTF1`.
APPLICATION_ID = 0x52544631


class Kind(Enum):
    """What a column holds."""

    INT = "int64"
    REAL = "float64"
    TEXT = "text"
    #: One of a few texts.
    ENUM = "enum"
    #: 0 or 1 where the format has no truth values.
    BOOL = "bool"


_SQLITE_TYPES: Mapping[Kind, str] = MappingProxyType(
    {Kind.INT: "INTEGER", Kind.REAL: "REAL", Kind.TEXT: "TEXT", Kind.ENUM: "TEXT", Kind.BOOL: "INTEGER"}
)


@dataclass(frozen=True)
class Column:
    """One column; `required` ones are never null."""

    name: str
    kind: Kind
    required: bool = False

    @property
    def ddl(self) -> str:
        """Its definition in SQL."""
        check = f" CHECK ({self.name} IN (0, 1))" if self.kind is Kind.BOOL else ""
        return f"{self.name} {_SQLITE_TYPES[self.kind]}{' NOT NULL' if self.required else ''}{check}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        key: Columns that identify a row.
        parent: Columns of this table -> the table whose key they hold.
        clustered: Rows are stored in the order of the key, without a second index; for the large tables.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    parent: tuple[tuple[str, ...], str] | None = None
    clustered: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def ddl(self) -> str:
        """Its definition in SQL (SQLite ≥ 3.37: `STRICT` refuses a text in a column of integers)."""
        lines = [column.ddl for column in self.columns]
        lines.append(f"PRIMARY KEY ({', '.join(self.key)})")
        if self.parent is not None:
            own, other = self.parent
            lines.append(f"FOREIGN KEY ({', '.join(own)}) REFERENCES {other}")
        options = "STRICT, WITHOUT ROWID" if self.clustered else "STRICT"
        body = ",\n    ".join(lines)
        return f"CREATE TABLE {self.name} (\n    {body}\n) {options}"

    @cached_property
    def insert(self) -> str:
        """A statement that adds a row, given as one value per column."""
        return f"INSERT INTO {self.name} VALUES ({', '.join('?' * len(self.columns))})"  # noqa: S608 - own names


def _columns(kind: Kind, *names: str, required: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, kind, required) for name in names)


TASKSETS = Table(
    name="tasksets",
    columns=(
        Column("taskset_id", Kind.TEXT, required=True),
        Column("name", Kind.TEXT, required=True),
        Column("generator", Kind.ENUM, required=True),
        Column("generator_params_json", Kind.TEXT, required=True),
        Column("seed", Kind.INT),
        Column("n_tasks", Kind.INT, required=True),
        *_columns(Kind.REAL, "utilization_target", "utilization", "density", "utilization_max"),
        Column("hyperperiod_ns", Kind.INT),
        Column("deadline_model", Kind.ENUM),
        Column("admission_control", Kind.BOOL, required=True),
        Column("stop_ns", Kind.INT),
        Column("state", Kind.ENUM),
    ),
    key=("taskset_id",),
)

TASKS = Table(
    name="tasks",
    columns=(
        Column("taskset_id", Kind.TEXT, required=True),
        Column("task_idx", Kind.INT, required=True),
        Column("name", Kind.TEXT, required=True),
        *_columns(Kind.INT, "wcet_ns", "period_ns", "deadline_ns"),
        *_columns(Kind.INT, "offset_ns", "priority_rank", "n_jobs", required=True),
        Column("policy", Kind.ENUM, required=True),
        Column("cpu_affinity", Kind.TEXT, required=True),
        Column("workload", Kind.ENUM, required=True),
        Column("workload_args_json", Kind.TEXT, required=True),
        *_columns(Kind.INT, "mem_limit_bytes", "kill_after_start_ns"),
        *_columns(Kind.INT, "dl_runtime_ns", "dl_deadline_ns", "dl_period_ns"),
        Column("jitter_ns", Kind.INT, required=True),
    ),
    key=("taskset_id", "task_idx"),
    parent=(("taskset_id",), "tasksets"),
    clustered=True,
)

#: Columns of `runs` that the host tells about itself; whatever else it tells goes to `facts_json`.
FACTS = (
    *_columns(Kind.ENUM, "arch", "accel"),
    Column("icount_shift", Kind.INT),
    Column("cpu_mips", Kind.REAL),
    Column("reset", Kind.ENUM),
    Column("vcpus", Kind.INT),
    *_columns(Kind.ENUM, "host_id", "kernel_release", "preempt_model", "guest_image_sha256", "qemu_version"),
)

RUNS = Table(
    name="runs",
    columns=(
        Column("run_id", Kind.TEXT, required=True),
        Column("taskset_id", Kind.TEXT, required=True),
        Column("machine", Kind.ENUM, required=True),
        *_columns(Kind.INT, "repetition", "attempt", "position", required=True),
        Column("recovery", Kind.ENUM),
        *_columns(Kind.ENUM, "outcome", "scheduler", "overrun_policy", required=True),
        *FACTS,
        Column("facts_json", Kind.TEXT, required=True),
        *_columns(Kind.INT, "t0_guest_ns", "end_ns"),
        Column("started_utc", Kind.TEXT, required=True),
        Column("wall_s", Kind.REAL, required=True),
        *_columns(Kind.INT, "n_jobs", "n_missed"),
        Column("schedulable", Kind.BOOL),
        Column("error", Kind.TEXT),
        *_columns(Kind.TEXT, "identity", "table_sha256"),
        Column("validity", Kind.ENUM),
        *_columns(Kind.INT, "steal_ns", "sched_delay_ns", "clock_drift_ns"),
        Column("reused_from", Kind.TEXT),
    ),
    key=("run_id",),
    parent=(("taskset_id",), "tasksets"),
)

JOBS = Table(
    name="jobs",
    columns=(
        Column("run_id", Kind.TEXT, required=True),
        *_columns(Kind.INT, "task_idx", "job_idx", required=True),
        *_columns(Kind.INT, "release_ns", "start_ns", "finish_ns", "deadline_abs_ns", "exec_ns"),
        *_columns(Kind.INT, "response_ns", "start_latency_ns", "lateness_ns", "tardiness_ns"),
        Column("missed", Kind.BOOL),
        Column("exit_type", Kind.ENUM, required=True),
        *_columns(Kind.INT, "exit_code", "preemptions", "migrations", "cpu_first", "cpu_last"),
    ),
    key=("run_id", "task_idx", "job_idx"),
    parent=(("run_id",), "runs"),
    clustered=True,
)

EVENTS = Table(
    name="events",
    columns=(
        Column("run_id", Kind.TEXT, required=True),
        Column("seq", Kind.INT, required=True),
        Column("t_ns", Kind.INT),
        Column("kind", Kind.ENUM, required=True),
        *_columns(Kind.INT, "task_idx", "value"),
    ),
    key=("run_id", "seq"),
    parent=(("run_id",), "runs"),
    clustered=True,
)

SUBMISSIONS = Table(
    name="submissions",
    columns=(
        Column("submission", Kind.INT, required=True),
        Column("source", Kind.TEXT, required=True),
        Column("repeat", Kind.INT, required=True),
        Column("n_total", Kind.INT),
    ),
    key=("submission",),
)

#: What has become of each measurement that was handed out; whatever is not here was not begun.
LEDGER = Table(
    name="ledger",
    columns=(
        *_columns(Kind.INT, "submission", "set_idx", "repetition", required=True),
        Column("taskset_id", Kind.TEXT, required=True),
        Column("state", Kind.ENUM, required=True),
        Column("n_failed", Kind.INT, required=True),
        Column("run_id", Kind.TEXT),
        Column("error", Kind.TEXT),
    ),
    key=("submission", "set_idx", "repetition"),
    parent=(("submission",), "submissions"),
    clustered=True,
)

INCIDENTS = Table(
    name="incidents",
    columns=(
        Column("seq", Kind.INT, required=True),
        Column("utc", Kind.TEXT, required=True),
        Column("machine", Kind.ENUM, required=True),
        Column("fault", Kind.ENUM, required=True),
        Column("what", Kind.TEXT, required=True),
        Column("recovery", Kind.ENUM),
        Column("aside_s", Kind.REAL),
        Column("taskset_id", Kind.TEXT),
        *_columns(Kind.INT, "submission", "set_idx", "repetition", "attempt"),
        Column("evidence", Kind.TEXT),
    ),
    key=("seq",),
)

#: What theory says of each task set (`runner.analysis`), and, as the test `simulation`, what an ideal processor does with it.
ANALYSES = Table(
    name="analyses",
    columns=(
        Column("taskset_id", Kind.TEXT, required=True),
        Column("test", Kind.ENUM, required=True),
        Column("n_cpus", Kind.INT, required=True),
        *_columns(Kind.ENUM, "verdict", "exactness", required=True),
        Column("margin", Kind.REAL),
        Column("wall_us", Kind.REAL, required=True),
        Column("horizon_ns", Kind.INT),
    ),
    key=("taskset_id", "test", "n_cpus"),
    parent=(("taskset_id",), "tasksets"),
    clustered=True,
)

ANALYSIS_TASKS = Table(
    name="analysis_tasks",
    columns=(
        Column("taskset_id", Kind.TEXT, required=True),
        Column("test", Kind.ENUM, required=True),
        *_columns(Kind.INT, "n_cpus", "task_idx", required=True),
        Column("wcrt_ns", Kind.INT),
    ),
    key=("taskset_id", "test", "n_cpus", "task_idx"),
    parent=(("taskset_id", "test", "n_cpus"), "analyses"),
    clustered=True,
)

TABLES = (TASKSETS, TASKS, RUNS, JOBS, EVENTS, SUBMISSIONS, LEDGER, INCIDENTS, ANALYSES, ANALYSIS_TASKS)
INDICES = (
    "CREATE INDEX runs_taskset_id ON runs (taskset_id)",
    "CREATE INDEX runs_identity ON runs (identity)",
    "CREATE INDEX incidents_place ON incidents (submission, set_idx)",
)
