"""Ask why: `python -m runner.why [RUN_FOLDER] [SUBJECT]`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.data.database import is_blank
from runner.data.history import DataSet, reading
from runner.data.reuse import RESULTS_NAME
from runner.data.set_history import NotBegun, find_set
from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode, exit_code_of
from runner.paths import OUTPUTS, RunPaths, newest_run
from runner.why.machine import MachineCase, look_at_machine, machine_page
from runner.why.page import Page
from runner.why.run import RunCase, look_at_run, run_page
from runner.why.taskset import SetCase, look_at_not_begun, look_at_set, not_begun_page, set_page

_MACHINE = re.compile(r"([\w.-]+\.)?qemu\d+")


@dataclass(frozen=True)
class Place:
    """Where to look: the run folder, and its data set."""

    paths: RunPaths
    results: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0 where it could be told, whatever it is."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.why",
        description="Tell what happened to a run, a task set or a machine, and why. It only reads, also while the run goes on.",
        epilog="Without RUN_FOLDER: the newest run under outputs/. A '#' begins a comment in a shell: put it in quotes.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN_FOLDER", help="a run folder, or its results.sqlite")
    parser.add_argument(
        "subject",
        nargs="?",
        metavar="SUBJECT",
        help="a task set: its taskset_id or the beginning of it, its place ('#12', from '#0'), its name;"
        " or a machine (qemu1; of a cluster's: WORKER.qemu1); nothing: the run",
    )
    parser.add_argument("--json", action="store_true", help="as data")
    options = parser.parse_args(arguments)
    try:
        place, subject = _which(options.run, options.subject)
        with _data(place.results) as database:
            case, page = _look(place, database, subject)
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    except OSError as exc:
        print(f"error: the run folder cannot be read: {exc}", file=sys.stderr)
        return ExitCode.HOST
    _print(_as_json(case, page, place.paths.folder) if options.json else page.text())
    return ExitCode.OK


def _which(run: str | None, subject: str | None) -> tuple[Place, str | None]:
    """Run and subject; a single word that is no path is a subject in the newest run."""
    if run is not None and subject is None and "/" not in run and not os.path.lexists(run):
        run, subject = None, run
    if run is None:
        folder = newest_run("status.json")
        if folder is None:
            raise UsageError(
                f"there is no run under {OUTPUTS}" + (f", and no folder {subject!r}" if subject else ""),
                where=str(OUTPUTS.absolute()),
                next_step="name the run folder: python -m runner.why RUN_FOLDER [SUBJECT]",
            )
        return Place(RunPaths(folder), folder / RESULTS_NAME), subject
    path = Path(run)
    if os.path.isfile(path):  # not Path.is_file, which raises where a name is too long
        return Place(RunPaths(path.parent), path), subject
    paths, results = RunPaths(path), path / RESULTS_NAME
    if not any(os.path.exists(one) for one in (paths.manifest, paths.status, results)):
        inside = path.glob("*/status.json") if os.path.isdir(path) else ()
        runs = sorted(str(one.parent) for one in inside)[:10]
        raise UsageError(
            f"{run} is no run folder",
            next_step=f"name one of the runs in it: {', '.join(runs)}"
            if runs
            else "name one that holds status.json and results.sqlite, as python -m runner made it",
        )
    return Place(paths, results), subject


@contextmanager
def _data(path: Path) -> Iterator[DataSet | None]:
    """The data set; None where nobody has put anything there."""
    if not path.exists() or is_blank(path):
        yield None
        return
    with reading(path) as database:
        yield database


def _look(
    place: Place, database: DataSet | None, subject: str | None
) -> tuple[RunCase | SetCase | MachineCase | NotBegun, Page]:
    paths = place.paths
    if subject is None:
        run = look_at_run(paths, database)
        return run, run_page(run)
    if _MACHINE.fullmatch(subject) or _is_folder_of(paths, subject):
        machine = look_at_machine(paths, database, subject)
        return machine, machine_page(machine)
    if database is None:
        raise UsageError(
            f"nothing is known of task set {subject!r}: there is no data set at {place.results}",
            next_step="ask for the whole run: leave the task set out; without the sqlite monitor there is no ledger",
        )
    found = find_set(database, subject, place.results)
    if isinstance(found, NotBegun):
        return found, not_begun_page(paths.folder, look_at_not_begun(paths), found)
    one = look_at_set(paths, database, found)
    return one, set_page(one)


def _is_folder_of(paths: RunPaths, name: str) -> bool:
    return name != "" and name == Path(name).name and os.path.isdir(paths.machines / name)


def _as_json(case: RunCase | SetCase | MachineCase | NotBegun, page: Page, folder: Path) -> str:
    content = {
        "run": str(folder),
        "answer": page.answer,
        "next_step": page.next_step or None,
        **asdict(case),
    }
    return json.dumps(content, indent=1, default=str)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
