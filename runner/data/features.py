"""The flat table for learning: what is known of a set before it runs, what came of it, and what must stay together in a split."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

from runner.data.schema import Column, Kind, Table

#: Tasks whose utilization has a column of its own, the most urgent first.
N_RANKS = 10
_MARGINS = ("ll", "hb", "rta", "edf_utilization", "qpa", "edf_rta", "gfb", "bcl", "breakdown")
_VERDICTS = ("rta", "qpa", "gfb", "bcl")


def _of(kind: Kind, *names: str, required: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, kind, required) for name in names)


FEATURES = Table(
    name="features",
    columns=(
        Column("taskset_id", Kind.TEXT, required=True),
        Column("scheduler", Kind.ENUM, required=True),
        Column("n_tasks", Kind.INT, required=True),
        *_of(Kind.REAL, "utilization", "density", "utilization_max", "utilization_min"),
        *_of(Kind.REAL, *(f"utilization_rank_{rank}" for rank in range(N_RANKS)), "utilization_rest"),
        *_of(Kind.INT, "period_min_ns", "period_max_ns"),
        *_of(Kind.REAL, "period_ratio", "deadline_ratio_min", "harmonicity"),
        *_of(Kind.INT, "hyperperiod_ns", "offset_max_ns", "jitter_max_ns"),
        *_of(Kind.ENUM, "deadline_model", "overrun_policy"),
        Column("vcpus", Kind.INT),
        *_of(Kind.REAL, *(f"margin_{test}" for test in _MARGINS)),
        *_of(Kind.ENUM, *(f"verdict_{test}" for test in _VERDICTS)),
        *_of(Kind.BOOL, "label_schedulable", "label_rejected"),
        *_of(Kind.INT, "label_n_jobs", "label_n_missed"),
        *_of(Kind.REAL, "label_miss_ratio", "label_response_over_deadline"),
        Column("label_tardiness_max_ns", Kind.INT),
        *_of(Kind.INT, "valid_n_runs", "valid_n_disturbed", "valid_n_failed", required=True),
        Column("valid_state", Kind.ENUM),
        Column("group_point", Kind.TEXT, required=True),
        Column("group_lineage", Kind.TEXT, required=True),
    ),
    key=("taskset_id", "scheduler"),
)

_RANKED = ",\n        ".join(
    f"max(share) FILTER (WHERE rank = {rank}) AS utilization_rank_{rank}" for rank in range(N_RANKS)
)
_JUDGED = ",\n        ".join(
    [
        *(f"max(margin) FILTER (WHERE test = '{test}') AS margin_{test}" for test in _MARGINS),
        *(f"max(verdict) FILTER (WHERE test = '{test}') AS verdict_{test}" for test in _VERDICTS),
    ]
)
_VIEW_COLUMNS = ", ".join(f"{name}" for name in FEATURES.names if name != "group_lineage")

#: All of it but `group_lineage`, which takes a walk from set to set (`lineages`).
VIEW = f"""CREATE VIEW features AS
-- One row per task set, for learning. label_*: what was measured, by valid and undisturbed runs alone; null where nothing was. What the
-- infrastructure failed in shows in valid_n_failed, and nowhere else. group_*: rows that must not be divided between training and test.
WITH ranked AS (
    SELECT *, 1.0 * wcet_ns / period_ns AS share,
        row_number() OVER (PARTITION BY taskset_id ORDER BY priority_rank, period_ns, task_idx) - 1 AS rank,
        lag(period_ns) OVER (PARTITION BY taskset_id ORDER BY period_ns, task_idx) AS shorter_ns
    FROM tasks
), shape AS (
    SELECT taskset_id, group_concat(DISTINCT policy) AS policies,
        CASE WHEN count(share) = count(*) THEN min(share) END AS utilization_min,
        {_RANKED},
        CASE WHEN count(share) = count(*) THEN sum(share) FILTER (WHERE rank >= {
    N_RANKS
}) END AS utilization_rest,
        CASE WHEN count(period_ns) = count(*) THEN min(period_ns) END AS period_min_ns,
        CASE WHEN count(period_ns) = count(*) THEN max(period_ns) END AS period_max_ns,
        CASE WHEN count(period_ns) = count(*) THEN 1.0 * min(period_ns) / max(period_ns) END AS period_ratio,
        CASE WHEN count(deadline_ns) = count(*) AND count(period_ns) = count(*)
            THEN min(1.0 * deadline_ns / period_ns) END AS deadline_ratio_min,
        CASE WHEN count(period_ns) = count(*)
            THEN coalesce(avg(period_ns % shorter_ns = 0) FILTER (WHERE shorter_ns IS NOT NULL), 1.0) END AS harmonicity,
        max(offset_ns) AS offset_max_ns, max(jitter_ns) AS jitter_max_ns
    FROM ranked GROUP BY taskset_id
), attempts AS (
    SELECT *, outcome IN ('completed', 'timeout', 'rejected') AS counts, validity IS 'disturbed' OR outcome = 'disturbed' AS disturbed
    FROM runs
), measured AS (
    SELECT taskset_id, max(scheduler) AS scheduler, max(overrun_policy) AS overrun_policy, max(vcpus) AS vcpus,
        count(*) FILTER (WHERE counts AND NOT disturbed) AS valid_n_runs,
        count(*) FILTER (WHERE disturbed) AS valid_n_disturbed,
        count(*) FILTER (WHERE NOT counts AND NOT disturbed) AS valid_n_failed,
        max(outcome = 'rejected') FILTER (WHERE counts AND NOT disturbed) AS rejected,
        min(schedulable) FILTER (WHERE counts AND NOT disturbed) AS all_met,
        count(*) FILTER (WHERE counts AND NOT disturbed AND schedulable IS NULL) AS n_open,
        sum(n_jobs) FILTER (WHERE outcome IN ('completed', 'timeout') AND NOT disturbed) AS n_jobs,
        sum(n_missed) FILTER (WHERE outcome IN ('completed', 'timeout') AND NOT disturbed) AS n_missed
    FROM attempts GROUP BY taskset_id
), answered AS (
    SELECT attempts.taskset_id, max(1.0 * response_ns / deadline_ns) AS response, max(tardiness_ns) AS tardiness_ns
    FROM attempts JOIN jobs USING (run_id) JOIN tasks USING (taskset_id, task_idx)
    WHERE outcome IN ('completed', 'timeout') AND NOT disturbed GROUP BY attempts.taskset_id
), judged AS (
    SELECT analyses.taskset_id,
        {_JUDGED}
    FROM analyses LEFT JOIN measured USING (taskset_id) WHERE n_cpus = coalesce(vcpus, 1) GROUP BY analyses.taskset_id
), joined AS (
    SELECT *, state IS NOT 'unrepeatable' AND valid_n_runs > 0 AS labelled
    FROM tasksets JOIN shape USING (taskset_id) LEFT JOIN measured USING (taskset_id) LEFT JOIN answered USING (taskset_id)
        LEFT JOIN judged USING (taskset_id)
), named AS (
    SELECT *, coalesce(scheduler, replace(policies, ',', '+')) AS named_scheduler,
        CASE WHEN labelled AND (all_met = 0 OR n_open = 0) THEN all_met END AS label_schedulable,
        CASE WHEN labelled THEN rejected END AS label_rejected,
        CASE WHEN labelled THEN n_jobs END AS label_n_jobs, CASE WHEN labelled THEN n_missed END AS label_n_missed,
        CASE WHEN labelled THEN 1.0 * n_missed / nullif(n_jobs, 0) END AS label_miss_ratio,
        CASE WHEN labelled THEN response END AS label_response_over_deadline,
        CASE WHEN labelled THEN tardiness_ns END AS label_tardiness_max_ns,
        printf('%s %s %s', generator, json_remove(generator_params_json, '$.set_idx', '$.combination'),
            coalesce(utilization_target, '')) AS group_point
    FROM joined
)
SELECT {
    _VIEW_COLUMNS.replace("scheduler", "named_scheduler AS scheduler", 1)
    .replace("valid_n_runs", "coalesce(valid_n_runs, 0) AS valid_n_runs")
    .replace("valid_n_disturbed", "coalesce(valid_n_disturbed, 0) AS valid_n_disturbed")
    .replace("valid_n_failed", "coalesce(valid_n_failed, 0) AS valid_n_failed")
    .replace("valid_state", "state AS valid_state")
}
FROM named"""  # noqa: S608 - own names

# What makes a task the same wherever it stands; how it is scheduled does not.
TASK_COLUMNS = ("period_ns", "wcet_ns", "workload", "workload_args_json")
_TASK = ", ".join(TASK_COLUMNS)
# What random numbers a generated set was drawn with: under each combination of values the same.
_DRAW = (
    "coalesce(seed, json_extract(generator_params_json, '$.seed')) AS a,"
    " json_extract(generator_params_json, '$.point_idx') AS b, json_extract(generator_params_json, '$.set_idx') AS c"
)
_LINKS = (
    f"""SELECT taskset_id, {_TASK} FROM (
    SELECT taskset_id, {_TASK}, count(*) OVER (PARTITION BY {_TASK}) AS n FROM (SELECT DISTINCT taskset_id, {_TASK} FROM tasks)
) WHERE n > 1 ORDER BY {_TASK}, taskset_id""",  # noqa: S608 - own names
    f"""SELECT taskset_id, a, b, c FROM (
    SELECT *, count(*) OVER (PARTITION BY a, b, c) AS n FROM (SELECT taskset_id, {_DRAW} FROM tasksets) WHERE b IS NOT NULL
) WHERE n > 1 ORDER BY a, b, c, taskset_id""",  # noqa: S608 - own names
)


def feature_rows(source: sqlite3.Connection) -> Iterator[tuple[object, ...]]:
    """The rows of `features`, by task set, with their groups.

    Guarantees: memory grows with the number of sets that are linked to others, and not with the data.
    """
    groups = lineages(source)
    columns = _VIEW_COLUMNS
    for row in source.execute(f"SELECT {columns} FROM features ORDER BY taskset_id"):  # noqa: S608 - own names
        yield (*row, groups.get(row[0], row[0]))


def lineages(source: sqlite3.Connection) -> dict[str, str]:
    """Task set -> the least id among all sets that it is linked to, also by way of others; one that is linked to none is left out.

    Two sets are linked when they share a task (the same period, WCET and workload: one set under two schedulers, or grown by a task),
    or were drawn with the same random numbers (one place of a generator, under two combinations of its values).
    """
    parents: dict[str, str] = {}

    def root(one: str) -> str:
        while (above := parents.setdefault(one, one)) != one:
            parents[one] = parents[above]
            one = parents[one]
        return one

    for links in _LINKS:
        before: list[object] = []
        first = ""
        for taskset_id, *shared in source.execute(links):
            if shared != before:
                before, first = shared, taskset_id
            low, high = sorted((root(first), root(taskset_id)))
            parents[high] = low
    return {one: root(one) for one in list(parents)}


def lineages_of(
    tasksets: Iterable[tuple[object, ...]], tasks: Iterable[tuple[object, ...]]
) -> dict[str, str]:
    """As `lineages`, of sets that come from several data sets.

    Args:
        tasksets: taskset_id, seed, generator_params_json.
        tasks: taskset_id, period_ns, wcet_ns, workload, workload_args_json.
    """
    with closing(
        sqlite3.connect("")
    ) as scratch:  # a file without a name, which SQLite keeps in memory while it is small
        scratch.execute("CREATE TABLE tasksets (taskset_id, seed, generator_params_json)")
        scratch.execute(f"CREATE TABLE tasks (taskset_id, {_TASK})")
        scratch.executemany("INSERT INTO tasksets VALUES (?, ?, ?)", tasksets)
        scratch.executemany("INSERT INTO tasks VALUES (?, ?, ?, ?, ?)", tasks)
        return lineages(scratch)
