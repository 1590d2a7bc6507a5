"""How many task sets were schedulable at each utilization: as measured, and as the analyses say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runner.data.history import DataSet, all_of

# More points than these make no curve: sets of about the same utilization are taken together.
_MAX_POINTS = 60
_STEP = 0.025

_POINT = "round(coalesce(utilization_target, utilization), 6)"
# The same judgement as in the view `acceptance`: a set is schedulable when no job missed in any run that was not disturbed.
_MEASURED = """
WITH measured AS (
    SELECT taskset_id, max(scheduler) AS scheduler, count(*) FILTER (WHERE validity IS NOT 'disturbed') AS n_runs,
        min(schedulable) FILTER (WHERE validity IS NOT 'disturbed') AS all_met,
        count(*) FILTER (WHERE validity IS NOT 'disturbed' AND schedulable IS NULL) AS n_unclear,
        sum(n_jobs) FILTER (WHERE validity IS NOT 'disturbed') AS n_jobs,
        sum(n_missed) FILTER (WHERE validity IS NOT 'disturbed') AS n_missed
    FROM valid_runs GROUP BY taskset_id
), judged AS (
    SELECT {point} AS point, coalesce(scheduler,
            (SELECT group_concat(DISTINCT policy) FROM tasks WHERE tasks.taskset_id = tasksets.taskset_id)) AS scheduler,
        n_jobs, n_missed,
        CASE WHEN state = 'bad' THEN 'bad' WHEN state = 'unrepeatable' THEN 'unrepeatable' WHEN n_runs IS NULL THEN 'pending'
            WHEN n_runs = 0 THEN 'disturbed' WHEN all_met = 0 THEN 'missed' WHEN n_unclear = 0 THEN 'met' ELSE 'unclear' END AS label
    FROM tasksets LEFT JOIN measured USING (taskset_id)
)
SELECT scheduler, point AS utilization, count(*) FILTER (WHERE label = 'met') AS n_met,
    count(*) FILTER (WHERE label = 'missed') AS n_missed_sets, count(*) FILTER (WHERE label = 'unclear') AS n_unclear,
    count(*) FILTER (WHERE label = 'disturbed') AS n_disturbed, count(*) FILTER (WHERE label = 'unrepeatable') AS n_unrepeatable,
    count(*) FILTER (WHERE label = 'bad') AS n_bad, count(*) FILTER (WHERE label = 'pending') AS n_pending,
    coalesce(sum(n_jobs), 0) AS n_jobs, coalesce(sum(n_missed), 0) AS n_missed_jobs
FROM judged GROUP BY 1, 2 ORDER BY 1, 2
"""
# A test that can only refuse (of EDF, on a set with fixed priorities) has no acceptance ratio; nor has the ideal processor.
# A test of fixed priorities says something of sets under EDF, too; where a run has both, they are the same sets again, and do not count.
_ANALYSED = """
WITH judged AS (
    SELECT test, n_cpus, {point} AS utilization, verdict,
        coalesce((SELECT policy = 'deadline' FROM tasks WHERE tasks.taskset_id = analyses.taskset_id LIMIT 1), 0) AS under_edf
    FROM analyses JOIN tasksets USING (taskset_id)
    WHERE {point} IS NOT NULL AND test <> 'simulation' AND exactness <> 'necessary'
), counted AS (
    SELECT test, n_cpus, utilization, under_edf, count(*) AS n, count(*) FILTER (WHERE verdict = 'schedulable') AS n_schedulable,
        count(*) FILTER (WHERE verdict = 'unknown') AS n_unknown
    FROM judged GROUP BY 1, 2, 3, 4
)
SELECT test, n_cpus, utilization, n, n_schedulable, n_unknown FROM counted AS one
WHERE NOT EXISTS (
    SELECT 1 FROM counted AS other
    WHERE other.test = one.test AND other.n_cpus = one.n_cpus AND other.utilization = one.utilization AND other.under_edf < one.under_edf
) ORDER BY 1, 2, 3
"""
_DISTINCT = f"SELECT count(DISTINCT {_POINT}) FROM tasksets"  # noqa: S608 - own words
#: What is known of task sets: field of `Point` -> in words.
LABELS: Mapping[str, str] = MappingProxyType(
    {
        "n_met": "schedulable",
        "n_missed_sets": "not schedulable",
        "n_unclear": "unclear",
        "n_disturbed": "disturbed",
        "n_unrepeatable": "unrepeatable",
        "n_bad": "bad",
        "n_pending": "not measured",
    }
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """The task sets of one utilization under one scheduler, by what is known of them.

    Attributes:
        scheduler: `fifo`, `deadline` …, or several with + between them.
        utilization: What was asked for, else what the sets have; None where a C is not known.
        n_met, n_missed_sets: No job missed; a job missed, or a task was refused.
        n_unclear: A job that failed leaves it open.
        n_disturbed, n_unrepeatable: Measured, and worth nothing.
        n_bad, n_pending: Given up; not measured yet.
        n_jobs, n_missed_jobs: Jobs in the runs that count.
    """

    scheduler: str | None
    utilization: float | None
    n_met: int
    n_missed_sets: int
    n_unclear: int
    n_disturbed: int
    n_unrepeatable: int
    n_bad: int
    n_pending: int
    n_jobs: int
    n_missed_jobs: int

    @property
    def n(self) -> int:
        """Sets that are labelled."""
        return self.n_met + self.n_missed_sets


@dataclass(frozen=True, kw_only=True)
class AnalysedPoint:
    """What one test says of the task sets of one utilization; a set that a sufficient test leaves open is not schedulable by it."""

    test: str
    n_cpus: int
    utilization: float
    n: int
    n_schedulable: int
    n_unknown: int

    @property
    def ratio(self) -> float:
        """The test's acceptance ratio."""
        return self.n_schedulable / self.n


@dataclass(frozen=True)
class Acceptance:
    """Measured and analysed points, by scheduler or test and by utilization.

    Attributes:
        step: What utilizations were rounded to; None: they are as asked for.
    """

    measured: tuple[Point, ...]
    analysed: tuple[AnalysedPoint, ...]
    step: float | None

    def curves(self) -> dict[str, list[Point]]:
        """Scheduler -> its points that have a place on a curve."""
        found: dict[str, list[Point]] = {}
        for point in self.measured:
            if point.utilization is not None and point.n:
                found.setdefault(point.scheduler or "?", []).append(point)
        return found

    def tests(self) -> dict[tuple[str, int], list[AnalysedPoint]]:
        """Test and number of CPUs -> its points."""
        found: dict[tuple[str, int], list[AnalysedPoint]] = {}
        for point in self.analysed:
            found.setdefault((point.test, point.n_cpus), []).append(point)
        return found


def read_acceptance(database: DataSet) -> Acceptance:
    """All of a data set, at the cost of one pass over `runs` and one over `analyses`."""
    (n_points,) = database.execute(_DISTINCT).fetchone()
    step = _STEP if n_points > _MAX_POINTS else None
    point = (
        _POINT
        if step is None
        else f"round(round(coalesce(utilization_target, utilization) / {step}) * {step}, 6)"
    )
    analysed: Iterable[AnalysedPoint] = ()
    if has_table(database, "analyses"):
        analysed = all_of(AnalysedPoint, database, _ANALYSED.format(point=point))
    return Acceptance(all_of(Point, database, _MEASURED.format(point=point)), tuple(analysed), step)


def has_table(database: DataSet, name: str) -> bool:
    """Whether the data set has such a table."""
    found = database.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None
