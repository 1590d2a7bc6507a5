"""The sections of a report about jobs: which plot, over how many, and the numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from runner.report import job_charts
from runner.report.canvas import Chart
from runner.report.page import Section, Table
from runner.report.reading import RunData
from runner.report.set_sections import run_table
from runner.report.statistics import Box, Numbers
from runner.units import NS_PER_MS, NS_PER_US

# Less urgent tasks are taken together.
_MAX_RANKS = 16


def boxes_section(runs: Sequence[RunData]) -> Section:
    """Response over deadline by task rank."""
    columns = [_ratios_by_rank(run) for run in runs]
    ranks = sorted({rank for column in columns for rank in column})
    boxes = [(rank, [column.get(rank) for column in columns]) for rank in ranks]
    if not boxes:
        return Section(
            name="responses", title="Response over deadline", empty="No job with a deadline has finished."
        )
    chart = Chart(
        name="response-over-deadline",
        draw=partial(job_charts.draw_boxes, boxes=boxes, labels=[run.label for run in runs]),
        what="Box plots of response time over deadline, by rank of the task in its set",
    )
    rows = [
        (
            run.label,
            _rank(rank),
            str(box.n),
            *(f"{one:.3f}" for one in (box.p01, box.q1, box.median, box.q3, box.p99, box.maximum)),
        )
        for rank, row in boxes
        for run, box in zip(runs, row, strict=True)
        if box is not None
    ]
    caption = "Finished jobs by the rank of their task in its set. Boxes: quartiles and median; whiskers: 1 % and 99 %; cross: the largest."
    return Section(
        name="responses",
        title="Response over deadline",
        caption=f"{caption} {_scopes(runs)}.",
        charts=(chart,),
        tables=(
            run_table(
                runs, "by rank", ("run", "rank", "N", "1 %", "25 %", "median", "75 %", "99 %", "max"), rows
            ),
        ),
    )


def _ratios_by_rank(run: RunData) -> dict[int, Box]:
    ratio = run.jobs.response_ns / run.jobs.deadline_ns
    known = ~np.isnan(ratio)
    ranks = np.minimum(run.jobs.rank, _MAX_RANKS)
    return {int(rank): Box.of(ratio[known & (ranks == rank)]) for rank in np.unique(ranks[known])}


def _rank(rank: int) -> str:
    return f"{rank} and beyond" if rank == _MAX_RANKS else str(rank)


def distribution_section(runs: Sequence[RunData]) -> Section:
    """Response times against what bounds them: an analysis, else the deadline."""
    title = "Response-time distribution"
    names = [run.label if len(runs) > 1 else "measured" for run in runs]
    bounded = [
        (name, _known(run.jobs.response_ns / run.jobs.bound_ns))
        for name, run in zip(names, runs, strict=True)
    ]
    series, over = [one for one in bounded if len(one[1])], "bound by analysis"
    if not series:
        ratios = [
            (name, _known(run.jobs.response_ns / run.jobs.deadline_ns))
            for name, run in zip(names, runs, strict=True)
        ]
        series, over = [one for one in ratios if len(one[1])], "deadline"
    if not series:
        return Section(name="distribution", title=title, empty="No job with a deadline has finished.")
    chart = Chart(
        name="response-distribution",
        draw=partial(job_charts.draw_distribution, series=series, over=over),
        what=f"Distribution function of response times over their {over}",
    )
    rows = [
        (
            label,
            str(len(values)),
            *(f"{one:.4f}" for one in np.quantile(values, (0.1, 0.25, 0.5, 0.9, 0.99, 1.0))),
            str(int((values > 1).sum())),
        )
        for label, values in series
    ]
    what = (
        "the worst case that response-time analysis allows its task"
        if over != "deadline"
        else "its task's relative deadline"
    )
    caption = f"Response time of each finished job over {what}; the line at 1 is that bound. {_scopes(runs)}."
    if over == "deadline":
        caption += " The data hold no bounds by analysis."
    header = ("run", "N", "10 %", "25 %", "median", "90 %", "99 %", "max", "beyond 1")
    return Section(
        name="distribution",
        title=title,
        caption=caption,
        charts=(chart,),
        tables=(run_table(runs, "quantiles", header, rows),),
    )


def tardiness_section(runs: Sequence[RunData]) -> Section:
    """How late late jobs were."""
    late = [(run.label, run.jobs.tardiness_ns[run.jobs.tardiness_ns > 0] / NS_PER_MS) for run in runs]
    series = [one for one in late if len(one[1])]
    if not series:
        return Section(name="tardiness", title="Tardiness", empty=f"No job finished late. {_scopes(runs)}.")
    chart = Chart(
        name="tardiness",
        draw=partial(job_charts.draw_tardiness, series=series),
        what="Share of late jobs that are later than a given time",
    )
    rows = [
        (
            label,
            str(len(values)),
            *(
                _amount(one)
                for one in (values.mean(), np.median(values), np.quantile(values, 0.99), values.max())
            ),
        )
        for label, values in series
    ]
    n = sum(len(values) for _, values in series)
    return Section(
        name="tardiness",
        title="Tardiness",
        caption=f"Of the jobs that finished after their deadline, N = {n}: by how much. {_scopes(runs)}.",
        charts=(chart,),
        tables=(run_table(runs, "in ms", ("run", "late jobs", "mean", "median", "99 %", "max"), rows),),
    )


def latency_section(runs: Sequence[RunData]) -> Section:
    """From release to the first instruction."""
    series: list[tuple[str, Numbers]] = []
    for run in runs:
        prefix = f"{run.label}: " if len(runs) > 1 else ""
        top = run.jobs.rank == 1
        for label, chosen in (("most urgent task", top), ("other tasks", ~top)):
            values_us = _known(run.jobs.start_latency_ns[chosen]) / NS_PER_US
            if len(values_us):
                series.append((f"{prefix}{label}", values_us))
    if not series:
        return Section(name="latency", title="Start latency", empty="No job has started.")
    chart = Chart(
        name="start-latency",
        draw=partial(job_charts.draw_latency, series=series),
        what="Histogram of the time from release to start, both axes logarithmic",
    )
    rows = [
        (
            label,
            str(len(values)),
            *(
                _amount(one)
                for one in (values.min(), np.median(values), np.quantile(values, 0.99), values.max())
            ),
        )
        for label, values in series
    ]
    caption = (
        "From a job's release to its start. The most urgent task waits for the system only (its scheduling latency), the others"
        f" for more urgent jobs, too. {_scopes(runs)}."
    )
    table = Table("in µs", ("tasks", "N", "min", "median", "99 %", "max"), tuple(rows))
    return Section(name="latency", title="Start latency", caption=caption, charts=(chart,), tables=(table,))


def _known(values: Numbers) -> Numbers:
    return values[~np.isnan(values)]


def _scopes(runs: Sequence[RunData]) -> str:
    if len(runs) == 1:
        return runs[0].jobs.scope
    return "; ".join(f"{run.label}: {run.jobs.scope}" for run in runs)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
