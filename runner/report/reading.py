"""A run as a report tells it: everything that is shown, read in one go, of one state of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.data.history import reading
from runner.data.reuse import RESULTS_NAME
from runner.errors import UsageError
from runner.paths import RunPaths
from runner.report.acceptance import Acceptance, read_acceptance
from runner.report.disagreements import Disagreements, read_disagreements
from runner.report.fleet import Fleet, read_fleet
from runner.report.provenance import Provenance, read_provenance
from runner.report.responses import MAX_JOBS, JobSample, read_jobs


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run.

    Attributes:
        label: What it is called beside others.
        folder: Where it is, as it was named.
    """

    label: str
    folder: Path
    results: Path
    acceptance: Acceptance
    jobs: JobSample
    disagreements: Disagreements
    fleet: Fleet
    provenance: Provenance


def results_of(run: Path) -> Path:
    """The data set of a run folder, or the file itself.

    Raises:
        UsageError: there is none.
    """
    path = run / RESULTS_NAME if run.is_dir() else run
    if not path.is_file():
        raise UsageError(
            f"there is no data set at {path}",
            where=str(run),
            next_step=f"name a run folder with {RESULTS_NAME}, or such a file; without the monitor sqlite there is none",
        )
    return path


def read_run(run: Path, label: str, max_jobs: int = MAX_JOBS) -> RunData:
    """All that a report shows, also of a run that goes on.

    Raises:
        UsageError: there is no data set, or it is damaged.
        HostError: it cannot be read.
    """
    results = results_of(run)
    try:
        with reading(results) as database:
            jobs = read_jobs(database, max_jobs)
            return RunData(
                label=label,
                folder=results.parent,
                results=results,
                acceptance=read_acceptance(database),
                jobs=jobs,
                disagreements=read_disagreements(database),
                fleet=read_fleet(database),
                provenance=read_provenance(RunPaths(results.parent)),
            )
    except (ValueError, TypeError, ArithmeticError) as exc:
        raise UsageError(
            f"{results} holds what a report cannot show: {exc}",
            where=str(run),
            next_step="it was changed, or its disk is damaged: python -m runner.check tells what is wrong",
        ) from exc


def labels_of(runs: list[Path]) -> list[str]:
    """Short names that tell the runs apart: the last parts of their paths, as many as that takes."""
    parts = [(run.parent if run.name == RESULTS_NAME else run).absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(one[-depth:]) for one in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{number}: {run.name}" for number, run in enumerate(runs, 1)]
