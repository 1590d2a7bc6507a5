"""The runs that are crashed and gone on with: from a Python shell, and through the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from runner.distributor import Distributor
from runner.exit_codes import ExitCode
from runner.kinds import qemu_by_mailbox, without_host
from runner.model import TaskSetSource
from runner.monitors.sqlite import SQLiteMonitor
from runner.progress import read_progress
from runner.specs import MachinePolicy
from runner.station import MachineKind
from runner.tasksets import UUniFastTaskSets
from tests.crash.samples import FailingSession, Witness

N_MACHINES = 2
#: More than there are crashes: a set that fails now and then must not become bad by them.
MAX_TRIES = 6


class Subject(ABC):
    """A run, as a function of its folder; each method is called in a process of its own, and is that process's work."""

    #: What a run ends with that is complete.
    expected_code: ClassVar[ExitCode] = ExitCode.BAD_TASKSETS

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
        monitors = [
            SQLiteMonitor(database, parquet=folder / "parquet"),
            Witness(str(database), str(witness_of(folder))),
        ]
        with Distributor(N_MACHINES, kind=self._kind(), repeat=2, folder=folder) as distributor:
            distributor.add_job(self._source(), monitors, progress=read_progress(database))
            distributor.wait()
            n_bad = distributor.get_distributor_state().n_bad
        return ExitCode.BAD_TASKSETS if n_bad else ExitCode.OK

    def _source(self) -> TaskSetSource:
        return UUniFastTaskSets(
            n_tasks=2, utilizations=[0.5, 0.8, 1.0], sets_per_utilization=4, periods=["20ms", "50ms"]
        )

    def _kind(self) -> MachineKind:
        return without_host(
            lambda host: FailingSession(), policy=MachinePolicy(max_tries=MAX_TRIES), ideal=True
        )


class ShellWithGuests(Shell):
    """The same with real guests, and fewer sets, none of which fails."""

    expected_code = ExitCode.OK

    def _source(self) -> TaskSetSource:
        return UUniFastTaskSets(
            n_tasks=2, utilizations=[0.5, 0.9], sets_per_utilization=3, periods=["20ms", "50ms"]
        )

    def _kind(self) -> MachineKind:
        return qemu_by_mailbox()


SUBJECTS: dict[str, type[Subject]] = {"shell": Shell}
GUESTS = ShellWithGuests
