"""The sections of a report about task sets and machines: which plot, over how many, and the numbers beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from runner.confidence import wilson
from runner.report import set_charts
from runner.report.acceptance import LABELS, Point
from runner.report.canvas import Chart
from runner.report.disagreements import KINDS
from runner.report.page import Section, Table
from runner.report.reading import RunData
from runner.report.set_charts import name_of_test

_NO_SETS = "No task set of a known utilization has been measured."


def acceptance_section(runs: Sequence[RunData]) -> Section:
    """Acceptance ratio over utilization."""
    n = sum(point.n for run in runs for points in run.acceptance.curves().values() for point in points)
    if not n:
        return Section(name="acceptance", title="Acceptance ratio", empty=_NO_SETS, wide=True)
    analysed = any(run.acceptance.analysed for run in runs)
    steps = {run.acceptance.step for run in runs} - {None}
    chart = Chart(
        name="acceptance",
        draw=partial(set_charts.draw_acceptance, runs=[(run.label, run.acceptance) for run in runs]),
        what="Share of schedulable task sets over their utilization, as measured and as analyses say",
        aspect=0.5,
        width_in=7.4,
    )
    caption = (
        f"Share of the task sets in which no job missed its deadline; N = {n} task sets, bars and bands: 95 % confidence intervals"
        " (Wilson). An observation, not a proof."
    )
    caption += (
        " Dashed: what the analyses accept." if analysed else " The data hold no analyses to compare with."
    )
    caption += f" Utilizations are rounded to {min(one for one in steps if one):g}." if steps else ""
    return Section(
        name="acceptance",
        title="Acceptance ratio",
        caption=caption,
        charts=(chart,),
        tables=_acceptance_tables(runs),
        wide=True,
    )


def _acceptance_tables(runs: Sequence[RunData]) -> tuple[Table, ...]:
    rows = []
    analysed: list[tuple[str, ...]] = []
    for run in runs:
        for scheduler, points in run.acceptance.curves().items():
            for point in points:
                low, high = wilson(point.n_met, point.n)
                head = (run.label, scheduler, f"{point.utilization:g}")
                rows.append(
                    (
                        *head,
                        str(point.n),
                        str(point.n_met),
                        f"{point.n_met / point.n:.3f}",
                        f"{low:.3f} … {high:.3f}",
                    )
                )
        for (test, n_cpus), tested in run.acceptance.tests().items():
            analysed += [
                (
                    run.label,
                    name_of_test(test, n_cpus),
                    f"{one.utilization:g}",
                    str(one.n),
                    str(one.n_schedulable),
                    f"{one.ratio:.3f}",
                    str(one.n_unknown),
                )
                for one in tested
            ]
    tables = [
        run_table(
            runs,
            "measured",
            ("run", "scheduler", "U", "N", "schedulable", "ratio", "95 % interval"),
            rows,
            texts=2,
        )
    ]
    if analysed:
        header = ("run", "test", "U", "N", "schedulable", "ratio", "unknown")
        tables.append(run_table(runs, "analysed", header, analysed, texts=2))
    return tuple(tables)


def misses_section(runs: Sequence[RunData]) -> Section:
    """Shares of jobs and of sets that missed."""
    rows = []
    for run in runs:
        for scheduler, points in run.acceptance.curves().items():
            for one in points:
                jobs, sets = f"{one.n_missed_jobs} of {one.n_jobs}", f"{one.n_missed_sets} of {one.n}"
                shares = f"{_share(one.n_missed_jobs, one.n_jobs)}", _share(one.n_missed_sets, one.n)
                rows.append((run.label, scheduler, f"{one.utilization:g}", jobs, shares[0], sets, shares[1]))
    if not rows:
        return Section(name="misses", title="Deadline-miss ratio", empty=_NO_SETS)
    n_jobs = sum(point.n_jobs for run in runs for point in run.acceptance.measured)
    chart = Chart(
        name="miss-ratio",
        draw=partial(set_charts.draw_misses, runs=[(run.label, run.acceptance) for run in runs]),
        what="Share of jobs that missed their deadline, over utilization",
    )
    header = ("run", "scheduler", "U", "jobs missed", "share", "sets with a miss", "share")
    return Section(
        name="misses",
        title="Deadline-miss ratio",
        caption=f"Jobs that ended after their deadline, or were killed unfinished at or after it; N = {n_jobs} jobs.",
        charts=(chart,),
        tables=(run_table(runs, "by utilization", header, rows, texts=2),),
    )


def balance_section(run: RunData, name: str = "labels") -> Section:
    """How many sets have which label."""
    points = run.acceptance.measured
    if not points:
        return Section(name=name, title="Label balance", empty="There is no task set.")
    total = {field: sum(getattr(one, field) for one in points) for field in LABELS}
    # What is 0 everywhere says nothing, if it is about what rarely happens.
    shown = [field for field in LABELS if total[field] or field in ("n_met", "n_missed_sets")]
    chart = Chart(
        name=name,
        draw=partial(set_charts.draw_labels, points=points),
        what="Number of task sets by label, over utilization",
    )
    rows = [
        (one.scheduler or "?", _utilization(one), *(str(getattr(one, field)) for field in shown))
        for one in points
    ]
    rows.append(("all", "", *(str(total[field]) for field in shown)))
    header = ("scheduler", "U", *(LABELS[field] for field in shown))
    labelled = total["n_met"] + total["n_missed_sets"]
    caption = (
        f"N = {sum(total.values())} task sets, {labelled} of them labelled: {total['n_met']} schedulable"
        f" ({_share(total['n_met'], labelled)}), {total['n_missed_sets']} not."
    )
    table = Table("by utilization", header, tuple(rows))
    return Section(name=name, title="Label balance", caption=caption, charts=(chart,), tables=(table,))


def _utilization(point: Point) -> str:
    return "unknown" if point.utilization is None else f"{point.utilization:g}"


def disagreements_section(runs: Sequence[RunData]) -> Section:
    """Analysis against measurement."""
    n_analysed = sum(run.disagreements.n_analysed for run in runs)
    title = "Disagreements of analysis and measurement"
    if not n_analysed:
        return Section(
            name="disagreements", title=title, empty="The data hold no analyses to compare with.", wide=True
        )
    counts = {kind: sum(run.disagreements.counts.get(kind, 0) for run in runs) for kind in KINDS}
    if not any(counts.values()):
        none = f"None: N = {n_analysed} analysed task sets, and no measurement contradicts an analysis that speaks of its scheduler."
        return Section(name="disagreements", title=title, empty=none, wide=True)
    told = "; ".join(f"{n} × {KINDS[kind]}" for kind, n in counts.items() if n)
    rows = [
        (
            one.name,
            one.what,
            ", ".join(name_of_test(test) for test in re.split(r"[,+]", one.tests)),
            _set_command(run, one.taskset_id),
            _number(one.utilization),
        )
        for kind in KINDS
        for run in runs
        for one in run.disagreements.shown
        if one.kind == kind
    ]
    return Section(
        name="disagreements",
        title=title,
        caption=f"Of N = {n_analysed} analysed task sets: {told}.",
        tables=(
            Table(
                f"{len(rows)} of {sum(counts.values())}",
                ("task set", "measured", "tests", "its schedule", "U"),
                tuple(rows),
                texts=4,
            ),
        ),
        wide=True,
    )


def _set_command(run: RunData, taskset_id: str) -> str:
    return f"python -m runner.report {run.folder} --set {taskset_id}"


def fleet_section(run: RunData, name: str = "machines") -> Section:
    """The machines over time."""
    title = "Machines over time"
    if not run.fleet.machines or run.fleet.begun is None:
        return Section(name=name, title=title, empty="No machine has measured anything.")
    span_s = float(run.fleet.edges_s[-1])
    chart = Chart(
        name=name,
        draw=partial(set_charts.draw_fleet, fleet=run.fleet),
        what="How busy each machine was over time, with its incidents",
        aspect=min(1.6, 0.1 + 0.06 * len(run.fleet.machines)),
        width_in=7.4,
    )
    rows = [
        (
            one.name,
            str(one.n_attempts),
            f"{one.busy_s:.1f}",
            _share(one.busy_s, span_s),
            str(len(one.incidents_s)),
        )
        for one in run.fleet.machines
    ]
    n = sum(one.n_attempts for one in run.fleet.machines)
    caption = (
        f"Share of the time in which a machine measured, in {len(run.fleet.edges_s) - 1} intervals of"
        f" {span_s / (len(run.fleet.edges_s) - 1):.3g} s of the wall clock; triangles: incidents. N = {n} attempts,"
        f" from {run.fleet.begun:%Y-%m-%d %H:%M:%S %Z} on."
    )
    table = Table("machines", ("machine", "attempts", "busy s", "busy", "incidents"), tuple(rows))
    return Section(name=name, title=title, caption=caption, charts=(chart,), tables=(table,), wide=True)


def provenance_section(run: RunData, name: str = "run") -> Section:
    """What was run."""
    return Section(
        name=name,
        title="What was run",
        caption="From manifest.json. Passwords and tokens are masked.",
        tables=(Table("facts", ("what", "is"), run.provenance.facts, texts=2),),
        text=run.provenance.config,
        wide=True,
    )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def run_table(
    runs: Sequence[RunData],
    title: str,
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    texts: int = 1,
) -> Table:
    """A table whose first column names the run, unless there is only one."""
    if len(runs) == 1:
        return Table(title, header[1:], tuple(row[1:] for row in rows), texts - 1)
    return Table(title, header, tuple(rows), texts)
