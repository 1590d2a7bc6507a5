"""Look at what a run has found: `python -m runner.report RUN [RUN…]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.data.history import reading
from runner.data.set_history import NotBegun, find_set
from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode, exit_code_of
from runner.files.durable import replace_text
from runner.report.canvas import COLUMN_MM, FORMATS, save
from runner.report.page import Page
from runner.report.reading import labels_of, read_run, results_of
from runner.report.run_report import charts_of, run_page
from runner.report.schedule import read_schedule
from runner.report.set_report import set_page
from runner.report.trace import fleet_trace, set_trace, write_trace
from runner.units import parse_ns

_REPORT = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; tells which files it has written."""
    options = _parser().parse_args(arguments)
    try:
        for path in _written(options):
            print(path)
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    except OSError as exc:
        print(
            f"error: the report cannot be written: {exc}; choose another place: --output FILE",
            file=sys.stderr,
        )
        return ExitCode.HOST
    except MemoryError:
        print("error: there is not enough memory for the report", file=sys.stderr)
        return ExitCode.HOST
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.report",
        description="Make report.html of a run: plots and tables, self-contained. Of several runs: one report that compares them."
        " It only reads the data, also while the run goes on.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or its results.sqlite"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in the run folder; of several: here)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--set",
        metavar="TASKSET",
        help="the schedule of one task set instead, as a page and as a trace for Perfetto: its taskset_id"
        " or the beginning of it, its place ('#12'), its name",
    )
    what.add_argument(
        "--trace",
        action="store_true",
        help="a trace of the whole fleet for Perfetto instead: fleet.trace.json",
    )
    parser.add_argument(
        "--from",
        dest="since",
        default="0",
        metavar="TIME",
        help="with --set: from this time of the set on (250ms)",
    )
    parser.add_argument("--to", dest="until", metavar="TIME", help="with --set: up to this time")
    _add_figures(parser)
    return parser


def _add_figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="the plots as files for a paper instead of the page"
    )
    parser.add_argument(
        "--format",
        default="pdf",
        metavar="LIST",
        help=f"of --figures: some of {','.join(FORMATS)} (default: pdf)",
    )
    parser.add_argument(
        "--width-mm",
        type=float,
        default=COLUMN_MM,
        metavar="MM",
        help="of --figures: a column's width (default: 88)",
    )


def _written(options: argparse.Namespace) -> list[Path]:
    if (options.set is not None or options.trace) and len(options.runs) > 1:
        raise UsageError("--set and --trace take one run", next_step="name one run folder")
    if options.set is not None:
        return _write_set(options)
    if options.trace:
        path = options.output or results_of(options.runs[0]).parent / "fleet.trace.json"
        with reading(results_of(options.runs[0])) as database:
            write_trace(path, fleet_trace(database))
        return [path]
    runs = [read_run(run, label) for run, label in zip(options.runs, labels_of(options.runs), strict=True)]
    page = run_page(runs)
    if options.figures is not None:
        return _figures(page, options)
    return [_page(page, options.output or (runs[0].folder / _REPORT if len(runs) == 1 else Path(_REPORT)))]


def _write_set(options: argparse.Namespace) -> list[Path]:
    results = results_of(options.runs[0])
    times = {"from_ns": parse_ns(options.since, key="--from")}
    if options.until is not None:
        times["to_ns"] = parse_ns(options.until, key="--to")
    with reading(results) as database:
        taskset_id = find_set(database, options.set, results)
        if isinstance(taskset_id, NotBegun):
            raise UsageError(
                f"task set {options.set} has not been begun", where=str(results), next_step="name another one"
            )
        schedule = read_schedule(database, taskset_id, **times)
    path = options.output or results.parent / f"schedule-{taskset_id}.html"
    trace = path.with_suffix(".trace.json")
    page = set_page(schedule, times["from_ns"], trace.name)
    if options.figures is not None:
        return _figures(page, options)
    write_trace(trace, set_trace(schedule))
    return [_page(page, path), trace]


def _figures(page: Page, options: argparse.Namespace) -> list[Path]:
    formats = tuple(options.format.split(","))
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise UsageError(f"--format: {unknown[0]!r} is none", next_step=f"choose some of {','.join(FORMATS)}")
    if not 20.0 <= options.width_mm <= 2000.0:
        raise UsageError(
            f"--width-mm is {options.width_mm:g}",
            next_step="choose 20 … 2000; columns of papers have 80 to 90",
        )
    options.figures.mkdir(parents=True, exist_ok=True)
    return [
        path for chart in charts_of(page) for path in save(chart, options.figures, formats, options.width_mm)
    ]


def _page(page: Page, path: Path) -> Path:
    replace_text(path, page.html())
    return path


if __name__ == "__main__":
    # Numbers are few: threads for linear algebra would only take memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
