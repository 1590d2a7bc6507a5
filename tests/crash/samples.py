"""What the runs that are crashed consist of: a few task sets, sessions that fail some of them, a witness."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import GuestDied, TaskSetError
from runner.events import Event, Run, RunResult
from runner.model import TaskSet
from runner.monitors.base import AbstractMonitor
from runner.sessions.simulation import SimulationSession

#: Overrides for twelve small task sets, each measured twice; `u0.5-0` … `u1-3` by name.
TASKSETS = (
    "tasksets.n_tasks=2",
    "tasksets.utilizations=[0.5, 0.8, 1.0]",
    "tasksets.sets_per_utilization=4",
    "tasksets.periods=[20ms, 50ms]",
    "repeat=2",
)
#: Is refused, and bad at once.
REFUSED = "u1-1"
#: Ends its guest each time, and is bad after some tries.
RUINOUS = "u0.8-2"
#: Ends its guest when a runner tries it for the first time.
FLAKY = "u0.5-1"


class FailingSession(SimulationSession):
    """An ideal processor on which three of the sets fail, each in its way."""

    _tried: set[str] = set()  # noqa: RUF012 - of this process, whatever sessions there are

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Refuse one of the sets."""
        if taskset.name == REFUSED:
            raise TaskSetError(f"{taskset.name} is refused")
        super().start(taskset, deadline)
        self._taskset = taskset

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """Die in the middle of two of the sets."""
        name = self._taskset.name
        dies = name == RUINOUS or (name == FLAKY and name not in self._tried)
        self._tried.add(name)
        for event in super().events(deadline):
            yield event
            if dies:
                raise GuestDied(f"{name} has ended its guest")


class Witness(AbstractMonitor):
    """Notes, in a file of its own, which runs the data set holds, whenever it hears of something.

    Args:
        database: The data set.
        path: Its own file, outside the run folder.
    """

    def __init__(self, database: str, path: str) -> None:
        self._database = database
        self._path = path

    def __taskset_start__(self, run: Run) -> None:
        self._look()

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._look()

    def close(self) -> None:
        """By now the data set is complete."""
        self._look()

    def _look(self) -> None:
        """What is found now, a power loss must not take away."""
        if not Path(self._database).exists():
            return
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as database:
            if not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'runs'").fetchall():
                return
            found = database.execute("SELECT run_id FROM runs WHERE n_jobs IS NOT NULL").fetchall()
        with open(self._path, "a", encoding="ascii") as file:
            file.writelines(f"{run_id}\n" for (run_id,) in found)

    @staticmethod
    def seen(path: Path) -> set[str]:
        """The runs that it has noted; the last line may be torn."""
        lines = path.read_text().split("\n")[:-1] if os.path.exists(path) else []
        return set(lines)
