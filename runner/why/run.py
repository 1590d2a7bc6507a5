"""Why a run is where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runner.data.history import DataSet, RunHistory, run_history
from runner.paths import RunPaths, worker_of
from runner.run_folder.pulse import Pulse, read_pulse
from runner.text.log_lines import Excerpt, search
from runner.why.guests import Guests, read_guests
from runner.why.page import (
    Page,
    Section,
    at,
    counted,
    fault_lines,
    first_line,
    log_section,
    resume_command,
    why_command,
)

_N_LINES = 10
_N_SUBMISSIONS = _N_WORKERS = 20
_TROUBLE = re.compile(rb"^\S+ \S+ (?:WARNING|ERROR|CRITICAL)\s")
# Who holds the run, or lets fewer machines work than are wanted, logs in this name.
_HOLDING = re.compile(rb"^\S+ \S+ [A-Z]+ +runner\.gate: ")


@dataclass(frozen=True, kw_only=True)
class RunCase:
    """All that is known of a run.

    Attributes:
        folder: The run folder.
        begun: Whether there is a manifest: the config was accepted, and work could begin.
        guests: What its machines are.
        history: What the ledger tells; None where there is none.
        holding: The log's lines about what held it.
        troubles: The log's warnings and errors.
    """

    folder: Path
    begun: bool
    guests: Guests
    pulse: Pulse
    history: RunHistory | None
    holding: Excerpt
    troubles: Excerpt

    @property
    def n_pending(self) -> int:
        """Sets that neither are done nor bad, as far as it is known how many there are."""
        return sum(one.n_pending for one in self.history.accounts) if self.history else 0

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done."""
        accounts = self.history.accounts if self.history else ()
        return bool(accounts) and not self.n_pending and all(one.complete for one in accounts)


def look_at_run(paths: RunPaths, database: DataSet | None) -> RunCase:
    """Gather it."""
    troubles, holding = search(paths.log, (_TROUBLE, _HOLDING), _N_LINES)
    return RunCase(
        folder=paths.folder,
        begun=paths.manifest.exists(),
        guests=read_guests(paths.manifest),
        pulse=read_pulse(paths),
        history=None if database is None else run_history(database),
        holding=holding,
        troubles=troubles,
    )


def run_page(case: RunCase) -> Page:
    """Put it into words."""
    history = case.history or RunHistory()
    machines = tuple(
        f"{one.name}: {one.n_measured} measured in {counted(one.n_attempts, 'attempt')}"
        + (f", {counted(one.n_incidents, 'incident')}" if one.n_incidents else "")
        + (f", put aside {one.n_asides} x" if one.n_asides else "")
        + (f"; last fault {_timed(one.last_fault)}" if one.last_fault else "")
        for one in history.machines
    )
    bad = tuple(
        f"#{one.set_idx} {one.name} [{one.taskset_id}]: {first_line(one.error)}"
        + (f" (fault: {one.fault})" if one.fault else "")
        + f"; evidence: {one.evidence or _evidence(case, one.set_idx, one.taskset_id) or 'none was kept'}"
        for one in history.bad
    )
    n_bad = sum(one.n_bad for one in history.accounts)
    disagreeing = tuple(
        f"{one.name} [{one.taskset_id}]: {first_line(one.error)}" for one in history.disagreeing
    )
    return Page(
        answer=_answer(case),
        next_step=_next_step(case),
        sections=(
            Section("task sets", _account_lines(history)),
            Section("resumed, in UTC", _resumed_lines(case.pulse)),
            Section("what works now", _machine_lines(case.pulse)),
            _holding_section(case),
            Section("faults, by whose doing they were", fault_lines(history.faults)),
            Section("machines", machines),
            Section("where the logs of its workers' machines are", _worker_lines(case.folder, history)),
            Section("what the machines are", case.guests.lines),
            Section(f"bad task sets{_first_of(len(bad), n_bad)}", bad),
            Section(
                f"task sets that do not repeat{_first_of(len(disagreeing), history.n_disagreeing)}",
                disagreeing,
            ),
            log_section("warnings and errors of the log, in local time", case.troubles),
        ),
    )


