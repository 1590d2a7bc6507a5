"""Helpers for tests that start programs from stems, or plainly."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from host_setup.stem import ensure_stem
from runner.deadline import Deadline
from runner.qemu.launcher import Launcher
from runner.qemu.process import Launch, Process


def built_shim(folder: Path) -> Path:
    """What makes a stem of a program, newly built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTFLEET_CACHE", str(folder))
        return ensure_stem(report=lambda line: None)


def own_keepers() -> list[str]:
    """The threads that keep processes or stems."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("keeper-")]


class Starter:
    """Starts programs."""

    def __init__(self, folder: Path, shim: Path) -> None:
        self.launcher = Launcher(lambda: shim)
        self.stderr = folder / "stderr"

    def start(self, *command: str, fds: Sequence[int] = (), cpu: int | None = None) -> Process:
        return self.launcher.start(
            Launch(
                command=command,
                pass_fds=tuple(fds),
                stderr_path=self.stderr,
                cpu=cpu,
            )
        )

    def run(self, *command: str, fds: Sequence[int] = (), cpu: int | None = None) -> int | None:
        """Start one and wait for its end; the return code."""
        process = self.start(*command, fds=fds, cpu=cpu)
        assert process.wait(Deadline.after(30))
        process.join()
        return process.returncode


def parent_of(pid: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
