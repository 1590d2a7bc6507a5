"""The report of one run, or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.report import job_sections, set_sections
from runner.report.canvas import Chart
from runner.report.page import Page, Section
from runner.report.reading import RunData


def run_page(runs: Sequence[RunData]) -> Page:
    """The whole page."""
    title = runs[0].label if len(runs) == 1 else " and ".join(run.label for run in runs)
    return Page(
        title=f"Report of {title}",
        subtitle="; ".join(_subtitle(run) for run in runs),
        numbers=_numbers(runs),
        sections=tuple(_sections(runs)),
    )


def charts_of(page: Page) -> list[Chart]:
    """Every plot of a page, for paper."""
    return [chart for section in page.sections for chart in section.charts]


def _sections(runs: Sequence[RunData]) -> list[Section]:
    found = [
        set_sections.acceptance_section(runs),
        set_sections.disagreements_section(runs),
        job_sections.boxes_section(runs),
        job_sections.distribution_section(runs),
        set_sections.misses_section(runs),
        job_sections.tardiness_section(runs),
        job_sections.latency_section(runs),
    ]
    for make, name in (
        (set_sections.balance_section, "labels"),
        (set_sections.fleet_section, "machines"),
        (set_sections.provenance_section, "run"),
    ):
        if len(runs) == 1:
            found.append(make(runs[0], name))
        else:
            made = [(run, make(run, f"{name}-{number}")) for number, run in enumerate(runs, 1)]
            found += [replace(section, title=f"{section.title}: {run.label}") for run, section in made]
    return found


def _subtitle(run: RunData) -> str:
    facts = [run.provenance.fact(name) for name in ("started_utc", "host.name", "host.cpu", "guest.qemu")]
    return ", ".join([str(run.folder), *(fact for fact in facts if fact)])


def _numbers(runs: Sequence[RunData]) -> tuple[tuple[str, str], ...]:
    points = [point for run in runs for point in run.acceptance.measured]
    n_jobs, n_missed = sum(one.n_jobs for one in points), sum(one.n_missed_jobs for one in points)
    rest = sum(
        one.n_unclear + one.n_disturbed + one.n_unrepeatable + one.n_bad + one.n_pending for one in points
    )
    return (
        ("task sets labelled", f"{sum(one.n for one in points):,}"),
        ("schedulable", f"{sum(one.n_met for one in points):,}"),
        ("without a label", f"{rest:,}"),
        ("jobs", f"{n_jobs:,}"),
        ("jobs missed", f"{n_missed:,}"),
        ("machines", f"{sum(len(run.fleet.machines) for run in runs):,}"),
        ("incidents", f"{sum(len(one.incidents_s) for run in runs for one in run.fleet.machines):,}"),
    )
