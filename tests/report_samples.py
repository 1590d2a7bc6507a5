"""Runs to report on: computed ones, and those with names that mean harm."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli import run_cli


def simulated(folder: Path, *overrides: str) -> Path:
    """A run folder of task sets on the ideal processor."""
    done = run_cli(folder, "machines=simulation", "monitors.sqlite.parquet=null", *overrides)
    assert done.returncode == 0, done.stderr
    return folder / "run"


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
