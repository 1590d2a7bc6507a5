"""The runs that contradict theory, or the ideal processor: `python -m runner.disagreements RUN_FOLDER`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.data.history import DataSet, all_of, reading
from runner.data.reuse import RESULTS_NAME
from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode, exit_code_of
from runner.faults.evidence import experiment_alone
from runner.files.private import make_private, write_private
from runner.model import OverrunPolicy, Policy, Task, TaskSet

_COLUMNS = "run_id, taskset_id, taskset, kind, tests, margin, n_missed, n_jobs, covered_ns, horizon_ns"
_SHOWN = f"SELECT {_COLUMNS} FROM disagreements ORDER BY kind, margin DESC, run_id LIMIT ?"  # noqa: S608 - own words
_TASKSET = "SELECT tasksets.name, overrun_policy, admission_control, stop_ns FROM tasksets JOIN runs USING (taskset_id) WHERE run_id = ?"
_TASKS = "SELECT * FROM tasks WHERE taskset_id = ? ORDER BY task_idx"
_SAME_NAMES = (
    *(
        "name",
        "period_ns",
        "wcet_ns",
        "deadline_ns",
        "offset_ns",
        "jitter_ns",
        "priority_rank",
        "n_jobs",
        "workload",
    ),
    *("kill_after_start_ns", "mem_limit_bytes", "dl_runtime_ns"),
)
# What a task may leave to its defaults: its period, and its C.
_DEFAULTED = (("deadline_ns",), ("dl_runtime_ns",), ("deadline_ns", "dl_runtime_ns"))


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One row of the view `disagreements`."""

    run_id: str
    taskset_id: str
    taskset: str
    kind: str
    tests: str
    margin: float | None
    n_missed: int
    n_jobs: int
    covered_ns: int | None
    horizon_ns: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0 where it could be told, whatever it is."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.disagreements",
        description="List the runs on which analysis, simulation and measurement disagree, with the command that repeats each set alone.",
    )
    parser.add_argument("run", type=Path, help="a run folder, or its results.sqlite")
    parser.add_argument("--limit", type=int, default=20, help="how many are shown; -1: all (default: 20)")
    options = parser.parse_args(arguments)
    path = options.run / RESULTS_NAME if options.run.is_dir() else options.run
    try:
        with reading(path) as database:
            (n_all,) = database.execute("SELECT count(*) FROM disagreements").fetchone()
            for one in listed(database, options.limit):
                print(_line(one))
                print(f"  {_command(path.parent, stored_taskset(database, one))}")
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    print(f"{n_all} disagreements; no miss in a run's jobs is no proof: covered_ns says how much it saw")
    return ExitCode.OK


def listed(database: DataSet, limit: int) -> tuple[Disagreement, ...]:
    """Kind by kind, the largest margins first; -1: all."""
    return all_of(Disagreement, database, _SHOWN, limit)


def stored_taskset(database: DataSet, one: Disagreement) -> TaskSet:
    """The set again, from the tables: under its own identity, wherever what it left to defaults was left so by all of its tasks.

    Raises:
        UsageError: the data do not hold the set that they name.
    """
    name, overrun_policy, admission_control, stop_ns = database.execute(_TASKSET, (one.run_id,)).fetchone()
    tasks = tuple(
        Task(
            **{column: row[column] for column in _SAME_NAMES},
            policy=Policy(row["policy"]),
            cpu_affinity=tuple(json.loads(row["cpu_affinity"])),
            workload_args={
                key: tuple(value) if isinstance(value, list) else value
                for key, value in json.loads(row["workload_args_json"]).items()
            },
        )
        for row in database.execute(_TASKS, (one.taskset_id,)).fetchall()
    )
    taskset = TaskSet(
        tasks,
        name=name,
        overrun_policy=OverrunPolicy(overrun_policy),
        admission_control=bool(admission_control),
        stop_ns=stop_ns,
    )
    if not tasks:
        raise UsageError(
            f"the data hold no tasks of {one.taskset_id}", next_step="see python -m runner.check"
        )
    alike = (taskset, *(_less_told(taskset, names) for names in _DEFAULTED))
    return next((other for other in alike if other.taskset_id == one.taskset_id), taskset)


def _less_told(taskset: TaskSet, names: tuple[str, ...]) -> TaskSet:
    """The same set without what follows from the rest: the tables hold values in effect, whether they were given or not."""
    tasks = taskset.tasks
    if "deadline_ns" in names:
        tasks = tuple(
            replace(task, deadline_ns=None) if task.deadline_ns == task.period_ns else task for task in tasks
        )
    if "dl_runtime_ns" in names:
        tasks = tuple(
            replace(task, dl_runtime_ns=None) if task.dl_runtime_ns == task.wcet_ns else task
            for task in tasks
        )
    return replace(taskset, tasks=tasks)


def _command(folder: Path, taskset: TaskSet) -> str:
    """The command that runs the set alone, and the file that it needs."""
    target = folder.absolute() / "disagreements" / taskset.taskset_id
    make_private(target / "experiment")
    write_private(target / "experiment" / "alone.yaml", experiment_alone(taskset).encode())
    return shlex.join([sys.executable, "-m", "runner", f"--config-dir={target}", "experiment=alone"])


def _line(one: Disagreement) -> str:
    margin = "" if one.margin is None else f", margin {one.margin:.4f}"
    return (
        f"{one.taskset_id} {one.taskset}: {one.kind} ({one.tests}{margin}): {one.n_missed} of {one.n_jobs} jobs missed,"
        f" {(one.covered_ns or 0) / 1e9:g} s seen"
    )


if __name__ == "__main__":
    sys.exit(main())
