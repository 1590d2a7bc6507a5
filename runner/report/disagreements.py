"""Where analysis and measurement contradict each other."""

from __future__ import annotations

from dataclasses import dataclass

from runner.data.history import DataSet, all_of
from runner.report.acceptance import has_table

#: Of each kind; the number of all is told.
SHOWN = 40
#: The kind that the view of this name has not: what it takes to see it is a walk through all jobs.
BEYOND = "response beyond bound"
# What a measurement may take longer than analysis has it: 1 % and 50 µs on a guest, nothing in a simulation.
_TOLERANCE = "CASE WHEN chosen.validity = 'computed' THEN 0 ELSE wcrt_ns / 100 + 50000 END"
_TOLD = """
SELECT kind, taskset_id, taskset AS name, utilization, tests,
    CASE max(disagreements.n_missed) WHEN 0 THEN 'no miss in ' || disagreements.n_jobs || ' jobs'
        ELSE disagreements.n_missed || ' of ' || disagreements.n_jobs || ' jobs missed' END AS what
FROM disagreements JOIN tasksets USING (taskset_id) GROUP BY taskset_id, kind
"""
# Not in the view: it goes through all jobs. Analysis bounds responses only by tests that speak of the set's own scheduler.
_BEYOND = f"""
WITH worst AS (
    SELECT chosen.taskset_id, ranked.task_idx, max(response_ns) AS response_ns, max(wcrt_ns) AS wcrt_ns, test
    FROM chosen JOIN analysis_tasks USING (taskset_id) JOIN ranked USING (taskset_id, task_idx)
    JOIN jobs ON jobs.run_id = chosen.run_id AND jobs.task_idx = ranked.task_idx
    WHERE n_cpus = vcpus AND test <> 'simulation' AND response_ns > wcrt_ns + {_TOLERANCE} GROUP BY 1, 2, test
)
SELECT '{BEYOND}' AS kind, taskset_id, tasksets.name, utilization, group_concat(DISTINCT test) AS tests, 'task ' || tasks.name || ': ' ||
    printf('%.4g', max(response_ns) / 1e6) || ' ms > ' || printf('%.4g', wcrt_ns / 1e6) || ' ms' AS what
FROM worst JOIN tasksets USING (taskset_id) JOIN tasks USING (taskset_id, task_idx) GROUP BY taskset_id, task_idx
"""  # noqa: S608 - own words
_SHOWN = f"""
SELECT kind, taskset_id, name, utilization, tests, what FROM (
    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY utilization, taskset_id, what) AS nth FROM disagreeing
) WHERE nth <= {SHOWN} ORDER BY kind, nth
"""  # noqa: S608 - own words
#: Kind, as in the view -> what it means.
KINDS = {
    "proven, missed": "a job missed, though a test proves the set schedulable",
    BEYOND: "a response time beyond its bound (and beyond the tolerance: 1 % + 50 µs on guests, none for simulations)",
    "must miss, met": "no miss was seen, though by a test there had to be one within what the run covered",
    "ideal met, missed": "a job missed, and on the ideal processor none does",
    "ideal missed, met": "no job missed, and on the ideal processor one does",
}


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One task set on which two oracles differ.

    Attributes:
        kind: One of `KINDS`.
        tests: The tests that say otherwise, with + or commas.
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
    database.execute("DROP TABLE IF EXISTS temp.disagreeing")
    all_queries = " UNION ALL ".join(f"SELECT * FROM ({one})" for one in (_TOLD, _BEYOND))  # noqa: S608 - own words
    database.execute(f"CREATE TEMP TABLE disagreeing AS {all_queries}")
    counts = dict(database.execute("SELECT kind, count(*) FROM disagreeing GROUP BY 1").fetchall())
    return Disagreements(all_of(Disagreement, database, _SHOWN), counts, n_analysed)
