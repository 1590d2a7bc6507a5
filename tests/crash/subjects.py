"""The runs that are crashed and gone on with: from a Python shell, and through the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

from runner.distributor import Distributor
from runner.exit_codes import ExitCode
from runner.kinds import without_host
from runner.monitors.sqlite import SQLiteMonitor
from runner.progress import read_progress
from runner.specs import MachinePolicy
from runner.tasksets import UUniFastTaskSets
from tests.crash.samples import FailingSession, Witness

N_MACHINES = 2
#: More than there are crashes: a set that fails now and then must not become bad by them.
MAX_TRIES = 6


class Subject(ABC):
    """A run, as a function of its folder; each method is called in a process of its own, and is that process's work."""

    @abstractmethod
    def begin(self, folder: Path) -> int:
        """Run to the end; returns the exit code."""

    @abstractmethod
    def resume(self, folder: Path) -> int:
        """Go on where an earlier process stopped."""

    def can_resume(self, folder: Path) -> bool:
        """Whether a crash has left something to go on with; otherwise one begins anew, in the same folder."""
        return True


def witness_of(folder: Path) -> Path:
    """Where the witness of a run writes."""
    return folder.with_name("witness")


class Shell(Subject):
    """What a user does in a Python shell: a Distributor, and a data set."""

    def begin(self, folder: Path) -> int:
        return self.resume(folder)

    def resume(self, folder: Path) -> int:
        database = folder / "results.sqlite"
        source = UUniFastTaskSets(
            n_tasks=2,
            utilizations=[0.5, 0.8, 1.0],
            sets_per_utilization=4,
            periods=["20ms", "50ms"],
        )
        monitors = [
            SQLiteMonitor(database, parquet=folder / "parquet"),
            Witness(str(database), str(witness_of(folder))),
        ]
        kind = without_host(
            lambda host: FailingSession(), policy=MachinePolicy(max_tries=MAX_TRIES), ideal=True
        )
        with ExitStack() as stack:
            progress = read_progress(database)
            distributor = stack.enter_context(Distributor(N_MACHINES, kind=kind, repeat=2, folder=folder))
            distributor.add_job(source, monitors, progress=progress)
            distributor.wait()
            n_bad = distributor.get_distributor_state().n_bad
        return ExitCode.BAD_TASKSETS if n_bad else ExitCode.OK


SUBJECTS: dict[str, type[Subject]] = {"shell": Shell}
