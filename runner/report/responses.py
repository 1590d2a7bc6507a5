"""The jobs of a run as columns of numbers: all of them, or of every so manieth run where there are too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.data.history import DataSet
from runner.report.acceptance import has_table
from runner.report.statistics import Numbers

#: Jobs that are looked at: enough for every quantile that is shown, and no more than some 100 MB and some seconds.
MAX_JOBS = 1_000_000
_CHUNK_ROWS = 1 << 15
_COUNT = (
    "SELECT count(*), coalesce(sum(n_jobs), 0) FROM runs WHERE outcome IN ('completed', 'timeout', 'rejected')"
    " AND validity IS NOT 'disturbed'"
)
# Which test bounds the response times under which scheduler.
_BOUNDS = (
    "LEFT JOIN analysis_tasks ON analysis_tasks.taskset_id = chosen.taskset_id AND analysis_tasks.task_idx = ranked.task_idx"
    " AND analysis_tasks.n_cpus = chosen.vcpus"
    " AND analysis_tasks.test = CASE chosen.scheduler WHEN 'fifo' THEN 'rta' WHEN 'deadline' THEN 'edf_rta' END"
)
CHOSEN = """
CREATE TEMP TABLE IF NOT EXISTS chosen AS
SELECT run_id, taskset_id, scheduler, coalesce(vcpus, 1) AS vcpus, validity FROM runs
WHERE outcome IN ('completed', 'timeout', 'rejected') AND validity IS NOT 'disturbed' AND rowid % {every} = 0
"""
# The most urgent task of a set first; where ranks say nothing, that with the shortest deadline.
_RANKED = """
CREATE TEMP TABLE IF NOT EXISTS ranked AS
SELECT taskset_id, task_idx, deadline_ns,
    row_number() OVER (PARTITION BY taskset_id ORDER BY priority_rank, deadline_ns, task_idx) AS rank
FROM tasks WHERE taskset_id IN (SELECT taskset_id FROM chosen)
"""
_JOBS = """
SELECT rank, response_ns, deadline_ns, {bound}, tardiness_ns, start_latency_ns
FROM chosen JOIN ranked USING (taskset_id) JOIN jobs ON jobs.run_id = chosen.run_id AND jobs.task_idx = ranked.task_idx {bounds}
"""


@dataclass(frozen=True)
class JobSample:
    """Columns with one number per job; NaN where something is not known.

    Attributes:
        rank: Of its task in its set; 1 is the most urgent.
        response_ns, deadline_ns, tardiness_ns, start_latency_ns: As in the data; the deadline is the relative one.
        bound_ns: Of the response time, as an analysis has it.
        every: Of so many runs, one is looked at; 1: all of them.
        n_jobs: How many jobs all runs have.
    """

    rank: Numbers
    response_ns: Numbers
    deadline_ns: Numbers
    bound_ns: Numbers
    tardiness_ns: Numbers
    start_latency_ns: Numbers
    every: int
    n_jobs: int

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def scope(self) -> str:
        """Which jobs they are, in words."""
        if self.every == 1:
            return f"N = {len(self)} jobs"
        return f"N = {len(self)} jobs, of every {self.every}th run ({self.n_jobs} jobs in all)"


def read_jobs(database: DataSet, max_jobs: int = MAX_JOBS) -> JobSample:
    """The jobs of all runs that count, or of evenly chosen ones if there are more jobs than `max_jobs`.

    Leaves the temporary tables `chosen` (runs) and `ranked` (tasks).
    """
    _, n_jobs = database.execute(_COUNT).fetchone()
    every = max(1, -(-n_jobs // max_jobs))
    database.execute(CHOSEN.format(every=every))
    database.execute(_RANKED)
    database.execute("CREATE INDEX IF NOT EXISTS temp.ranked_set ON ranked (taskset_id, task_idx)")
    bounded = has_table(database, "analysis_tasks")
    query = _JOBS.format(bound="wcrt_ns" if bounded else "NULL", bounds=_BOUNDS if bounded else "")
    cursor = database.cursor()
    cursor.row_factory = None  # plain tuples: there are many
    cursor.execute(query)
    parts = [np.empty((0, 6))]
    while rows := cursor.fetchmany(_CHUNK_ROWS):
        parts.append(np.array(rows, dtype=np.float64))
    rank, response, deadline, bound, tardiness, latency = np.concatenate(parts).T
    return JobSample(rank, response, deadline, bound, tardiness, latency, every, n_jobs)
