"""The tables: what SQLite makes of them, and that rows fit them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data import rows, schema, views
from runner.data.schema import Kind
from runner.events import (
    Disturbance,
    EndEvent,
    Event,
    ExitType,
    JobRecord,
    Outcome,
    RefusedEvent,
    StartEvent,
    TaskDoneEvent,
    Validity,
)
from runner.model import Policy, Provenance, Task, TaskSet
from tests.monitor_samples import MS, failed, good, job, run, taskset

PYTHON_TYPES: dict[Kind, type | tuple[type, ...]] = {
    Kind.INT: int,
    Kind.REAL: float,
    Kind.TEXT: str,
    Kind.ENUM: str,
    Kind.BOOL: (bool, int),
}


def check(table: schema.Table, row: rows.Row) -> dict[str, Any]:
    """The row by column, every value of its column's type."""
    assert len(row) == len(table.columns)
    for column, value in zip(table.columns, row, strict=True):
        if value is None:
            assert not column.required, column
        else:
            assert isinstance(value, PYTHON_TYPES[column.kind]), (column, value)
            assert column.kind is not Kind.INT or not isinstance(value, bool), column
    return dict(zip(table.names, row, strict=True))


def test_sqlite_takes_every_definition():
    database = sqlite3.connect(":memory:")
    for table in schema.TABLES:
        database.execute(table.ddl)
        described = database.execute(f"PRAGMA table_info({table.name})").fetchall()
        assert tuple(row[1] for row in described) == table.names
        assert tuple(row[1] for row in sorted(described, key=lambda row: row[5]) if row[5]) == table.key
    for statement in (*schema.INDICES, *views.VIEWS):
        database.execute(statement)
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


def test_times_are_integers_and_say_so():
    for table in schema.TABLES:
        for column in table.columns:
            if column.name.endswith("_ns"):
                assert column.kind is Kind.INT, column


def test_foreign_keys_name_columns_of_both_tables():
    tables = {table.name: table for table in schema.TABLES}
    for table in schema.TABLES:
        if table.parent is not None:
            own, other = table.parent
            assert own == tables[other].key
            assert set(own) <= set(table.names)


def test_a_task_set_and_its_tasks():
    which = taskset(target=0.5)
    row = check(schema.TASKSETS, rows.taskset_row(which))
    assert row["taskset_id"] == which.taskset_id
    assert (row["generator"], row["generator_params_json"], row["seed"]) == ("uunifast", '{"n": 2}', 7)
    assert (row["n_tasks"], row["utilization"], row["utilization_max"], row["density"]) == (2, 0.5, 0.3, 0.5)
    assert (row["hyperperiod_ns"], row["deadline_model"], row["state"]) == (20 * MS, "implicit", None)
    fast, slow = (check(schema.TASKS, row) for row in rows.task_rows(which))
    assert (fast["task_idx"], fast["name"], fast["deadline_ns"]) == (0, "fast", 10 * MS)
    assert (slow["task_idx"], slow["priority_rank"], slow["dl_runtime_ns"]) == (1, 1, None)


def test_what_is_not_known_is_null():
    which = TaskSet(tasks=(Task(period_ns=None, workload="hey"), Task(period_ns=5 * MS, workload="hey")))
    row = check(schema.TASKSETS, rows.taskset_row(which))
    for name in ("utilization", "utilization_max", "density", "hyperperiod_ns", "deadline_model", "seed"):
        assert row[name] is None, name
    one_shot, _ = (check(schema.TASKS, row) for row in rows.task_rows(which))
    assert (one_shot["period_ns"], one_shot["deadline_ns"], one_shot["wcet_ns"]) == (None, None, None)


def test_deadlines_and_servers():
    constrained = Task(period_ns=10 * MS, wcet_ns=1 * MS, deadline_ns=5 * MS, policy=Policy.DEADLINE)
    arbitrary = Task(period_ns=10 * MS, wcet_ns=1 * MS, deadline_ns=15 * MS)
    row = check(schema.TASKSETS, rows.taskset_row(TaskSet(tasks=(constrained,))))
    assert (row["deadline_model"], row["density"]) == ("constrained", pytest.approx(0.2))
    both = TaskSet(tasks=(constrained, arbitrary))
    row = check(schema.TASKSETS, rows.taskset_row(both))
    # Density of the second: C/min(D, T) = 0.1.
    assert (row["deadline_model"], row["density"]) == ("arbitrary", pytest.approx(0.3))
    server, _ = (check(schema.TASKS, row) for row in rows.task_rows(both))
    assert (server["dl_runtime_ns"], server["dl_deadline_ns"], server["dl_period_ns"]) == (
        MS,
        5 * MS,
        10 * MS,
    )
    assert check(schema.RUNS, rows.run_row(run(both), good()))["scheduler"] == "deadline+fifo"


def test_a_seed_beyond_64_bits_is_kept():
    which = replace(taskset(), provenance=Provenance(generator="g", seed=1 << 127))
    row = check(schema.TASKSETS, rows.taskset_row(which))
    assert (row["seed"], row["generator_params_json"]) == (None, f'{{"seed": {1 << 127}}}')


