"""What a run has shown of what was expected of it, read from its data set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev

from runner.analysis.fixed_priority import responses
from runner.analysis.sporadic import SporadicTask
from runner.confidence import wilson
from runner.data.history import DataSet
from runner.expectations import Bound, Compared, Expectations, ExpectedBreakdown, ExpectedSet
from runner.report.acceptance import Acceptance, read_acceptance
from runner.units import shown_ns

# Of a set that was measured several times, its worst; a response of which nothing is known is one that never came.
_TASKS = """
SELECT max(worst_response_ns), max(n_missed) FROM responses
WHERE taskset = ? AND validity IS NOT 'disturbed' GROUP BY task_idx ORDER BY task_idx
"""
_REFUSED = """
SELECT DISTINCT task_idx FROM jobs JOIN valid_runs USING (run_id) JOIN tasksets USING (taskset_id)
WHERE name = ? AND exit_type = 'NOT_SCHEDULED' ORDER BY task_idx
"""
# Of sets on one processor that response-time analysis proves schedulable.
_PROVEN = """
SELECT taskset_id, max(n_missed) FROM valid_runs JOIN analyses USING (taskset_id)
WHERE test = 'rta' AND verdict = 'schedulable' AND scheduler = 'fifo' AND n_cpus = 1 AND coalesce(vcpus, 1) = 1
    AND validity IS NOT 'disturbed' GROUP BY taskset_id
