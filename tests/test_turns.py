"""What QEMU does on a busy host between two of its threads never reaches a guest's clock, however it was started."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.samples import Listed
from host_setup.command import run_command
from host_setup.stem import COMPILER
from runner.distributor import Distributor
from runner.errors import RunnerError
from runner.events import Run, RunResult
from runner.machines.kinds import qemu_by_mailbox
from runner.model import Task, TaskSet
from runner.monitors.base import AbstractMonitor
from runner.qemu.architectures import architecture
from runner.specs import Reach, Reset
from runner.units import NS_PER_MS, NS_PER_US
from tests.qemu_guests import PATIENCE_S, guest_spec

_DAWDLING = Path(__file__).with_name("dawdling.c")


class Tables(AbstractMonitor):
    """The digests of each task set's job tables, and what went wrong."""

    def __init__(self) -> None:
        self.of: dict[str, set[str | None]] = defaultdict(set)
        self.n_measured = 0
        self.errors: list[RunnerError] = []

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.n_measured += 1
        self.of[run.taskset.taskset_id].add(result.table_sha256)

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self.errors.append(error)


def often_idle(number: int) -> TaskSet:
    """Three tasks whose jobs are short and many: a guest that goes to sleep some hundred times."""
    periods_ms = (2, 3 + number, 5 + number)
    tasks = tuple(
        Task(period_ns=ms * NS_PER_MS, wcet_ns=(90 + 10 * number) * NS_PER_US, n_jobs=240 // ms)
        for ms in periods_ms
    )
    return TaskSet(tasks, name=f"often-idle-{number}")


@pytest.fixture
def dawdling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every QEMU that is started has threads that rest at the worst of times."""
    with tempfile.TemporaryDirectory(prefix="rtfleet-dawdling-") as name:
        shared = Path(name) / "dawdling.so"
        run_command(
            [
                COMPILER,
                *["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"],
                "-o",
                shared,
                _DAWDLING,
                "-ldl",
            ],
            doing="compiling what slows QEMU down",
            timeout_s=PATIENCE_S,
            next_step="python -m host_setup packages",
        )
        for path in (shared, shared.parent):  # the user that QEMU becomes opens it, too
            path.chmod(0o755)
        monkeypatch.setenv("LD_PRELOAD", str(shared))
        yield


def wrapped_qemu(folder: Path, arch: str) -> str:
    """A script that becomes QEMU: no stem can be made of it, so it is started plainly."""
    qemu = shutil.which(architecture(arch).qemu_binary)
    assert qemu is not None
    script = folder / "qemu"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(qemu)} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.guest
@pytest.mark.usefixtures("dawdling")
@pytest.mark.parametrize(
    ("arch", "start"), [("arm64", "from a stem"), ("amd64", "from a stem"), ("arm64", "plainly")]
)
def test_a_processor_and_a_main_loop_that_dawdle_change_no_job(tmp_path, arch, start):
    binary = None if start == "from a stem" else wrapped_qemu(tmp_path, arch)
    spec = guest_spec(arch, reach=Reach.MAILBOX, qemu_binary=binary)
    tasksets = [often_idle(number) for number in range(4)]
    tables = Tables()
    with Distributor(2, kind=qemu_by_mailbox(spec, reset=Reset.TASKSET), folder=tmp_path / "run") as fleet:
        fleet.add_job(Listed(tasksets * 5), tables)
        assert fleet.wait(PATIENCE_S)
    assert not tables.errors
    assert tables.n_measured == 20
    assert {name: len(found) for name, found in tables.of.items()} == dict.fromkeys(tables.of, 1)
    assert len(tables.of) == len(tasksets)
