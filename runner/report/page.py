"""A page of HTML that stands alone: no script, nothing from anywhere else, everything in it escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from runner.report.canvas import Chart, inline_svg
from runner.text.log_lines import clean

# Nothing may be fetched, run or sent, whatever got into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_OPEN_ROWS = 12
_CELL_CHARS = 400
_GLUE = "\N{NO-BREAK SPACE}"

_CSS = """
:root { color-scheme: light dark; --sans: system-ui, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "DejaVu Sans Mono", monospace; --page: #f4f6f8; --surface: #ffffff; --ink: #1d2329; --muted: #5f6b76;
  --grid: #dde2e7; --line: #d5dbe1; --c0: #0072b2; --c1: #c8500a; --c2: #007d5c; --c3: #b0568c; --c4: #b57500; --c5: #2b8cc4;
  --c6: #6f6f6f; --accent: #0072b2; --bad: #b3400a; }
@media (prefers-color-scheme: dark) { :root { --page: #12161a; --surface: #1a2026; --ink: #e6eaee; --muted: #9aa6b2; --grid: #2d363f;
  --line: #323c46; --c0: #58a9e0; --c1: #f08a4b; --c2: #3cc49c; --c3: #e09ac0; --c4: #eab54a; --c5: #86cdf5; --c6: #a6aeb5;
  --accent: #58a9e0; --bad: #f08a4b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--sans); }
main, header { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 32px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
a { color: var(--accent); }
p { margin: 0 0 10px; max-width: 96ch; }
.sub { color: var(--muted); overflow-wrap: anywhere; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin: 18px 0; padding: 0; }
.numbers div { background: var(--surface); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.numbers dd { margin: 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers dt { color: var(--muted); font-size: 13px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 18px; font-size: 14px; }
.sections { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; padding-bottom: 40px; }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; min-width: 0; }
section.wide { grid-column: 1 / -1; }
figure { margin: 8px 0 10px; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; }
section.wide svg { max-width: 880px; margin: 0 auto; }
section.scroll svg { width: calc(var(--width) * 84px); max-width: none; margin: 0; }
.caption { color: var(--muted); font-size: 13.5px; }
.none { color: var(--muted); font-style: italic; }
.table { overflow-x: auto; margin-top: 6px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; min-width: 50%; }
th, td { padding: 3px 10px 3px 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
th.text, td.text { text-align: left; max-width: 60ch; overflow-wrap: break-word; }
code, pre { font-family: var(--mono); font-size: 12.5px; }
pre { overflow-x: auto; max-height: 480px; }
summary { cursor: pointer; color: var(--accent); font-size: 13.5px; }
footer { color: var(--muted); font-size: 13px; max-width: 1180px; margin: 0 auto; padding: 0 20px 32px; }
@media (max-width: 860px) { .sections { grid-template-columns: minmax(0, 1fr); } }
@media print { :root { color-scheme: light; --page: #fff; --surface: #fff; --ink: #000; --muted: #444; --grid: #ddd; --line: #bbb;
  --c0: #0072b2; --c1: #c8500a; --c2: #007d5c; --c3: #b0568c; --c4: #b57500; --c5: #2b8cc4; --c6: #6f6f6f; }
  body { font-size: 10pt; } nav { display: none; } section { break-inside: avoid; border: 0; padding: 0; }
  .sections { display: block; } section { margin-bottom: 18pt; } section.long { break-inside: auto; }
  section.scroll svg { width: 100%; } pre { max-height: none; white-space: pre-wrap; }
  details::details-content { content-visibility: visible; block-size: auto; } summary { display: none; } }
"""


@dataclass(frozen=True)
class Table:
    """Rows to read beside a plot.

    Attributes:
        texts: How many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True, kw_only=True)
class Section:
    """A plot with what it says, and its numbers.

    Attributes:
        name: Of its place in the page.
        caption: What is shown, over how many.
        empty: What is said where there is nothing to show.
        wide: Over the whole width; `scroll`: as wide as the plot is.
        text: Preformatted, such as a config.
    """

    name: str
    title: str
    caption: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    empty: str = ""
    wide: bool = False
    scroll: bool = False
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """All of it; `numbers` are those that one wants first."""

    title: str
    subtitle: str
    numbers: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    def html(self) -> str:
        """As a file; the same page is the same text."""
        numbers = "".join(
            f"<div><dd>{_text(value)}</dd><dt>{_text(name)}</dt></div>" for name, value in self.numbers
        )
        links = "".join(f'<a href="#{one.name}">{_text(one.title)}</a>' for one in self.sections)
        return "\n".join(
            (
                "<!doctype html>",
                '<html lang="en"><head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                '<meta name="referrer" content="no-referrer">',
                f"<title>{_text(self.title)}</title><style>{_CSS}</style></head><body>",
                f'<header><h1>{_text(self.title)}</h1><p class="sub">{_text(self.subtitle)}</p>',
                f'<dl class="numbers">{numbers}</dl><nav aria-label="Sections">{links}</nav></header>',
                '<main class="sections">',
                *map(_section, self.sections),
                "</main><footer>Made by rtfleet from results.sqlite and manifest.json. Times are guest time unless said otherwise."
                "</footer></body></html>\n",
            )
        )


def _section(section: Section) -> str:
    classes = [
        name for name, on in (("wide", section.wide or section.scroll), ("scroll", section.scroll)) if on
    ]
    long = section.text or any(len(table.rows) > 2 * _OPEN_ROWS for table in section.tables)
    classes += ["long"] if long else []
    parts = [f'<section id="{section.name}" class="{" ".join(classes)}"><h2>{_text(section.title)}</h2>']
    if section.caption:
        parts.append(f'<p class="caption">{_text(section.caption, 2000)}</p>')
    if section.empty:
        parts.append(f'<p class="none">{_text(section.empty)}</p>')
    parts += [f"<figure>{inline_svg(chart)}</figure>" for chart in section.charts]
    parts += [_table(table) for table in section.tables]
    if section.text:
        parts.append(f"<details><summary>the config</summary><pre>{escape(section.text)}</pre></details>")
    return "".join([*parts, "</section>"])


def _table(table: Table) -> str:
    head = _row("th", table.header, table.texts)
    body = "".join(_row("td", row, table.texts) for row in table.rows)
    is_open = " open" if len(table.rows) <= _OPEN_ROWS else ""
    content = f'<div class="table"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    return f"<details{is_open}><summary>{_text(table.title)}</summary>{content}</details>"


def _row(tag: str, cells: Sequence[str], texts: int) -> str:
    def cell(place: int, text: str) -> str:
        return (
            f'<{tag} class="text">{_text(text)}</{tag}>' if place < texts else f"<{tag}>{_text(text)}</{tag}>"
        )

    return f"<tr>{''.join(cell(place, text) for place, text in enumerate(cells))}</tr>"


def _text(text: str, max_chars: int = _CELL_CHARS) -> str:
    """Words as they may stand in the page: nothing that is a tag, that turns the line round, or that does not end."""
    return escape(clean(text, max_chars)).replace(" %", f"{_GLUE}%").replace("N = ", f"N{_GLUE}={_GLUE}")
