"""Where analysis and measurement contradict each other."""

from __future__ import annotations

from dataclasses import dataclass

from runner.data.history import DataSet, all_of
from runner.report.acceptance import has_table

#: Of each kind; the number of all is told.
SHOWN = 40
# What a measurement may take longer than analysis has it: 1 % and 50 µs on a guest, nothing in a simulation.
_TOLERANCE = "CASE WHEN chosen.validity = 'computed' THEN 0 ELSE wcrt_ns / 100 + 50000 END"
# Tests that speak of the scheduler that ran the set: fixed priorities, or EDF.
_APPLIES = (
    "n_cpus = vcpus AND ((scheduler = 'fifo' AND test IN ('ll', 'hb', 'rta'))"
    " OR (scheduler = 'deadline' AND test IN ('edf_utilization', 'pdc', 'qpa', 'edf_rta', 'gfb', 'bcl')))"
)
_JUDGED = """
CREATE TEMP TABLE IF NOT EXISTS judged (
    taskset_id TEXT PRIMARY KEY, scheduler TEXT, vcpus INTEGER, met INTEGER, n_unclear INTEGER, n_jobs INTEGER, n_missed INTEGER
) WITHOUT ROWID
"""
# What the kernel's admission refused was not scheduled: no test speaks of that.
_FILL_JUDGED = """
INSERT OR IGNORE INTO judged
SELECT taskset_id, max(scheduler), max(coalesce(vcpus, 1)), min(schedulable), count(*) FILTER (WHERE schedulable IS NULL),
    sum(n_jobs), sum(n_missed)
FROM valid_runs WHERE validity IS NOT 'disturbed' AND outcome <> 'rejected' GROUP BY taskset_id
"""
# Of two tables of 10^6 rows each: one is gone through (CROSS JOIN says which), the other has its key.
_VERDICTS = f"""
WITH told AS (
    SELECT taskset_id, group_concat(DISTINCT test) AS tests, met, judged.n_jobs, judged.n_missed
    FROM analyses CROSS JOIN judged USING (taskset_id)
    WHERE {_APPLIES} AND ((met = 0 AND verdict = 'schedulable')
        OR (met = 1 AND n_unclear = 0 AND verdict = 'unschedulable' AND exactness = 'exact'))
    GROUP BY taskset_id
)
SELECT CASE met WHEN 0 THEN 'missed' ELSE 'met' END AS kind, taskset_id, name, utilization, tests,
    CASE met WHEN 0 THEN n_missed || ' of ' || n_jobs || ' jobs missed'
        ELSE 'no miss in ' || n_jobs || ' jobs' END AS what
FROM told JOIN tasksets USING (taskset_id)
"""  # noqa: S608 - own words
_BEYOND = f"""
WITH worst AS (
    SELECT chosen.taskset_id, chosen.scheduler, ranked.task_idx, max(response_ns) AS response_ns, max(wcrt_ns) AS wcrt_ns, test
    FROM chosen JOIN analysis_tasks USING (taskset_id) JOIN ranked USING (taskset_id, task_idx)
    JOIN jobs ON jobs.run_id = chosen.run_id AND jobs.task_idx = ranked.task_idx
    WHERE {_APPLIES} AND response_ns > wcrt_ns + {_TOLERANCE} GROUP BY 1, 2, 3, test
)
SELECT 'beyond' AS kind, taskset_id, tasksets.name, utilization, test AS tests, 'task ' || tasks.name || ': ' ||
    printf('%.4g', response_ns / 1e6) || ' ms > ' || printf('%.4g', wcrt_ns / 1e6) || ' ms' AS what
FROM worst JOIN tasksets USING (taskset_id) JOIN tasks USING (taskset_id, task_idx)
"""  # noqa: S608 - own words
_SHOWN = f"""
SELECT kind, taskset_id, name, utilization, tests, what FROM (
    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY utilization, taskset_id, what) AS nth FROM disagreeing
) WHERE nth <= {SHOWN} ORDER BY kind, nth
"""  # noqa: S608 - own words
#: Kind -> what it means.
KINDS = {
    "missed": "a job missed, though analysis calls the set schedulable",
    "beyond": "a response time beyond its bound (and beyond the tolerance: 1 % + 50 µs on guests, none for simulations)",
    "met": "no miss was seen, though an exact test calls the set unschedulable: the horizon may be too short to show it",
}


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One task set on which two oracles differ.

    Attributes:
        kind: One of `KINDS`.
        tests: The tests that say otherwise, with commas.
        what: What was measured.
    """

    kind: str
    taskset_id: str
    name: str
    utilization: float | None
    tests: str
    what: str


@dataclass(frozen=True)
class Disagreements:
    """The first of each kind, and how many there are.

    Attributes:
        n_analysed: Task sets that any test says something about.
    """

    shown: tuple[Disagreement, ...]
    counts: dict[str, int]
    n_analysed: int


def read_disagreements(database: DataSet) -> Disagreements:
    """All there are; response times only of the runs in `chosen` (see `responses`), which has to be there."""
    if not has_table(database, "analyses"):
        return Disagreements((), {}, 0)
    (n_analysed,) = database.execute("SELECT count(DISTINCT taskset_id) FROM analyses").fetchone()
    database.execute(_JUDGED)
    database.execute(_FILL_JUDGED)
    queries = [_VERDICTS, *([_BEYOND] if has_table(database, "analysis_tasks") else [])]
    database.execute("DROP TABLE IF EXISTS temp.disagreeing")
    all_queries = " UNION ALL ".join(f"SELECT * FROM ({one})" for one in queries)  # noqa: S608 - own words
    database.execute(f"CREATE TEMP TABLE disagreeing AS {all_queries}")
    counts = dict(database.execute("SELECT kind, count(*) FROM disagreeing GROUP BY 1").fetchall())
    return Disagreements(all_of(Disagreement, database, _SHOWN), counts, n_analysed)
