"""The Gantt chart of a schedule: releases and deadlines as arrows, executions as bars, misses as crosses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runner.report.canvas import BAD, COLOURS, INK, MUTED, OWN_ID, SURFACE, Chart
from runner.report.schedule import Execution, Job, Schedule
from runner.text.log_lines import clean
from runner.units import NS_PER_MS

#: Jobs that can still be told apart.
MAX_JOBS = 300
_NAME_CHARS = 24
# Without the colour of misses.
_LANES = (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[6])
_BAR, _ARROW = 0.46, 0.8
_WIDTH_IN, _IN_PER_JOB, _MAX_WIDTH_IN = 9.0, 0.16, 48.0


def shown_until_ns(schedule: Schedule) -> int:
    """The end of the time that the chart shows: as many jobs as can be told apart."""
    jobs = schedule.jobs
    if len(jobs) > MAX_JOBS:
        return jobs[MAX_JOBS].release_ns
    return max(max(one.release_ns, one.finish_ns or 0, one.deadline_abs_ns or 0) for one in jobs)


def gantt_chart(schedule: Schedule, from_ns: int) -> Chart:
    """The chart, wide enough for its jobs."""
    n_jobs = min(len(schedule.jobs), MAX_JOBS)
    width_in = min(_MAX_WIDTH_IN, max(_WIDTH_IN, _IN_PER_JOB * n_jobs))
    height_in = 1.0 + 0.55 * len(schedule.tasks)
    return Chart(
        name=f"schedule-{schedule.taskset.taskset_id}",
        draw=partial(draw_gantt, schedule=schedule, from_ns=from_ns, to_ns=shown_until_ns(schedule)),
        what=f"Gantt chart of {n_jobs} jobs of {len(schedule.tasks)} tasks",
        aspect=height_in / width_in,
        width_in=width_in,
    )


def draw_gantt(figure: Figure, schedule: Schedule, from_ns: int, to_ns: int) -> None:
    """A lane per task, the most urgent on top."""
    axes = figure.add_subplot()
    lanes = {task.task_idx: len(schedule.tasks) - 1 - place for place, task in enumerate(schedule.tasks)}
    shown = [one for one in schedule.jobs if one.release_ns <= to_ns and one.task_idx in lanes]
    for place, task in enumerate(schedule.tasks):
        lane = lanes[task.task_idx]
        axes.axhline(lane, color=MUTED, linewidth=0.6, zorder=1)
        own = [one for one in schedule.executions if one.task_idx == task.task_idx and one.start_ns < to_ns]
        _bars(axes, own, lane, to_ns, _LANES[place % len(_LANES)])
    _arrows(axes, shown, lanes, to_ns)
    missed = [
        one
        for one in shown
        if one.missed and one.deadline_abs_ns is not None and one.deadline_abs_ns <= to_ns
    ]
    axes.plot(
        [(one.deadline_abs_ns or 0) / NS_PER_MS for one in missed],
        [lanes[one.task_idx] + _ARROW + 0.08 for one in missed],
        "x",
        color=BAD,
        markersize=6,
        markeredgewidth=2.2,
        label="miss",
        gid=f"{OWN_ID}misses",
        zorder=5,
        clip_on=False,
    )
    axes.set_yticks(
        [lane + 0.3 for lane in lanes.values()], [clean(task.name, _NAME_CHARS) for task in schedule.tasks]
    )
    axes.set_ylim(-0.12, len(lanes) + 0.05)
    axes.set_xlim(max(0, from_ns) / NS_PER_MS, to_ns / NS_PER_MS)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time since the start of the set in ms", loc="left")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        fontsize="small",
        ncols=5,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
    )


def _bars(axes: Axes, executions: Sequence[Execution], lane: int, to_ns: int, colour: str) -> None:
    for known in (True, False):
        spans = [
            (one.start_ns / NS_PER_MS, (min(one.end_ns, to_ns) - one.start_ns) / NS_PER_MS)
            for one in executions
            if one.known is known
        ]
        if spans:
            axes.broken_barh(
                spans,
                (lane, _BAR),
                label="_nolegend_" if known else "between start and finish",
                gid=f"{OWN_ID}{'executions' if known else 'unknown'}-{lane}",
                facecolor=colour if known else "none",
                edgecolor=SURFACE if known else colour,
                linewidth=0.4 if known else 0.7,
                hatch=None if known else "////",
            )


def _arrows(axes: Axes, jobs: Sequence[Job], lanes: dict[int, int], to_ns: int) -> None:
    """Up where a job is released, down where its deadline is; both where the one is the next one's other."""
    ups = [(one.release_ns / NS_PER_MS, lanes[one.task_idx]) for one in jobs]
    downs = [
        (one.deadline_abs_ns / NS_PER_MS, lanes[one.task_idx])
        for one in jobs
        if one.deadline_abs_ns is not None and one.deadline_abs_ns <= to_ns
    ]
    for points, colour, head, at, label in (
        (ups, INK, "^", _ARROW, "release"),
        (downs, COLOURS[5], "v", 0.06, "deadline"),
    ):
        xs, bases = [x for x, _ in points], [base for _, base in points]
        axes.vlines(xs, bases, [base + _ARROW for base in bases], color=colour, linewidth=0.8, zorder=3)
        axes.plot(
            xs,
            [base + at for base in bases],
            head,
            color=colour,
            markersize=4,
            label=label,
            gid=f"{OWN_ID}{label}s",
            zorder=4,
        )
