"""The plots of task sets and machines: each draws what was read, and decides nothing about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from runner.confidence import wilson
from runner.report.acceptance import LABELS, Acceptance, AnalysedPoint, Point
from runner.report.canvas import BAD, COLOURS, DASHES, GRID, INK, MARKERS, MUTED, OWN_ID, legend
from runner.report.fleet import Fleet
from runner.text.log_lines import clean

#: Name of a test in the data -> in words.
TEST_NAMES = {
    "ll": "Liu–Layland",
    "hb": "hyperbolic",
    "rta": "RTA",
    "edf_utilization": "EDF: U ≤ 1",
    "pdc": "EDF: PDC",
    "qpa": "EDF: QPA",
    "edf_rta": "EDF RTA",
    "gfb": "global EDF: GFB",
    "bcl": "global EDF: BCL",
}
_NAME_CHARS = 24
#: How the analyses look: neutral, behind and above what was measured.
_TEST_LOOKS = {
    "ll": (COLOURS[6], DASHES[3]),
    "hb": (COLOURS[3], DASHES[2]),
    "rta": (INK, DASHES[1]),
    "edf_utilization": (COLOURS[4], DASHES[5]),
}
_LABEL_COLOURS = (COLOURS[2], COLOURS[1], COLOURS[4], COLOURS[3], COLOURS[5], COLOURS[6], GRID)


def name_of_test(test: str, n_cpus: int = 1) -> str:
    """A test as readers know it."""
    return TEST_NAMES.get(test, test) + (f", {n_cpus} CPUs" if n_cpus > 1 else "")


def draw_acceptance(figure: Figure, runs: Sequence[tuple[str, Acceptance]]) -> None:
    """Measured ratios with their intervals; the analyses' ratios as dashed lines, equal ones of several runs once."""
    axes = _ratio_axes(figure, "acceptance ratio")
    drawn: set[object] = set()
    for label, acceptance in runs:
        for (test, n_cpus), tested in acceptance.tests().items():
            curve = (test, n_cpus, *((one.utilization, one.ratio) for one in tested))
            if curve not in drawn:
                name = name_of_test(test, n_cpus)
                _draw_analysis(axes, tested, f"{name} ({label})" if len(runs) > 1 else name, len(drawn))
                drawn.add(curve)
    colour = 0
    for label, acceptance in runs:
        curves = acceptance.curves()
        for scheduler, points in curves.items():
            name = scheduler if len(runs) == 1 else f"{label}: {scheduler}" if len(curves) > 1 else label
            _draw_measured(axes, points, f"measured, {name}", colour)
            colour += 1
    legend(axes, loc="lower left")


def _draw_analysis(axes: Axes, points: Sequence[AnalysedPoint], label: str, number: int) -> None:
    other = (COLOURS[(number + 2) % len(COLOURS)], DASHES[number % (len(DASHES) - 1) + 1])
    colour, dashes = _TEST_LOOKS.get(points[0].test, other)
    axes.plot(
        [one.utilization for one in points],
        [one.ratio for one in points],
        color=colour,
        linestyle=dashes,
        linewidth=1.3,
        zorder=3,  # one that is equal to what was measured is seen on it
        label=label,
        gid=f"{OWN_ID}analysis-{number}",
    )


def _draw_measured(axes: Axes, points: Sequence[Point], label: str, number: int) -> None:
    xs = [one.utilization for one in points if one.utilization is not None]
    ratios = [one.n_met / one.n for one in points]
    low, high = zip(*(wilson(one.n_met, one.n) for one in points), strict=True)
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0, gid=f"{OWN_ID}interval-{number}")
    axes.errorbar(
        xs,
        ratios,
        # A share of 1 has an interval that ends there: rounding must not make it negative.
        yerr=np.clip([np.subtract(ratios, low), np.subtract(high, ratios)], 0, None),
        fmt="none",
        ecolor=colour,
        elinewidth=1.0,
        capsize=2.0,
    )
    axes.plot(
        xs, ratios, color=colour, marker=marker, markersize=4.5, label=label, gid=f"{OWN_ID}measured-{number}"
    )


def _ratio_axes(figure: Figure, what: str) -> Axes:
    axes = figure.add_subplot()
    axes.set_xlabel("utilization U")
    axes.set_ylabel(what)
    axes.set_ylim(-0.03, 1.05)
    return axes


def draw_labels(figure: Figure, points: Sequence[Point]) -> None:
    """How many sets have which label, stacked at each utilization."""
    axes = figure.add_subplot()
    at = sorted({one.utilization for one in points if one.utilization is not None})
    base = np.zeros(len(at))
    for (field, label), colour in zip(LABELS.items(), _LABEL_COLOURS, strict=True):
        heights = np.array(
            [sum(getattr(one, field) for one in points if one.utilization == u) for u in at], dtype=float
        )
        if heights.any():
            axes.bar(range(len(at)), heights, 0.78, bottom=base, color=colour, label=label)
        base += heights
    every = max(1, len(at) // 12)
    axes.set_xticks(range(0, len(at), every), [f"{u:g}" for u in at[::every]])
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("utilization U")
    axes.set_ylabel("task sets")
    axes.set_ylim(0, 1.18 * max(1.0, float(base.max(initial=0))))
    legend(axes, loc="upper center", ncols=3)


def draw_misses(figure: Figure, runs: Sequence[tuple[str, Acceptance]]) -> None:
    """The share of jobs that missed; of sets it is one minus the acceptance ratio."""
    axes = _ratio_axes(figure, "jobs that missed")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    number, highest = 0, 0.0
    for label, acceptance in runs:
        for scheduler, points in acceptance.curves().items():
            shares = [one.n_missed_jobs / one.n_jobs if one.n_jobs else 0.0 for one in points]
            xs = [one.utilization for one in points if one.utilization is not None]
            name = scheduler if len(runs) == 1 else f"{label}: {scheduler}"
            axes.plot(
                xs,
                shares,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4.5,
                label=name,
            )
            highest = max(highest, *shares)
            number += 1
    axes.set_ylim(-0.03 * (highest or 1.0), 1.1 * (highest or 1.0))
    legend(axes, loc="upper left")


def draw_fleet(figure: Figure, fleet: Fleet) -> None:
    """A lane per machine: how busy it was, with its incidents above."""
    axes = figure.add_subplot()
    unit_s, unit = next(
        ((n, name) for n, name in ((3600.0, "h"), (60.0, "min")) if fleet.edges_s[-1] > 3 * n), (1.0, "s")
    )
    edges = fleet.edges_s / unit_s
    for lane, machine in enumerate(fleet.machines):
        base = len(fleet.machines) - 1 - lane
        axes.stairs(base + 0.72 * machine.busy, edges, baseline=base, fill=True, color=COLOURS[0], alpha=0.75)
        axes.axhline(base, color=MUTED, linewidth=0.5)
        times = [at / unit_s for at, _ in machine.incidents_s]
        axes.plot(
            times,
            [base + 0.82] * len(times),
            "v",
            color=BAD,
            markersize=5,
            clip_on=False,
            label="" if lane else "incident",
        )
    axes.set_yticks(
        [len(fleet.machines) - 1 - lane + 0.36 for lane in range(len(fleet.machines))],
        [clean(one.name, _NAME_CHARS) for one in fleet.machines],
    )
    axes.set_ylim(0, len(fleet.machines))
    axes.set_xlim(edges[0], edges[-1])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"time since the first attempt in {unit}")
