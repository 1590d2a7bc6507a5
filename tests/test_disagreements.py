"""The view `disagreements`, and its command."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runner.data.history import reading
from runner.disagreements import listed, main, stored_taskset
from runner.model import Policy, TaskSet
from runner.monitors.sqlite import SQLiteMonitor
from tests.cli import ROOT
from tests.monitor_samples import good, run, taskset


def disagreeing(
    folder: Path, verdict: str, n_missed: int, horizon_ns: int | None, which: TaskSet | None = None
) -> Path:
    """A data set with one run, and one analysis of its set."""
    path = folder / "results.sqlite"
    monitor = SQLiteMonitor(path)
    monitor.open()
    monitor.__taskset_finish__(run(which), good())
    monitor.close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM analysis_tasks")
        database.execute("DELETE FROM analyses")
        database.execute("UPDATE runs SET n_missed = ?, schedulable = ?", (n_missed, n_missed == 0))
        database.execute(
            "INSERT INTO analyses SELECT taskset_id, 'rta', coalesce(vcpus, 1), ?, 'exact', .1, 1.0, ? FROM runs",
            (verdict, horizon_ns),
        )
    return path


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (("schedulable", 1, None), "proven, missed"),
        (("unschedulable", 0, 1), "must miss, met"),
        (("unschedulable", 0, 1 << 60), None),
        (("unschedulable", 0, None), None),
        (("schedulable", 0, None), None),
        (("unknown", 1, None), None),
    ],
)
def test_contradictions_are_listed_with_their_command(tmp_path, capsys, case, kind):
    path = disagreeing(tmp_path, *case)
    assert main([str(path)]) == 0
    told = capsys.readouterr().out
    if kind is None:
        assert told.startswith("0 disagreements")
    else:
        assert kind in told
        assert "experiment=alone" in told
        (written,) = (tmp_path / "disagreements").glob("*/experiment/alone.yaml")
        assert "override /tasksets" in written.read_text()


def test_the_command_repeats_that_set_alone(tmp_path, capsys):
    """As it is printed; what it runs on is the user's choice."""
    path = disagreeing(tmp_path, "schedulable", 1, None)
    main([str(path)])
    (command,) = (line for line in capsys.readouterr().out.splitlines() if "experiment=alone" in line)
    again = [
        *shlex.split(command),
        "machines=simulation",
        "report=false",
        f"hydra.run.dir={tmp_path / 'again'}",
    ]
    subprocess.run(again, cwd=ROOT, check=True, timeout=120, capture_output=True)
    with closing(sqlite3.connect(tmp_path / "again" / "results.sqlite")) as database:
        assert database.execute("SELECT taskset_id, outcome, n_jobs FROM runs").fetchall() == [
            (run().taskset.taskset_id, "completed", 3)
        ]


@pytest.mark.parametrize("policy", [Policy.FIFO, Policy.DEADLINE])
@pytest.mark.parametrize("deadline", [None, 0.9, 1])
@pytest.mark.parametrize("budget", [None, 1, 1.5])
def test_a_stored_set_is_the_set(tmp_path, policy, deadline, budget):
    """Also where it left to defaults what the tables hold: deadlines as parts of periods, budgets as parts of C."""
    tasks = tuple(
        replace(
            task,
            policy=policy,
            deadline_ns=deadline and int(deadline * task.period_ns),
            dl_runtime_ns=int(budget * task.wcet_ns) if budget and policy is Policy.DEADLINE else None,
            jitter_ns=5,
            cpu_affinity=(0,),
            workload_args={"cpu_ns": 1000},
        )
        for task in taskset().tasks
    )
    given = replace(taskset(), tasks=tasks)
    path = disagreeing(tmp_path, "schedulable", 1, None, given)
    with reading(path) as database:
        (one,) = listed(database, 1)
        assert stored_taskset(database, one).taskset_id == given.taskset_id
