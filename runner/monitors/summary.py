"""What came of a run, as one table at its end."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TextIO

from runner.data.progress import PastSet
from runner.errors import RunnerError
from runner.events import Run, RunResult
from runner.model import TaskSet
from runner.monitors.base import AbstractMonitor
from runner.monitors.digest import Digest, counted

# A table of more lines is not read, and every line costs memory.
MAX_ROWS = 30
COARSE_STEP = 0.05


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """Task sets of one utilization, or of one name.

    Attributes:
        label: The utilization, with the variant if there is one, or the name.
        utilization: As a number; None where the sets have none.
        variant: Which of several values of some attribute: the end of a generated set's name.
        n_tasksets: Sets that ended; one that ran several times counts each time.
        n_schedulable: No job missed its deadline.
        n_unschedulable: A job missed, or the kernel refused a task.
        n_open: A failed job leaves the answer open.
        n_bad: Given up: never measured.
        n_jobs: Jobs of the measured sets.
        n_missed: Those that missed their deadline.
        worst_response: The largest response time over deadline; None if no job finished.
    """

    label: str
    utilization: float | None = None
    variant: str = ""
    n_tasksets: int = 0
    n_schedulable: int = 0
    n_unschedulable: int = 0
    n_open: int = 0
    n_bad: int = 0
    n_jobs: int = 0
    n_missed: int = 0
    worst_response: float | None = None

    @property
    def by_utilization(self) -> bool:
        """Whether the label is the utilization that was asked for."""
        return self.utilization is not None and self.label == _label(self.utilization, self.variant)

    def plus(self, other: SummaryRow) -> SummaryRow:
        """This row with another's sets added."""
        worst = [row.worst_response for row in (self, other) if row.worst_response is not None]
        return replace(
            self,
            n_tasksets=self.n_tasksets + other.n_tasksets,
            n_schedulable=self.n_schedulable + other.n_schedulable,
            n_unschedulable=self.n_unschedulable + other.n_unschedulable,
            n_open=self.n_open + other.n_open,
            n_bad=self.n_bad + other.n_bad,
            n_jobs=self.n_jobs + other.n_jobs,
            n_missed=self.n_missed + other.n_missed,
            worst_response=max(worst, default=None),
        )


class SummaryMonitor(AbstractMonitor):
    """Count as task sets end, in constant memory, and print a table when the run does.

    Generated sets are grouped by the utilization that was asked for, and by variant, sets without one by their name. More than
    30 groups become steps of 0.05 of utilization.

    Args:
        stream: Where to print instead of the standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._groups: dict[str, SummaryRow] = {}
        self._coarse = False

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._add(_measured(self._blank_for(run.taskset), Digest.of(run, result)))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self._add(replace(self._blank_for(run.taskset), n_tasksets=1, n_bad=1))

    def add_past(self, past: PastSet) -> None:
        """Count what an earlier runner has measured; before the first set of this one ends."""
        blank = self._blank(past.name, past.utilization_target, past.utilization)
        if past.bad:
            self._add(replace(blank, n_tasksets=1, n_bad=1))
            return
        digest = Digest(past.n_jobs, past.n_missed, past.schedulable, past.worst_response)
        self._add(_measured(blank, digest))

    def close(self) -> None:
        """Print the table."""
        print(self.table(), file=self._stream or sys.stdout, flush=True)

    def rows(self) -> tuple[SummaryRow, ...]:
        """The groups, by utilization where they have one, else in the order in which they came."""
        rows = list(self._groups.values())
        if all(row.by_utilization for row in rows):
            rows.sort(key=lambda row: row.utilization or 0.0)
        return tuple(rows)

    def total(self) -> SummaryRow:
        """All groups together."""
        total = SummaryRow(label="all")
        for row in self._groups.values():
            total = total.plus(row)
        return total

    def table(self) -> str:
        """The table as it is printed: aligned, with a total, and N in every line."""
        total = self.total()
        if not total.n_tasksets:
            return "No task set has ended."
        rows = self.rows()
        by_name = not all(row.by_utilization for row in rows)
        lines = [_HEADER, *map(_cells, rows), _cells(total)]
        lines[0] = ("task set" if by_name else "utilization", *_HEADER[1:])
        # A column that says nothing but 0 is left out, if it is about what rarely happens.
        shown = [column for column in range(len(_HEADER)) if column not in _RARE or lines[-1][column] != "0"]
        widths = [max(len(line[column]) for line in lines) for column in shown]
        text = [
            "  ".join(
                line[column].ljust(width) if column == 0 else line[column].rjust(width)
                for column, width in zip(shown, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(len(line) for line in text)
        note = (
            f"N = {counted(total.n_tasksets, 'task set')}, {counted(total.n_jobs, 'job')}. Schedulable: no job that ran "
            "missed its deadline; an observation, not a proof.\nR/D: response time over relative deadline."
        )
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1], "", note])

    def _blank_for(self, taskset: TaskSet) -> SummaryRow:
        return self._blank(taskset.name, taskset.provenance.utilization_target, taskset.utilization)

    def _blank(self, name: str, target: float | None, achieved: float | None) -> SummaryRow:
        utilization = achieved if target is None else target
        if self._coarse:
            return _coarse(SummaryRow(label=name, utilization=utilization))
        if target is None:
            return SummaryRow(label=name, utilization=utilization)
        variant = name.removeprefix(f"u{target:g}-").partition("-")[2] if name.startswith("u") else ""
        return SummaryRow(label=_label(target, variant), utilization=utilization, variant=variant)

    def _add(self, row: SummaryRow) -> None:
        known = self._groups.get(row.label)
        self._groups[row.label] = row if known is None else known.plus(row)
        if len(self._groups) > MAX_ROWS and not self._coarse:
            self._coarse = True
            fine, self._groups = self._groups, {}
            for group in fine.values():
                self._add(_coarse(group))


_HEADER = (
    "",
    "task sets",
    "schedulable",
    "not schedulable",
    "unclear",
    "bad",
    "jobs",
    "missed",
    "worst R/D",
)
_RARE = frozenset({4, 5})


def _measured(blank: SummaryRow, digest: Digest) -> SummaryRow:
    return replace(
        blank,
        n_tasksets=1,
        n_schedulable=int(digest.schedulable is True),
        n_unschedulable=int(digest.schedulable is False),
        n_open=int(digest.schedulable is None),
        n_jobs=digest.n_jobs,
        n_missed=digest.n_missed,
        worst_response=digest.worst_response,
    )


def _label(utilization: float, variant: str = "") -> str:
    digits = ".6g" if round(utilization, 2) != round(utilization, 6) else ".2f"
    return f"{utilization:{digits}} {variant}".rstrip()


def _coarse(row: SummaryRow) -> SummaryRow:
    if row.utilization is None:
        return replace(row, label="unknown", variant="")
    utilization = round(row.utilization / COARSE_STEP) * COARSE_STEP
    return replace(row, label=_label(utilization), utilization=utilization, variant="")


def _cells(row: SummaryRow) -> tuple[str, ...]:
    measured = row.n_tasksets - row.n_bad
    return (
        row.label,
        str(row.n_tasksets),
        f"{row.n_schedulable} of {measured}",
        str(row.n_unschedulable),
        str(row.n_open),
        str(row.n_bad),
        str(row.n_jobs),
        str(row.n_missed),
        "-" if row.worst_response is None else f"{row.worst_response:.3f}",
    )
