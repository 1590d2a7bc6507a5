"""Why a task set is done, bad or pending, and why it is schedulable or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runner.data.history import AttemptRow, DataSet, IncidentRow
from runner.data.set_history import NotBegun, Place, SetHistory, set_history
from runner.paths import RunPaths
from runner.run_folder.pulse import Pulse, read_pulse
from runner.text.log_lines import Excerpt, last_lines, search
from runner.units import shown_ns
from runner.why.page import (
    Page,
    Section,
    at,
    counted,
    first_line,
    incident_line,
    log_section,
    resume_command,
    some_of,
)
from runner.why.verdict import verdict

_N_LINES = 20
#: Files of an evidence folder, and how many of their last lines are shown.
_EVIDENCE = {"error.txt": 24, "console.log": 10, "qemu.stderr": 6, "events.txt": 4}
_MAX_FOLDERS = 2


@dataclass(frozen=True, kw_only=True)
class SetCase:
    """All that is known of a task set.

    Attributes:
        folder: The run folder.
        evidence: Files that were kept when it was given up.
        log: Lines of the log that name it.
    """

    folder: Path
    pulse: Pulse
    history: SetHistory
    evidence: tuple[Excerpt, ...]
    log: Excerpt


def look_at_set(paths: RunPaths, database: DataSet, taskset_id: str) -> SetCase:
    """Gather it."""
    history = set_history(database, taskset_id)
    (log,) = search(paths.log, (re.compile(re.escape(taskset_id.encode())),), _N_LINES)
    return SetCase(
        folder=paths.folder,
        pulse=read_pulse(paths),
        history=history,
        evidence=tuple(
            last_lines(folder / name, n)
            for folder in _evidence_folders(paths, history)
            for name, n in _EVIDENCE.items()
            if (folder / name).is_file()
        ),
        log=log,
    )


def _evidence_folders(paths: RunPaths, history: SetHistory) -> list[Path]:
    """The last ones that are there, and lie in the run folder."""
    taskset_id = history.parameters.taskset_id
    told = [paths.folder / one.evidence for one in history.incidents if one.evidence]
    usual = [paths.bad / f"{one.set_idx}-{taskset_id}" for one in history.places if one.bad]
    inside = paths.folder.resolve()
    found = [one for one in dict.fromkeys([*told, *usual]) if one.is_dir()]
    return [one for one in found if one.resolve().is_relative_to(inside)][-_MAX_FOLDERS:]


def set_page(case: SetCase) -> Page:
    """Put it into words."""
    history = case.history
    told, state = verdict(history, case.pulse)
    parameters = history.parameters
    places = ", ".join(_named(place) for place in history.places[:5])
    more = ", …" if len(history.places) > 5 else ""
    timeline = f"{some_of(len(history.attempts), history.n_attempts)}"
    next_step = ""
    if state == "pending" and not case.pulse.goes_on:
        next_step = f"{resume_command(case.folder)} goes on with it"
    elif state == "bad" and case.evidence:
        next_step = f"look into {case.evidence[-1].path.parent}"
    return Page(
        answer=f"{parameters.name} [{parameters.taskset_id}], {places}{more}: {told}.",
        next_step=next_step,
        sections=(
            Section("parameters", _parameter_lines(history)),
            Section(f"what happened, in UTC{timeline}", tuple(_timeline(history))),
            Section("result", _result_lines(history)),
            *(log_section(f"evidence: {one.path.relative_to(case.folder)}", one) for one in case.evidence),
            log_section("lines of the log that name it, in local time", case.log),
        ),
    )


def not_begun_page(folder: Path, pulse: Pulse, place: NotBegun) -> Page:
    """A set that was not handed out yet: nothing but its place is known."""
    of = "of a source that does not tell how many it has" if place.n_total is None else f"of {place.n_total}"
    return Page(
        answer=f"#{place.set_idx} {of}: pending, because it was not handed out to a machine yet.",
        next_step="" if pulse.goes_on else f"{resume_command(folder)} goes on where the run stopped",
    )


def look_at_not_begun(paths: RunPaths) -> Pulse:
    """Whether there is somebody who will hand it out."""
    return read_pulse(paths)


def _named(place: Place) -> str:
    return f"#{place.set_idx}" if place.submission == 1 else f"#{place.submission}:{place.set_idx}"


def _parameter_lines(history: SetHistory) -> tuple[str, ...]:
    own = history.parameters
    utilization = "unknown" if own.utilization is None else f"{own.utilization:.4g}"
    head = [
        f"{counted(own.n_tasks, 'task')}, utilization {utilization}, hyperperiod {shown_ns(own.hyperperiod_ns)}"
        + ("" if own.stop_ns is None else f", stopped after {shown_ns(own.stop_ns)}")
        + f", generator {own.generator}"
        + ("" if own.seed is None else f", seed {own.seed}")
    ]
    table = [("task", "T", "C", "D", "offset", "priority", "jobs", "policy", "workload")]
    table += [
        (
            one.name,
            shown_ns(one.period_ns),
            shown_ns(one.wcet_ns),
            shown_ns(one.deadline_ns),
            shown_ns(one.offset_ns),
            str(one.priority_rank),
            str(one.n_jobs),
            one.policy,
            one.workload,
        )
        for one in history.tasks
    ]
    widths = [min(40, max(map(len, column))) for column in zip(*table, strict=True)]
    rows = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in table]
    more = [f"… {own.n_tasks} in all"] if own.n_tasks > len(history.tasks) else []
    return (*head, *rows, *more)


def _timeline(history: SetHistory) -> list[str]:
    """Attempts, and with each the incident that ended it; incidents of attempts that are not in the data, by themselves."""
    unmatched = {(one.repetition, one.attempt, one.machine): one for one in history.incidents}
    several = any(place.repeat > 1 for place in history.places)
    entries: list[tuple[str, list[str]]] = []
    for attempt in history.attempts:
        lines = [_attempt_line(attempt, several=several)]
        incident = unmatched.pop((attempt.repetition, attempt.attempt, attempt.machine), None)
        if incident is not None:
            lines.append(f"{'':21}{incident_line(incident)}")
        entries.append((attempt.started_utc, lines))
    entries += [(one.utc, [_incident_line(one)]) for one in unmatched.values()]
    handed_out = [
        f"handed out as {_named(place)}, {place.n_done} of {counted(place.repeat, 'measurement')} done,"
        f" {place.n_failed} failed"
        for place in history.places[:5]
    ]
    return [*handed_out, *(line for _, lines in sorted(entries) for line in lines)]


def _attempt_line(one: AttemptRow, *, several: bool) -> str:
    which = f"attempt {one.attempt} on {one.machine}"
    if several:
        which += f", repetition {one.repetition}"
    if one.n_jobs is not None:
        how = f"{counted(one.n_jobs, 'job')}, {one.n_missed} missed, {one.validity or 'not judged'}"
    else:
        how = first_line(one.error)
    reused = f", taken from {one.reused_from}" if one.reused_from else ""
    return f"{at(one.started_utc)}  {which}: {one.outcome} after {one.wall_s:.3f} s: {how}{reused}"


def _incident_line(one: IncidentRow) -> str:
    which = f"attempt {one.attempt} on {one.machine}" if one.attempt is not None else one.machine
    return f"{at(one.utc)}  {which}: {first_line(one.what)}; {incident_line(one)}"


def _result_lines(history: SetHistory) -> tuple[str, ...]:
    measured = history.measured
    if measured is None:
        return ()
    n_open = measured.n_measured - measured.n_schedulable - measured.n_unschedulable
    lines = [
        f"{counted(measured.n_measured, 'measurement')}: {measured.n_schedulable} schedulable,"
        f" {measured.n_unschedulable} not, {n_open} open"
        + (f"; {measured.n_disturbed} disturbed by this computer" if measured.n_disturbed else "")
    ]
    if (worst := measured.worst) is not None:
        ratio = f", {worst.response_ns / worst.deadline_ns:.4g} D" if worst.deadline_ns else ""
        lines.append(f"worst response: {shown_ns(worst.response_ns)} of task {worst.task}{ratio}")
    if (miss := measured.first_miss) is not None:
        lines.append(
            f"first miss: job {miss.job_idx} of task {miss.task}, released at {shown_ns(miss.release_ns)},"
            f" due at {shown_ns(miss.deadline_abs_ns)}, over at {shown_ns(miss.finish_ns)}, {miss.exit_type}"
        )
    return tuple(lines)
