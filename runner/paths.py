"""The run folder: the only place that knows its file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

#: Where run folders lie unless the config says otherwise.
OUTPUTS = Path("outputs")
# Runs of `--multirun` lie one or two folders deeper.
_RUN_FOLDERS = ("*/*", "*/*/*", "*/*/*/*")
# As the data name a machine of a cluster's.
_OF_A_WORKER = re.compile(r"([\w.-]+)\.(qemu\d+)")


@dataclass(frozen=True)
class RunPaths:
    """Where everything of one run lies; makes no folder by itself but in `machine()`.

    Attributes:
        folder: The run folder, `outputs/<date>/<time>`.
    """

    folder: Path

    @classmethod
    def new(cls, outputs: Path) -> RunPaths:
        """A run folder that does not exist yet, named for the present date and time."""
        now = datetime.now().astimezone()
        return cls(outputs / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}")

    @property
    def manifest(self) -> Path:
        """What it takes to repeat the run."""
        return self.folder / "manifest.json"

    @property
    def control(self) -> Path:
        """The control file, which the operator edits."""
        return self.folder / "control.yaml"

    @property
    def status(self) -> Path:
        """What the run is doing."""
        return self.folder / "status.json"

    @property
    def log(self) -> Path:
        """The run's log."""
        return self.folder / "distributor.log"

    @property
    def lock(self) -> Path:
        """There while a runner works here: who."""
        return self.folder / "run.lock"

    @property
    def record(self) -> Path:
        """The folder of the composed config and the overrides."""
        return self.folder / ".hydra"

    @property
    def sweep(self) -> Path:
        """In the folder of a sweep: its config and overrides."""
        return self.folder / "multirun.yaml"

    @property
    def jobs(self) -> Path:
        """In the folder of a sweep, while its runs are jobs of a launcher: what they tell."""
        return self.folder / ".jobs"

    @property
    def parquet(self) -> Path:
        """Where the Parquet files go unless the config says otherwise."""
        return self.folder / "parquet"

    @property
    def report(self) -> Path:
        """Plots and tables of the run."""
        return self.folder / "report.html"

    @property
    def machines(self) -> Path:
        """The folder that holds one folder per machine."""
        return self.folder / "machines"

    @property
    def workers(self) -> Path:
        """The folder that holds one folder per worker of a cluster, for its machines."""
        return self.folder / "workers"

    def logs(self, machine: str) -> Path:
        """A machine's own folder, whether it is there or not; that of a worker's, `WORKER.qemu1`, is among the worker's."""
        worker = worker_of(machine)
        if worker is None:
            return self.machines / machine
        return RunPaths(self.workers / worker).machines / machine.removeprefix(f"{worker}.")

    @property
    def bad(self) -> Path:
        """The folder that holds one folder per task set that was given up, with what is known of it."""
        return self.folder / "bad"

    def machine(self, name: str) -> Path:
        """A machine's own folder, made if need be: its log, its console, QEMU's stderr."""
        path = self.machines / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def worker_of(machine: str) -> str | None:
    """The worker of a cluster that has the machine of that name; None: it is one of the runner's own."""
    found = _OF_A_WORKER.fullmatch(machine)
    return found[1] if found else None


def newest_run(mark: str, outputs: Path = OUTPUTS) -> Path | None:
    """The run folder in which the file or folder `mark` changed last; None if none has it."""
    found = [path for depth in _RUN_FOLDERS for path in outputs.glob(f"{depth}/{mark}")]
    if not found:
        return None
    return max(found, key=lambda path: path.stat().st_mtime_ns).parents[mark.count("/")]
