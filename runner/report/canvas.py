"""How every plot looks, on the page and on paper: one home for colours, type and sizes.

On the page plots are inline SVG whose colours are the page's own (CSS variables), so that they follow its light and dark theme, and
whose words are text. On paper they have a column's width, and bring their fonts with them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runner.text.log_lines import clean

# Okabe & Ito: told apart with any kind of colour vision. Each has a name of its own in the page's CSS.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f6f6f")
INK, MUTED, GRID, SURFACE = "#1d2329", "#5f6b76", "#dde2e7", "#fefefe"
GOOD, BAD, WARN = COLOURS[2], COLOURS[1], COLOURS[4]
#: Colour as it is drawn -> CSS variable of the page.
CSS_NAMES = MappingProxyType(
    {colour: f"--c{number}" for number, colour in enumerate(COLOURS)}
    | {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"}
)
DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 3)))
MARKERS = "osD^vPX"
FORMATS = ("pdf", "svg", "png")
#: A column of a paper with two of them.
COLUMN_MM = 88.0
_MM_PER_INCH = 25.4
_LABEL_CHARS = 48

_STYLE: Any = {  # matplotlib spells every key's name in its types
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "font.family": "DejaVu Sans",
    # Names are other people's words: a $ in one is a $.
    "text.parse_math": False,
    "text.usetex": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
}
_TAG = re.compile(r"<[^<>]*>")
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r"(?:url\(|href=\")#([^)\"]*)")
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"font: ((?:[a-z0-9]+ )*?[0-9.]+px) [^;\"]*")
# Groups with ids of this beginning are ours, and stay: tests and readers find parts of a plot by them.
OWN_ID = "rt-"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plot that can be drawn for any medium.

    Attributes:
        name: Of its file, and within the page.
        draw: Draws it into an empty figure.
        aspect: Height over width.
        width_in: On the page, in inches of 9-point type; what is wider is scrolled.
        what: It in a sentence, for who does not see it.
    """

    name: str
    draw: Callable[[Figure], object]
    what: str
    aspect: float = 0.62
    width_in: float = 5.6


def inline_svg(chart: Chart) -> str:
    """The plot as an element of the page; the same input gives the same text."""
    file = io.StringIO()
    with _styled(**{"svg.fonttype": "none", "svg.hashsalt": chart.name, "font.size": 9.0}):
        figure = _drawn(chart, chart.width_in)
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style [^>]*>.*?</style>", "", text, flags=re.DOTALL)
    used = set(_USED.findall(text))
    return _TAG.sub(lambda tag: _themed(tag[0], used, chart), text)


def save(chart: Chart, folder: Path, formats: tuple[str, ...], width_mm: float = COLUMN_MM) -> list[Path]:
    """The plot as files for a paper: 8-point type, fonts embedded (as outlines in SVG).

    Raises:
        OSError: the folder cannot be written.
    """
    paths = [folder / f"{chart.name}.{one}" for one in formats]
    for path in paths:
        with _styled(**{"svg.hashsalt": chart.name, "font.size": 8.0, "savefig.facecolor": "white"}):
            figure = _drawn(chart, width_mm / _MM_PER_INCH)
            metadata = (
                {"Date": None}
                if path.suffix == ".svg"
                else {"CreationDate": None}
                if path.suffix == ".pdf"
                else {}
            )
            figure.savefig(path, dpi=300, metadata=metadata)
    return paths


def _drawn(chart: Chart, width_in: float) -> Figure:
    figure = Figure(figsize=(width_in, width_in * chart.aspect), layout="constrained")
    chart.draw(figure)
    return figure


@contextmanager
def _styled(**changes: object) -> Iterator[None]:
    style: Any = {**_STYLE, **changes}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A name may have letters that the font lacks: on the page the browser has them, on paper there is a box.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ ")
        yield


def _themed(tag: str, used: set[str], chart: Chart) -> str:
    """A tag without ids that nobody refers to, in the page's colours and type."""
    if tag.startswith("<svg"):
        box = re.search(r'viewBox="[^"]*"', tag)
        size = f' style="--width: {chart.width_in:g}"'
        return f'<svg role="img" aria-label="{_attribute(chart.what)}" {box[0] if box else ""}{size}>'
    tag = _ID.sub(lambda one: one[0] if one[1] in used or one[1].startswith(OWN_ID) else "", tag)
    tag = _HEX.sub(lambda one: f"var({CSS_NAMES[one[0]]})" if one[0] in CSS_NAMES else one[0], tag)
    return _FONT.sub(r"font: \1 var(--sans)", tag)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def colours(n: int) -> list[str]:
    """Of `n` things side by side."""
    return list(islice(cycle(COLOURS), n))


def legend(axes: Axes, **options: Any) -> None:  # noqa: ANN401 - matplotlib's
    """A legend, if there is anything to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, [clean(one, _LABEL_CHARS) for one in labels], fontsize="small", **options)
