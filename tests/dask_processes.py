"""A Dask cluster that is not ours: `dask scheduler` and `dask worker`, processes of their own, on loopback."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import distributed

from tests.cli import environment
from tests.daemons import end
from tests.fleet_samples import eventually

#: To begin, and to end; both take a second or two.
_STEP_S = 60.0


class RunningCluster:
    """A scheduler, and workers that join when they are asked to.

    Guarantees: at the end no process of it is left; each is asked to end, then made to.

    Attributes:
        folder: Where its processes log, and keep what they keep.
        address: Of the scheduler.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._n_joined = 0
        self._file = folder / "scheduler.json"
        folder.mkdir()
        self._start(
            "scheduler", "scheduler", "--host=127.0.0.1", "--port=0", f"--scheduler-file={self._file}"
        )
        eventually(self._file.exists, _STEP_S)
        connect: Any = distributed.Client
        self._client = stack.enter_context(connect(scheduler_file=str(self._file), set_as_default=False))
        self.address: str = self._client.scheduler.address

    def join(self, name: str, *, n_guests: int, env: Mapping[str, str] | None = None) -> None:
        """Have a further worker, which says that it can hold that many guests, and wait until the scheduler knows it."""
        self._start(
            name,
            "worker",
            f"--scheduler-file={self._file}",
            "--host=127.0.0.1",
            "--nthreads=1",
            f"--resources=guests={n_guests}",
            f"--name={name}",
            "--memory-limit=0",
            "--no-nanny",
            env=env,
        )
        self._n_joined += 1
        self._client.wait_for_workers(self._n_joined, timeout=_STEP_S)

    @property
    def workers(self) -> list[str]:
        """Names of those that the scheduler knows."""
        facts = self._client.sync(self._client.scheduler.identity, n_workers=-1)
        return [one["name"] for one in facts["workers"].values()]

    def traces(self) -> list[str]:
        """What of a run is on the cluster: its agents and threads on the workers, its tasks at the scheduler, its clients there."""
        found = [f"task {task}" for task in self._client.run_on_scheduler(_tasks)]
        for one in self._client.run(_agents_and_threads).values():
            found += one
        return found

    def _start(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"],
                cwd=self.folder,
                env=environment(self.folder, {"TMPDIR": str(self.folder), **(env or {})}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(end, process, _STEP_S)


def _tasks(dask_scheduler: Any) -> list[str]:
    return list(map(str, dask_scheduler.tasks))


def _agents_and_threads(dask_worker: Any) -> list[str]:
    ours = ("worker-", "members", "qemu", "gate", "silence")
    threads = [one.name for one in threading.enumerate() if one.name.startswith(ours)]
    return [f"agent {one}" for one in dask_worker.state.actors] + [f"thread {name}" for name in threads]


@contextmanager
def running_cluster(folder: Path) -> Iterator[RunningCluster]:
    """A cluster as long as the block lasts, without workers first.

    Args:
        folder: Is made.
    """
    with ExitStack() as stack:
        yield RunningCluster(folder, stack)