def test_a_valid_run_has_labels():
    late = check(schema.RUNS, rows.run_row(run(accel="tcg", boot="cold"), good(slow_ns=21 * MS)))
    assert (late["outcome"], late["n_jobs"], late["n_missed"], late["schedulable"]) == ("completed", 3, 1, 0)
    assert (late["accel"], late["icount_shift"], late["facts_json"]) == ("tcg", None, '{"boot": "cold"}')
    assert (late["started_utc"], late["error"]) == ("2026-01-02T03:04:05.000000+00:00", None)


def test_a_run_says_what_it_is_worth():
    facts: dict[str, str | int | float | None] = {"cpu_mips": 125.0, "reset": "taskset"}
    attempt = replace(run(), facts=facts, repetition=2, position=7, identity="ab")
    quiet = Disturbance(steal_ns=0, sched_delay_ns=5, clock_drift_ns=-3)
    result = replace(good(), validity=Validity.UNDISTURBED, disturbance=quiet, reused_from="r in f")
    row = check(schema.RUNS, rows.run_row(attempt, result))
    assert (row["repetition"], row["attempt"], row["position"], row["identity"]) == (2, 1, 7, "ab")
    assert (row["cpu_mips"], row["reset"], row["facts_json"]) == (125.0, "taskset", "{}")
    assert (row["validity"], row["steal_ns"], row["sched_delay_ns"], row["clock_drift_ns"]) == (
        "undisturbed", 0, 5, -3,
    )  # fmt: skip
    assert (row["table_sha256"], row["reused_from"]) == (good().table_sha256, "r in f")
    bare = check(schema.RUNS, rows.run_row(run(), good()))
    assert [bare[name] for name in ("identity", "validity", "steal_ns", "reused_from")] == [None] * 4


@pytest.mark.parametrize(
    "outcome", [Outcome.ABORTED, Outcome.GUEST_CRASH, Outcome.INFRA_ERROR, Outcome.DISTURBED]
)
def test_a_failure_of_the_infrastructure_is_no_label(outcome):
    row = check(schema.RUNS, rows.run_row(run(), failed(outcome)))
    assert (row["n_jobs"], row["n_missed"], row["schedulable"], row["table_sha256"]) == (None,) * 4
    assert str(row["error"]).startswith("the guest died")


def test_an_error_with_bytes_that_are_no_text_is_kept():
    row = check(schema.RUNS, rows.run_row(run(), replace(failed(), error="panic \udcff")))
    assert row["error"] == "panic ?"


def test_a_late_job():
    (row,) = (check(schema.JOBS, row) for row in rows.job_rows(run(), [job(1, 0, 21 * MS)]))
    assert (row["release_ns"], row["finish_ns"], row["deadline_abs_ns"]) == (0, 21 * MS, 20 * MS)
    assert (row["response_ns"], row["lateness_ns"], row["tardiness_ns"], row["missed"]) == (
        21 * MS, MS, MS, True,
    )  # fmt: skip
    assert row["start_latency_ns"] == 1000


times = st.none() | st.integers(0, 1 << 50)


@settings(deadline=None)  # a busy host is slow, not wrong
@given(
    st.builds(
        JobRecord,
        task_idx=st.integers(0, 1),
        job_idx=st.integers(0, 5),
        release_ns=times,
        start_ns=times,
        finish_ns=times,
        exec_ns=times,
        exit_type=st.sampled_from(ExitType),
    )
)
def test_derived_columns_agree_with_the_record_and_each_other(record):
    attempt = run()
    (row,) = (check(schema.JOBS, row) for row in rows.job_rows(attempt, [record]))
    assert row["missed"] is record.missed(attempt.taskset)
    assert row["deadline_abs_ns"] == record.deadline_abs_ns(attempt.taskset)
    assert row["response_ns"] == record.response_ns
    if record.exit_type is not ExitType.EXIT:
        assert row["lateness_ns"] is None
    if row["lateness_ns"] is not None:
        assert row["missed"] == (row["lateness_ns"] > 0)
        assert row["tardiness_ns"] == max(0, row["lateness_ns"])
        relative_ns = attempt.taskset.tasks[record.task_idx].relative_deadline_ns
        assert row["response_ns"] == row["lateness_ns"] + relative_ns


def test_events():
    kinds: list[Event] = [
        StartEvent(5),
        RefusedEvent(1, 16, "EBUSY"),
        TaskDoneEvent(0, 7),
        EndEvent(9, stopped=True),
    ]
    told = [check(schema.EVENTS, row) for row in rows.event_rows("r", kinds)]
    assert [(e["seq"], e["t_ns"], e["kind"], e["task_idx"], e["value"]) for e in told] == [
        (0, 0, "start", None, 5),
        (1, None, "refused", 1, 16),
        (2, 7, "task_done", 0, None),
        (3, 9, "end", None, 1),
    ]
