"""The runs that are crashed and gone on with: from a Python shell, and through the command line."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from omegaconf import DictConfig, read_write

from runner import cli
from runner.config.composer import ConfigComposer, ConfigPlaces
from runner.config.schemas import register_schemas
from runner.data.progress import read_progress
from runner.distributor import Distributor
from runner.exit_codes import ExitCode
from runner.machines.kinds import qemu_by_mailbox, without_host
from runner.machines.station import MachineKind
from runner.model import TaskSetSource
from runner.monitors.sqlite import SQLiteMonitor
from runner.paths import RunPaths
from runner.specs import MachinePolicy
from runner.tasksets import UUniFastTaskSets
from tests.cli import ROOT
from tests.crash.samples import FailingSession, Witness

N_MACHINES = 2
#: More than there are crashes: a set that fails now and then must not become bad by them.
MAX_TRIES = 6


class Subject(ABC):
    """A run, as a function of its folder; each method is called in a process of its own, and is that process's work."""

    #: What a run ends with that is complete.
    expected_code: ClassVar[ExitCode] = ExitCode.BAD_TASKSETS
    #: Whether another program takes the process's place.
    execs: ClassVar[bool] = False

    def __init__(self, workshop: Path) -> None:
        """Prepare, in the process from which the others are forked, what all of them have in common.

        Args:
            workshop: The folder in which their folders are.
        """
        self.workshop = workshop

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
        policy = MachinePolicy(
            max_tries=MAX_TRIES, max_guest_tries=MAX_TRIES, aside_s=0.01, aside_max_s=0.05, max_asides=1000
        )
        return without_host(lambda host: FailingSession(), policy=policy, ideal=True)


class ShellWithGuests(Shell):
    """The same with real guests, and fewer sets, none of which fails."""

    expected_code = ExitCode.OK

    def _source(self) -> TaskSetSource:
        return UUniFastTaskSets(
            n_tasks=2, utilizations=[0.5, 0.9], sets_per_utilization=3, periods=["20ms", "50ms"]
        )

    def _kind(self) -> MachineKind:
        return qemu_by_mailbox()


#: Eleven sets, and one that no simulation can tell the duration of, which is bad at once.
_EXPERIMENT = """
# @package _global_
defaults: [{override /tasksets: explicit}]
repeat: 2
tasksets:
  tasksets:
    - name: refused
      tasks: [{period: null, workload: executable, workload_args: {path: /bin/true}}]
"""
_SET = """
    - name: set%(number)d
      tasks: [{period: 20ms, wcet: %(number)dms, n_jobs: 5}, {period: 50ms, wcet: 5ms, n_jobs: 2}]
"""


class CommandLine(Subject):
    """`python -m runner`, in the process that was forked for it."""

    overrides: ClassVar[tuple[str, ...]] = ("machines=simulation",)

    def __init__(self, workshop: Path) -> None:
        super().__init__(workshop)
        self._conf = workshop / "conf"
        experiments = self._conf / "experiment"
        experiments.mkdir(parents=True)
        (experiments / "crash.yaml").write_text(self._experiment())
        self._composed = _composed(self._conf, self._overrides())

    def begin(self, folder: Path) -> int:
        return self._main(folder, f"--config-dir={self._conf}", *self._overrides())

    def resume(self, folder: Path) -> int:
        return self._main(folder, f"resume={folder.name}")

    def can_resume(self, folder: Path) -> bool:
        """Whether it had begun."""
        return RunPaths(folder).record.exists()

    def _main(self, folder: Path, *arguments: str) -> int:
        os.chdir(folder.parent)
        self._compose_no_more()
        return cli.main(arguments)

    def _compose_no_more(self) -> None:
        """In this process, which ends with it. It takes half of a run's time, and all are the same but for the folder."""
        with read_write(self._composed.hydra):
            self._composed.hydra.runtime.cwd = os.getcwd()

        def compose(composer: ConfigComposer, overrides: Sequence[str], *, sweep: bool = False) -> DictConfig:
            return self._composed

        ConfigComposer.compose = compose  # type: ignore[method-assign, assignment] # as told above

    def _overrides(self) -> list[str]:
        return [
            "experiment=crash",
            f"machines.count={N_MACHINES}",
            "+monitors.witness._target_=tests.crash.samples.Witness",
            "+monitors.witness.database=${run_folder}/results.sqlite",
            "+monitors.witness.path=witness",
            "hydra.run.dir=run",
            "report=false",
            *self.overrides,
        ]

    def _experiment(self) -> str:
        return _EXPERIMENT + "".join(_SET % {"number": number} for number in range(1, 12))


def _composed(conf: Path, overrides: Sequence[str]) -> DictConfig:
    register_schemas()
    with ConfigComposer(ConfigPlaces(added=str(conf))) as composer:
        return composer.compose(overrides)


class Program(CommandLine):
    """The same as users have it: another program, some seconds slower."""

    execs = True

    def _main(self, folder: Path, *arguments: str) -> int:
        os.chdir(folder.parent)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        os.execve(sys.executable, [sys.executable, "-m", "runner", *arguments], environment)


class GuestsOnCommandLine(CommandLine):
    """The same with real guests, and fewer sets, none of which fails."""

    expected_code = ExitCode.OK
    overrides = ("machines=arm64", "tasksets=uunifast", "tasksets.sets_per_utilization=1")

    def _experiment(self) -> str:
        return "# @package _global_\nrepeat: 2\n"


SUBJECTS: dict[str, type[Subject]] = {"command-line": CommandLine, "shell": Shell, "program": Program}
GUESTS: dict[str, type[Subject]] = {
    "command-line": GuestsOnCommandLine,
    "shell": ShellWithGuests,
    "program": GuestsOnCommandLine,
}