def _answer(case: RunCase) -> str:
    pulse, counts = case.pulse, _counts(case)
    if pulse.goes_on:
        held = f"; held, {pulse.held}" if pulse.held else ""
        wish = f"; the operator wants it to {pulse.state}" if pulse.state not in (None, "run") else ""
        return f"The run goes on: {counts}{held}{wish}."
    if pulse.ended:
        return f"The run has ended ({pulse.ended}): {counts}."
    if pulse.known:
        return (
            f"The run was cut off: process {pulse.pid} is gone and could not tell why (killed, or this computer went down),"
            f" last seen at {at(pulse.updated_utc)} UTC: {counts}."
        )
    begun = "" if case.begun or case.history else ", and nothing shows that it ever began"
    return f"How the run ended is not known: there is no status file{begun}; {counts}."


def _counts(case: RunCase) -> str:
    if case.history is None or not case.history.accounts:
        return "the ledger is missing" if case.history is None else "nothing was submitted"
    accounts = case.history.accounts
    so_far = "" if all(one.complete for one in accounts) else " so far"
    return (
        f"{sum(one.n_submitted for one in accounts)} submitted{so_far} = {sum(one.n_done for one in accounts)} done"
        f" + {sum(one.n_bad for one in accounts)} bad + {case.n_pending} pending"
    )


def _next_step(case: RunCase) -> str:
    if case.pulse.goes_on:
        return "it goes on by itself when nothing holds it any more" if case.pulse.held else ""
    if not case.complete:
        return f"{resume_command(case.folder)} goes on where it stopped"
    if case.history is not None and case.history.bad:
        return f"{why_command(case.folder, f'#{case.history.bad[0].set_idx}')} tells more of a bad task set"
    return ""


def _account_lines(history: RunHistory) -> tuple[str, ...]:
    lines = [
        f"submission {one.submission} ({one.source}): {one.n_submitted}{'' if one.complete else ' so far'} submitted"
        f" = {one.n_done} done + {one.n_bad} bad + {one.n_pending} pending"
        for one in history.accounts[:_N_SUBMISSIONS]
    ]
    return (*lines, "…") if len(history.accounts) > _N_SUBMISSIONS else tuple(lines)


def _resumed_lines(pulse: Pulse) -> tuple[str, ...]:
    if not pulse.resumed_utc:
        return ()
    return (f"{len(pulse.resumed_utc)} x, last at {at(pulse.resumed_utc[-1])}",)


def _machine_lines(pulse: Pulse) -> tuple[str, ...]:
    return tuple(
        f"{name}: {one.phase}"
        + (f" {one.taskset_id}" if one.taskset_id else "")
        + (f" until {at(one.until_utc)}" if one.until_utc else "")
        for name, one in pulse.machines.items()
    )


def _worker_lines(folder: Path, history: RunHistory) -> tuple[str, ...]:
    workers = sorted({worker for one in history.machines if (worker := worker_of(one.name))})
    lines = [
        f"{worker}: {_place(folder, RunPaths(folder).workers / worker)}" for worker in workers[:_N_WORKERS]
    ]
    return (*lines, "…") if len(workers) > _N_WORKERS else tuple(lines)


def _place(folder: Path, logs: Path) -> str:
    if logs.is_dir():
        return str(logs.relative_to(folder))
    return "gone with the worker, which did not see the run folder"


def _holding_section(case: RunCase) -> Section:
    if not case.holding.lines:  # a log that is missing is told of once
        return Section(
            "what holds it or keeps machines away",
            tuple(filter(None, (case.pulse.held, case.pulse.shortage))),
        )
    return log_section("what held it or kept machines away, in local time", case.holding)


def _first_of(n_shown: int, n_found: int) -> str:
    return f" (the first {n_shown} of {n_found})" if n_shown < n_found else ""


def _timed(text: str) -> str:
    utc, _, what = text.partition(": ")
    return f"{at(utc)}: {first_line(what)}"


def _evidence(case: RunCase, set_idx: int, taskset_id: str) -> str:
    folder = RunPaths(case.folder).bad / f"{set_idx}-{taskset_id}"
    return str(folder.relative_to(case.folder)) if folder.is_dir() else ""
