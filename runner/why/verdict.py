"""What became of a task set, in half a sentence, and why. Pure."""

from __future__ import annotations

from runner.data.set_history import Measured, Miss, Place, SetHistory
from runner.events import ExitType, Outcome
from runner.run_folder.pulse import Pulse
from runner.units import shown_ns
from runner.why.page import counted, first_line


def verdict(history: SetHistory, pulse: Pulse) -> tuple[str, str]:
    """In words, and as `bad`, `pending` or `done`: of a set that stands at several places, what is most worth a word."""
    for state in ("bad", "pending", "done"):
        of_that_state = [place for place in history.places if place.state == state]
        if not of_that_state:
            continue
        place, *others = of_that_state
        told = {"bad": _bad, "pending": _pending, "done": _done}[state](history, pulse, place)
        if len(history.places) > 1:
            told += f" ({len(others) + 1} of {len(history.places)} places)"
        return told, state
    return "in the data, and at no place of the ledger", "done"


def _bad(history: SetHistory, pulse: Pulse, place: Place) -> str:
    incidents = [one for one in history.incidents if one.set_idx in (None, place.set_idx)]
    fault = f" (fault: {incidents[-1].fault})" if incidents else ""
    if history.parameters.state == "unrepeatable":
        return f"bad, because it does not repeat: {first_line(place.error)}"
    tries = "try" if place.n_failed == 1 else "tries"
    return f"bad after {place.n_failed} {tries}, because {first_line(place.error)}{fault}"


def _pending(history: SetHistory, pulse: Pulse, place: Place) -> str:
    got = f", {place.n_done} of {place.repeat} measured" if place.repeat > 1 else ""
    where = [name for name, one in pulse.machines.items() if one.taskset_id == history.parameters.taskset_id]
    if where:
        return f"pending{got}, because it runs now, on {', '.join(where)}"
    if place.error:
        failed = f"its last try failed ({first_line(place.error)}), {place.n_failed} so far"
        later = "it waits for another" if pulse.goes_on else "the run stopped before another"
        return f"pending{got}, because {failed}, and {later}"
    if pulse.goes_on:
        held = f": {pulse.held}" if pulse.held else ""
        return f"pending{got}, because it waits for a machine{held}"
    return f"pending{got}, because the run stopped before it was measured"


def _done(history: SetHistory, pulse: Pulse, place: Place) -> str:
    measured = history.measured
    if measured is None:
        return "done, and its runs are missing (python -m runner.check tells whether the ledger is sound)"
    return f"done, {_label(measured)}"


def _label(measured: Measured) -> str:
    jobs = counted(measured.n_jobs or 0, "job")
    share = f" in {measured.n_unschedulable} of {measured.n_measured} measurements"
    where = share if measured.n_unschedulable < measured.n_measured else ""
    if measured.outcome == Outcome.REJECTED.value:
        tasks = ", ".join(measured.refused) or "a task"
        return f"and not schedulable{where}: the admission test of the kernel refused {tasks}"
    if measured.first_miss is not None:
        return f"and not schedulable{where}: {measured.n_missed} of {jobs} missed their deadline, {_first(measured.first_miss)}"
    if measured.n_schedulable < measured.n_measured:
        return f"and whether it is schedulable is open: {jobs}, 0 missed, but not every job ran to its end"
    worst = measured.worst
    ratio = ""
    if worst is not None and worst.deadline_ns:
        ratio = f", worst response {worst.response_ns / worst.deadline_ns:.3g} D (task {worst.task})"
    return f"and schedulable: {jobs}, 0 missed{ratio}"


def _first(miss: Miss) -> str:
    which = f"first of all job {miss.job_idx} of task {miss.task}"
    if miss.exit_type == ExitType.SKIPPED.value:
        return f"{which}, which was skipped because the one before it overran"
    if miss.finish_ns is None or miss.deadline_abs_ns is None:
        return which
    late = shown_ns(miss.finish_ns - miss.deadline_abs_ns)
    if miss.exit_type == ExitType.EXIT.value:
        return f"{which}, by {late}"
    return f"{which}, killed unfinished {late} after it"
