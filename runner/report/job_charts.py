"""The plots of jobs: how long they took, how late they were, how soon they began."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from runner.report.canvas import BAD, COLOURS, DASHES, INK, MUTED, OWN_ID, colours, legend
from runner.report.statistics import Box, Numbers, distribution


def draw_boxes(
    figure: Figure, boxes: Sequence[tuple[int, Sequence[Box | None]]], labels: Sequence[str]
) -> None:
    """Response over deadline for each rank, the runs beside each other."""
    axes = figure.add_subplot()
    width = 0.7 / len(labels)
    highest = 1.0
    for number, (label, colour) in enumerate(zip(labels, colours(len(labels)), strict=True)):
        shift = (number - (len(labels) - 1) / 2) * width
        shown = [(place, row[number]) for place, (_, row) in enumerate(boxes)]
        stats = [
            {
                "med": box.median,
                "q1": box.q1,
                "q3": box.q3,
                "whislo": box.p01,
                "whishi": box.p99,
                "fliers": [box.maximum],
            }
            for _, box in shown
            if box is not None
        ]
        highest = max([highest, *(box.maximum for _, box in shown if box is not None)])
        line = {"color": colour, "linewidth": 1.0}
        axes.bxp(
            stats,
            positions=[place + shift for place, box in shown if box is not None],
            widths=width * 0.8,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
            medianprops={"color": INK, "linewidth": 1.4},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": "x", "markersize": 3.5, "markeredgecolor": colour},
        )
        if len(labels) > 1:
            axes.plot([], [], color=colour, linewidth=6, alpha=0.5, label=label)
    if highest > 4.0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.axhline(1.0, color=BAD, linestyle=DASHES[1], linewidth=1.1, label="deadline")
    axes.set_xticks(range(len(boxes)), [str(rank) for rank, _ in boxes])
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("task rank (1: most urgent)")
    axes.set_ylabel("response time / deadline")
    legend(axes, loc="upper left")


def draw_distribution(figure: Figure, series: Sequence[tuple[str, Numbers]], *, over: str) -> None:
    """The distribution of response times over what is to bound them, which is at 1."""
    axes = figure.add_subplot()
    for number, (label, values) in enumerate(series):
        xs, shares = distribution(values)
        axes.step(
            np.concatenate(([xs[0]], xs)),
            np.concatenate(([0.0], shares)),
            where="post",
            color=COLOURS[number % len(COLOURS)],
            linestyle=DASHES[number % 2],
            label=label,
            gid=f"{OWN_ID}cdf-{number}",
        )
    axes.axvline(1.0, color=BAD, linestyle=DASHES[1], linewidth=1.3, label=over, gid=f"{OWN_ID}bound")
    # What is far beyond would press the rest together.
    right = max((float(np.quantile(values, 0.999)) for _, values in series), default=1.0)
    axes.set_xlim(0.0, min(max(1.08, 1.05 * right), 5.0))
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel(f"response time / {over}")
    axes.set_ylabel("share of jobs")
    legend(axes, loc="upper left")


def draw_response_times(
    figure: Figure, tasks: Sequence[tuple[str, Numbers, float | None, float | None]]
) -> None:
    """The distribution of each task's response times in ms, with its bound by analysis and its deadline as lines."""
    grid = figure.subplots(-(-len(tasks) // 2), min(2, len(tasks)), squeeze=False).ravel()
    panels = grid[: len(tasks)]
    for unused in grid[len(tasks) :]:
        unused.remove()
    for number, (axes, (name, values_ms, bound_ms, deadline_ms)) in enumerate(
        zip(panels, tasks, strict=True)
    ):
        if len(values_ms):
            xs, shares = distribution(values_ms)
            axes.step(
                np.concatenate(([xs[0]], xs)),
                np.concatenate(([0.0], shares)),
                where="post",
                color=COLOURS[0],
                gid=f"{OWN_ID}task-{number}",
            )
        if bound_ms is not None:
            axes.axvline(
                bound_ms,
                color=BAD,
                linestyle=DASHES[1],
                linewidth=1.3,
                label="bound by analysis",
                gid=f"{OWN_ID}bound-{number}",
            )
        if deadline_ms is not None:
            axes.axvline(deadline_ms, color=MUTED, linestyle=DASHES[2], linewidth=1.3, label="deadline")
        axes.set_ylim(0.0, 1.05)
        axes.set_xlim(left=0.0)
        axes.set_title(name, fontsize="small", loc="left")
        axes.set_ylabel("share of jobs")
    legend(panels[0], loc="lower right")
    for axes in panels[-2:]:
        axes.set_xlabel("response time in ms")


def draw_tardiness(figure: Figure, series: Sequence[tuple[str, Numbers]]) -> None:
    """How late the jobs were that were late: the share that is later than that, in ms."""
    axes = figure.add_subplot()
    for number, (label, values_ms) in enumerate(series):
        xs, shares = distribution(values_ms)
        later = 1.0 - shares + 1.0 / len(values_ms)
        axes.plot(xs, later, color=COLOURS[number % len(COLOURS)], drawstyle="steps-post", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel("tardiness in ms")
    axes.set_ylabel("share of late jobs that are later")
    if len(series) > 1:
        legend(axes, loc="lower left")


def draw_latency(figure: Figure, series: Sequence[tuple[str, Numbers]]) -> None:
    """Start latencies in bins that grow with them; what is shorter than 1 µs is in the first."""
    axes = figure.add_subplot()
    longest = max([10.0, *(float(values.max()) for _, values in series)])
    edges = np.concatenate(([0.5], np.geomspace(1.0, longest * 1.001, 60)))
    for number, (label, values_us) in enumerate(series):
        counts, _ = np.histogram(np.maximum(values_us, 0.5), edges)
        axes.stairs(
            counts, edges, color=COLOURS[number % len(COLOURS)], fill=False, linewidth=1.4, label=label
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel("start latency in µs (first bin: below 1 µs)")
    axes.set_ylabel("jobs")
    legend(axes, loc="upper right")


def _plain(value: float, _: int | None) -> str:
    """Numbers of logarithmic axes, without markup."""
    return f"{value:g}"
