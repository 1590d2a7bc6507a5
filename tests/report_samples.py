"""Runs to report on: computed ones, with analyses beside them, and with names that mean harm."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import groupby
from pathlib import Path

from tests.cli import run_cli

ANALYSES = (
    "(taskset_id TEXT, test TEXT, n_cpus INTEGER, verdict TEXT, exactness TEXT, margin REAL, wall_us REAL,"
    " PRIMARY KEY (taskset_id, test, n_cpus))"
)
ANALYSIS_TASKS = (
    "(taskset_id TEXT, test TEXT, n_cpus INTEGER, task_idx INTEGER, wcrt_ns INTEGER,"
    " PRIMARY KEY (taskset_id, test, n_cpus, task_idx))"
)


def simulated(folder: Path, *overrides: str) -> Path:
    """A run folder of task sets on the ideal processor."""
    done = run_cli(folder, "machines=simulation", "monitors.sqlite.parquet=null", *overrides)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def analyse(run: Path) -> None:
    """Write what simple tests say of each set, for rate-monotonic priorities and implicit deadlines."""
    with closing(sqlite3.connect(run / "results.sqlite", isolation_level=None)) as database:
        database.execute("BEGIN")
        for name, columns in (("analyses", ANALYSES), ("analysis_tasks", ANALYSIS_TASKS)):
            database.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
        query = "SELECT taskset_id, task_idx, wcet_ns, period_ns, priority_rank FROM tasks ORDER BY taskset_id, priority_rank, task_idx"
        for taskset_id, rows in groupby(database.execute(query).fetchall(), lambda row: row[0]):
            tasks = [row[1:] for row in rows]
            bounds = _response_times([(c, t, rank) for _, c, t, rank in tasks])
            for (idx, *_), bound in zip(tasks, bounds, strict=True):
                database.execute(
                    "INSERT INTO analysis_tasks VALUES (?, 'rta', 1, ?, ?)", (taskset_id, idx, bound)
                )
            for test, verdict, exactness in _verdicts([(c, t) for _, c, t, _ in tasks], bounds):
                row = (taskset_id, test, verdict, exactness)
                database.execute("INSERT INTO analyses VALUES (?, ?, 1, ?, ?, NULL, 1.0)", row)
        database.execute("COMMIT")


def _verdicts(tasks: list[tuple[int, int]], bounds: list[int | None]) -> list[tuple[str, str, str]]:
    utilization = sum(c / t for c, t in tasks)
    product = 1.0
    for c, t in tasks:
        product *= 1 + c / t
    ll = utilization <= len(tasks) * (2 ** (1 / len(tasks)) - 1)
    rta = all(bound is not None for bound in bounds)
    return [
        ("ll", "schedulable" if ll else "unknown", "sufficient"),
        ("hb", "schedulable" if product <= 2 else "unknown", "sufficient"),
        ("rta", "schedulable" if rta else "unschedulable", "exact"),
        ("edf_utilization", "schedulable" if utilization <= 1 else "unschedulable", "exact"),
    ]


def _response_times(tasks: list[tuple[int, int, int]]) -> list[int | None]:
    """Joseph & Pandya, for the first job; tasks of equal rank count as more urgent ones. None beyond the period."""
    found: list[int | None] = []
    for place, (c, t, rank) in enumerate(tasks):
        others = [one[:2] for other, one in enumerate(tasks) if other != place and one[2] <= rank]
        w, before = c, 0
        while w != before and w <= t:
            before, w = w, c + sum(-(-w // other_t) * other_c for other_c, other_t in others)
        found.append(w if w <= t else None)
    return found


#: What a name must not do: be a tag, leave an attribute or a style, fetch, be taken for a formula, turn the line round.
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=http://example.invalid/a onerror=alert(1)>',
    "</svg></style></title><iframe src=http://example.invalid/b>",
    "$\\frac{1}{0}$ $x",
    "\u202eevil\u202c \u0000\u001b[31m\ud7ff",
    "' onmouseover='alert(1)",
    "&lt;b&gt; &#60;script&#62; --> <!-- ]]>",
    'url(http://example.invalid/c) #0072b2 id="rt-measured-0"',
    "名前 مهمة 😀" + "x" * 300,
)


def rename(run: Path) -> None:
    """Give hostile names to all task sets, tasks and machines."""
    with closing(sqlite3.connect(run / "results.sqlite", isolation_level=None)) as database:
        names = dict(enumerate(HOSTILE_NAMES))
        database.create_function("hostile", 1, lambda number: names[number % len(names)], deterministic=True)
        database.execute("BEGIN")
        database.execute("UPDATE tasksets SET name = hostile(unicode(taskset_id))")
        database.execute("UPDATE tasks SET name = hostile(unicode(taskset_id) + task_idx)")
        database.execute("UPDATE runs SET machine = hostile(cast(substr(machine, 5) AS INTEGER))")
        database.execute("COMMIT")
