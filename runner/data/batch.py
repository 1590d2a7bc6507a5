"""What one attempt adds to the tables of the data, for whoever keeps them elsewhere than in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runner.analysis import CHEAP_TESTS, analyse
from runner.data import rows, schema
from runner.data.schema import Table
from runner.events import VALID_OUTCOMES, Event, Run, RunResult

#: In the order in which they can be written: whatever a row refers to comes before it.
DATA_TABLES = (
    schema.TASKSETS,
    schema.TASKS,
    schema.ANALYSES,
    schema.ANALYSIS_TASKS,
    schema.RUNS,
    schema.JOBS,
    schema.EVENTS,
)
_STATE = schema.TASKSETS.names.index("state")


@dataclass(frozen=True)
class Batch:
    """The rows of one attempt, and of its task set.

    Attributes:
        taskset_id: Its set.
        run_id: As in `runs`; empty: no attempt, its set was given up.
        state: What has become of the set: done, bad, or (None) nothing yet.
        of_set: Table -> the rows that belong to the set, the same at each of its attempts.
        of_run: Table -> the attempt's own.
    """

    taskset_id: str
    run_id: str
    state: str | None
    of_set: Mapping[Table, list[rows.Row]] = field(repr=False)
    of_run: Mapping[Table, list[rows.Row]] = field(repr=False)

    @property
    def n_rows(self) -> int:
        return sum(map(len, (*self.of_set.values(), *self.of_run.values())))

    @classmethod
    def of(cls, run: Run, result: RunResult | None, events: tuple[Event, ...] = ()) -> Batch:
        """Of an attempt that ended; without a result: of a set that was given up after it."""
        valid = result is not None and result.outcome in VALID_OUTCOMES
        state = "done" if valid else "bad" if result is None else None
        of_run: dict[Table, list[rows.Row]] = {}
        run_id = ""
        if result is not None:
            row = rows.run_row(run, result)
            run_id = row[0]
            of_run[schema.RUNS] = [row]
        if valid and result is not None:
            of_run[schema.JOBS] = list(rows.job_rows(run, result.jobs))
            of_run[schema.EVENTS] = list(rows.event_rows(run.run_id, events))
        return cls(run.taskset.taskset_id, run_id, state, _rows_of_set(run, state), MappingProxyType(of_run))


def _rows_of_set(run: Run, state: str | None) -> Mapping[Table, list[rows.Row]]:
    taskset = run.taskset
    row = list(rows.taskset_row(taskset))
    row[_STATE] = state
    findings = analyse(taskset, n_cpus=int(run.facts.get("vcpus") or 1), tests=CHEAP_TESTS)
    return MappingProxyType(
        {
            schema.TASKSETS: [tuple(row)],
            schema.TASKS: list(rows.task_rows(taskset)),
            schema.ANALYSES: [rows.analysis_row(taskset, one) for one in findings],
            schema.ANALYSIS_TASKS: [
                row for one in findings for row in rows.analysis_task_rows(taskset, one) if one.wcrt_ns
            ],
        }
    )
