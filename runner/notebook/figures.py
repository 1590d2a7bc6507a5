"""The report's plots, one by one, to be shown where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from runner.report.canvas import CSS_NAMES, Chart, inline_svg, save
from runner.report.page import Section
from runner.report.reading import read_run
from runner.report.run_report import run_page
from runner.text.log_lines import clean

_PX_PER_INCH = 96
_CAPTION_CHARS = 2000
# The plots' colours are variables; a notebook is no page of ours, so each figure brings their values.
_VARIABLES = "; ".join(f"{name}: {colour}" for colour, name in CSS_NAMES.items())
_STYLE = (
    f"{_VARIABLES}; --sans: system-ui, sans-serif; margin: 8px 0; padding: 12px; background: #ffffff; color: var(--ink);"
    " font: 14px/1.5 var(--sans); overflow-x: auto"
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot with what it says; a notebook shows it inline when it is a cell's last value.

    Attributes:
        title: What it is.
        caption: What is shown, over how many.
        charts: What is drawn; none where there is nothing to show yet.
    """

    title: str
    caption: str
    charts: tuple[Chart, ...]

    def save(self, folder: str | Path, formats: tuple[str, ...] = ("pdf",)) -> list[Path]:
        """As files for a paper, `pdf`, `svg` or `png`; where they are.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [path for chart in self.charts for path in save(chart, folder, formats)]

    def _repr_html_(self) -> str:
        drawn = "".join(
            f'<div style="max-width: {chart.width_in * _PX_PER_INCH:.0f}px">{inline_svg(chart)}</div>'
            for chart in self.charts
        )
        caption = escape(clean(self.caption, _CAPTION_CHARS))
        return (
            f'<figure style="{escape(_STYLE)}"><strong>{escape(clean(self.title, _CAPTION_CHARS))}</strong>{drawn}'
            f'<figcaption style="color: var(--muted)">{caption}</figcaption></figure>'
        )


def figures_of(run: Path) -> Mapping[str, Figure]:
    """Name -> each figure of a run's report, also while the run goes on.

    Raises:
        UsageError: there is no data set, or it is damaged.
        HostError: it cannot be read.
    """
    page = run_page([read_run(run, run.name)])
    return {one.name: _figure(one) for one in page.sections if one.charts or (one.empty and not one.text)}


def _figure(section: Section) -> Figure:
    return Figure(title=section.title, caption=section.caption or section.empty, charts=section.charts)
