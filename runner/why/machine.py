"""Why a machine is what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from runner.data.history import AttemptRow, DataSet, IncidentRow, MachineHistory, machine_history
from runner.errors import UsageError
from runner.paths import RunPaths, worker_of
from runner.qemu.failure import tail
from runner.run_folder.pulse import MachinePulse, read_pulse
from runner.text.log_lines import Excerpt, search
from runner.why.guests import Guests, read_guests
from runner.why.page import (
    Page,
    Section,
    at,
    counted,
    fault_lines,
    first_line,
    incident_line,
    log_section,
    some_of,
)

_N_LINES = 12
# The first line of what was logged at once; the others repeat the console.
_RECORD = re.compile(rb"^\d{4}-\d\d-\d\d ")


@dataclass(frozen=True, kw_only=True)
class MachineCase:
    """All that is known of a machine.

    Attributes:
        folder: Of its logs; those of a cluster's machine may have gone with its worker.
        now: What it is doing; None where it, or the run, is over.
        guests: What the run's machines are.
        console: What the guest's console showed last; from a panic on if there was one.
        stderr: What QEMU had to say last.
        log: The machine's own log.
    """

    name: str
    folder: Path
    now: MachinePulse | None
    guests: Guests
    history: MachineHistory
    console: tuple[str, ...]
    stderr: tuple[str, ...]
    log: Excerpt

    @property
    def gone(self) -> str:
        """Why there are no logs of it; empty where there are, or should be."""
        worker = worker_of(self.name)
        if worker is None or self.folder.is_dir():
            return ""
        return (
            f"{self.folder} is not there: worker {worker} did not see the run folder, kept them on its own computer, and removed"
            " them when it ended"
        )

    @property
    def aside_until_utc(self) -> str | None:
        """Until when it was put aside last; None if it never was."""
        if self.now is not None and self.now.until_utc:
            return self.now.until_utc
        for one in reversed(self.history.incidents):
            if one.aside_s is not None:
                return (datetime.fromisoformat(one.utc) + timedelta(seconds=one.aside_s)).isoformat()
        return None


def look_at_machine(paths: RunPaths, database: DataSet | None, name: str) -> MachineCase:
    """Gather it.

    Raises:
        UsageError: the run had no machine of that name.
    """
    folder = paths.logs(name)
    history = MachineHistory() if database is None else machine_history(database, name)
    if not (history.known or folder.is_dir()):
        names = sorted(_names(paths))
        raise UsageError(
            f"the run had no machine {name!r}",
            where=str(paths.machines),
            next_step=f"name one of: {', '.join(names)}" if names else "no machine has begun there",
        )
    return MachineCase(
        name=name,
        folder=folder,
        now=read_pulse(paths).machines.get(name),
        guests=read_guests(paths.manifest),
        history=history,
        console=tuple(tail(folder / "console.log", n_lines=_N_LINES).splitlines()),
        stderr=tuple(tail(folder / "qemu.stderr", n_lines=_N_LINES).splitlines()),
        log=search(folder / "machine.log", (_RECORD,), _N_LINES)[0],
    )


def _names(paths: RunPaths) -> Iterator[str]:
    yield from (path.name for path in paths.machines.glob("*") if path.is_dir())
    for worker in paths.workers.glob("*"):
        inside = RunPaths(worker).machines.glob("*")
        yield from (f"{worker.name}.{path.name}" for path in inside if path.is_dir())


def machine_page(case: MachineCase) -> Page:
    """Put it into words."""
    history = case.history
    n_incidents = sum(one.n for one in history.faults)
    n_attempts = sum(history.outcomes.values())
    return Page(
        answer=_answer(case, n_attempts),
        sections=(
            Section(
                "where its task loader or SSH server is",
                tuple(filter(None, [None if worker_of(case.name) else case.guests.address(case.name)])),
            ),
            Section("attempts, by outcome", tuple(f"{n} x {how}" for how, n in history.outcomes.items())),
            Section("faults, by whose doing they were", fault_lines(history.faults)),
            Section(
                "what was done about them", tuple(f"{n} x {step}" for step, n in history.recoveries.items())
            ),
            Section(
                f"incidents, in UTC{some_of(len(history.incidents), n_incidents)}",
                tuple(_incident_line(one) for one in history.incidents),
            ),
            Section(
                f"attempts, in UTC{some_of(len(history.attempts), n_attempts)}",
                tuple(_attempt_line(one) for one in history.attempts),
            ),
            Section("the last words on its console", case.console),
            Section("the last words of QEMU", case.stderr),
            Section("its logs", (case.gone,))
            if case.gone
            else log_section("its log, in local time", case.log),
        ),
    )


def _answer(case: MachineCase, n_attempts: int) -> str:
    history = case.history
    parts = [f"{history.n_measured} measured in {counted(n_attempts, 'attempt')}"]
    parts += [f"{one.n} x fault of kind {one.fault}" for one in history.faults]
    if history.n_asides:
        parts.append(f"put aside {history.n_asides} x, last until {at(case.aside_until_utc)} UTC")
    if case.now is None:
        parts.append("it does not work now")
    else:
        running = f" {case.now.taskset_id}" if case.now.taskset_id else ""
        parts.append(f"now {case.now.phase}{running}")
    return f"{case.name}: {'; '.join(parts)}."


def _incident_line(one: IncidentRow) -> str:
    about = f" (task set {one.taskset_id}, attempt {one.attempt})" if one.taskset_id else ""
    return f"{at(one.utc)}  {first_line(one.what)}{about}; {incident_line(one)}"


def _attempt_line(one: AttemptRow) -> str:
    ended = one.outcome if one.error is None else f"{one.outcome}: {first_line(one.error)}"
    return f"{at(one.started_utc)}  {one.name} [{one.taskset_id}], attempt {one.attempt}, {one.wall_s:.3f} s: {ended}"
