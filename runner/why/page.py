"""A page of words: the answer in a sentence, what to do next, and what both rest on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.data.history import FaultCount, IncidentRow
from runner.text.log_lines import Excerpt, clean

_MAX_LINE_CHARS = 1000


@dataclass(frozen=True)
class Section:
    """Lines under a title; one without lines is left out."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is told.

    Attributes:
        answer: In a sentence.
        next_step: What the reader can do now; empty where nothing is to be done.
        sections: What it rests on.
    """

    answer: str
    next_step: str = ""
    sections: tuple[Section, ...] = ()

    def text(self) -> str:
        """As it is printed: nothing in it moves a terminal's cursor."""
        lines = [self.answer]
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        for section in self.sections:
            if section.lines:
                lines += ["", section.title, *(f"  {line}" for line in section.lines)]
        return "\n".join(clean(line, _MAX_LINE_CHARS) for line in lines)


def at(utc: str | None) -> str:
    """`2026-11-28T03:34:03.451+00:00` without what nobody needs."""
    return "?" if utc is None else utc[:19].replace("T", " ")


def first_line(text: str | None) -> str:
    """The first line of an error; what follows says where, and what the log's last lines were."""
    return text.split("\n", 1)[0] if text else "no reason was given"


def counted(number: int, noun: str) -> str:
    """`1 set`, `2 sets`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some_of(n_shown: int, n_found: int) -> str:
    """` (the last 10 of 25)`; nothing where all are shown."""
    return f" (the last {n_shown} of {n_found})" if n_shown < n_found else ""


def why_command(folder: Path, subject: str) -> str:
    """What to type to be told more."""
    return shlex.join(["python", "-m", "runner.why", str(folder), subject])


def resume_command(folder: Path) -> str:
    """What to type to have the run go on."""
    return shlex.join(["python", "-m", "runner", f"resume={folder}"])


def log_section(title: str, excerpt: Excerpt) -> Section:
    """Lines of a log; says where it lies, and what was not looked at."""
    if excerpt.missing:
        return Section(title, (f"{excerpt.path}: {excerpt.missing}",))
    more = some_of(len(excerpt.lines), excerpt.n_found)
    if excerpt.n_skipped_bytes:
        more += f", its first {excerpt.n_skipped_bytes >> 20} MiB left out"
    return Section(f"{title}{more}", excerpt.lines)


def fault_lines(faults: Iterable[FaultCount]) -> tuple[str, ...]:
    """A line for each kind of fault."""
    return tuple(
        f"{one.n} x {one.fault}, {counted(one.n_tasksets, 'task set')}, {counted(one.n_machines, 'machine')};"
        f" last {at(one.last_utc)}: {first_line(one.last_what)}"
        for one in faults
    )


def incident_line(incident: IncidentRow) -> str:
    """Whose doing it was, what was done about it, and what was kept."""
    parts = [f"fault: {incident.fault}"]
    if incident.recovery:
        parts.append(f"recovery: {incident.recovery}")
    if incident.aside_s is not None:
        parts.append(f"{incident.machine} put aside for {incident.aside_s:.3g} s")
    if incident.evidence:
        parts.append(f"evidence: {incident.evidence}")
    return "; ".join(parts)