"""
_COSTS = "SELECT wcet_ns, period_ns, deadline_ns, jitter_ns, priority_rank FROM tasks WHERE taskset_id = ? ORDER BY task_idx"
# U times the factor by which each C may grow; what a set has in the tables, whoever measured it.
_BREAKDOWN = """
SELECT n_tasks, utilization * (1 + margin) FROM analyses JOIN tasksets USING (taskset_id)
WHERE test = 'breakdown' AND n_cpus = 1 AND margin IS NOT NULL AND utilization IS NOT NULL
"""
# Utilization as it was measured: CPU time of the finished jobs; C, where a task finished none.
_OVERLOAD = """
WITH used AS (
    SELECT run_id, taskset_id, task_idx,
        coalesce(avg(exec_ns) FILTER (WHERE finish_ns IS NOT NULL), wcet_ns) * 1.0 / period_ns AS share
    FROM jobs JOIN valid_runs USING (run_id) JOIN tasks USING (taskset_id, task_idx)
    WHERE outcome <> 'rejected' AND validity IS NOT 'disturbed' GROUP BY run_id, task_idx
), loaded AS (SELECT run_id, taskset_id FROM used GROUP BY run_id HAVING sum(share) > ?)
SELECT count(DISTINCT taskset_id), count(DISTINCT taskset_id) FILTER (WHERE n_missed = 0)
FROM loaded JOIN valid_runs USING (run_id, taskset_id)
"""


def compared(expected: Expectations, database: DataSet) -> tuple[Compared, ...]:
    """Every figure, in the order of the config."""
    lines: list[Compared] = []
    for name, one in expected.sets.items():
        lines += _of_set(name, one, database)
    if expected.acceptance:
        lines += _curves(expected, read_acceptance(database))
    if expected.breakdown:
        lines += _breakdown(expected.breakdown, database)
    if expected.slack is not None:
        n, n_wrong = _with_slack(expected.slack, database)
        what = f"sets that RTA accepts with C + {expected.slack:.0%} that missed"
        lines.append(Compared(what, "0", f"{n_wrong} of {n}", bool(n) and not n_wrong))
    if expected.overload is not None:
        n, n_wrong = database.execute(_OVERLOAD, (expected.overload,)).fetchone()
        what = f"sets of measured U > {expected.overload:g} that met all"
        lines.append(Compared(what, "0", f"{n_wrong} of {n}", bool(n) and not n_wrong))
    return tuple(lines)


def _with_slack(slack: float, database: DataSet) -> tuple[int, int]:
    """How many sets are still schedulable when each C is so much longer, and how many of these missed.

    R/D says less about the distance from the limit: a response just below another release of a more urgent task is far below its
    deadline, and a little more of C lets it jump beyond.
    """
    n = n_missed = 0
    for taskset_id, missed in database.execute(_PROVEN).fetchall():
        rows = database.execute(_COSTS, (taskset_id,)).fetchall()
        tasks = [
            SporadicTask(math.ceil(wcet_ns * (1 + slack)), period_ns, deadline_ns, jitter_ns or 0)
            for wcet_ns, period_ns, deadline_ns, jitter_ns, _ in rows
        ]
        if all(one.late is False for one in responses(tasks, [row[-1] for row in rows])):
            n += 1
            n_missed += bool(missed)
    return n, n_missed


def _of_set(name: str, expected: ExpectedSet, database: DataSet) -> Iterator[Compared]:
    tasks = database.execute(_TASKS, (name,)).fetchall()
    for idx, bound in enumerate(expected.worst_response):
        worst_ns = tasks[idx][0] if idx < len(tasks) else None
        what = f"{name}: worst response, task {idx}"
        yield Compared(what, bound.text, shown_ns(worst_ns), bound.holds_for_time(worst_ns))
    if expected.missed:
        missed = tuple(n_missed for _, n_missed in tasks)
        yield Compared(
            f"{name}: jobs missed", _listed(expected.missed), _listed(missed), missed == expected.missed
        )
    if expected.refused is not None:
        refused = tuple(idx for (idx,) in database.execute(_REFUSED, (name,)))
        holds = bool(tasks) and refused == expected.refused
        yield Compared(f"{name}: tasks refused", _listed(expected.refused), _listed(refused), holds)


def _curves(expected: Expectations, found: Acceptance) -> Iterator[Compared]:
    shares = {
        (scheduler, one.utilization): (one.n_met, one.n)
        for scheduler, points in found.curves().items()
        for one in points
    }
    for (test, n_cpus), tested in found.tests().items():
        if n_cpus == 1:
            shares.update({(test, one.utilization): (one.n_schedulable, one.n) for one in tested})
    for curve, points in expected.acceptance.items():
        for utilization, bound in points.items():
            yield _share(
                f"{curve}, U = {utilization:.2f}: schedulable",
                bound,
                *shares.get((curve, utilization), (0, 0)),
            )


def _breakdown(expected: ExpectedBreakdown, database: DataSet) -> Iterator[Compared]:
    by_size: dict[int, list[float]] = {}
    for n_tasks, utilization in database.execute(_BREAKDOWN):
        by_size.setdefault(n_tasks, []).append(utilization)
    for n_tasks, bound in expected.mean.items():
        what, sample = f"n = {n_tasks}: mean breakdown utilization", by_size.get(n_tasks, [])
        if len(sample) < 2:
            yield Compared(what, bound.text, "-", holds=False)
            continue
        mean, half = fmean(sample), 1.96 * stdev(sample) / math.sqrt(len(sample))
        found = f"{mean:.4f} ± {half:.4f}, N = {len(sample)}"
        yield Compared(what, bound.text, found, bound.holds_for_mean(mean, half))
    everything = [one for sample in by_size.values() for one in sample]
    for utilization, bound in expected.at_least.items():
        n_hits = sum(one >= utilization for one in everything)
        yield _share(f"breakdown utilization >= {utilization:.2f}", bound, n_hits, len(everything))


def _share(what: str, bound: Bound, n_hits: int, n: int) -> Compared:
    if not n:
        return Compared(what, bound.text, "-", holds=False)
    low, high = wilson(n_hits, n)
    found = f"{n_hits / n:.3f} ({low:.3f} … {high:.3f}), N = {n}"
    return Compared(what, bound.text, found, bound.holds_for_share(n_hits, n))


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "none"
