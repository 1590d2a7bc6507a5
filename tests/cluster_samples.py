"""What the tests of the cluster have in common: sets, monitors, workers in this process and workers of their own."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import distributed

from runner import simulated
from runner.admission.capacity import Reserves
from runner.cluster.agent import Agent, Setup
from runner.cluster.crew import Crew
from runner.cluster.link import WorkerLost
from runner.cluster.messages import Order, Reply
from runner.cluster.shares import Seat
from runner.distributor import Distributor
from runner.events import Run, RunResult
from runner.machines.kinds import qemu_by_mailbox
from runner.machines.station import MachineKind
from runner.monitors.base import AbstractMonitor
from runner.qemu.image import GuestImage
from runner.specs import QemuSpec
from runner.tasksets.uunifast import UUniFastTaskSets

WAIT_S = 240.0

MakeKind = Callable[[Path | None], MachineKind]


def sets(n: int) -> UUniFastTaskSets:
    return UUniFastTaskSets(
        n_tasks=3, utilizations=[0.7], sets_per_utilization=n, periods=["10ms", "20ms", "40ms"], seed=3
    )


class Tables(AbstractMonitor):
    """Which table each set got, and where; `after` calls what is to happen when so many are done."""

    def __init__(self, after: dict[int, Callable[[], object]] | None = None) -> None:
        self.tables: dict[int, str | None] = {}
        self.times: Counter[int] = Counter()
        self.runs: list[Run] = []
        self._after = after or {}

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self.tables[run.set_idx] = result.table_sha256
        self.times[run.set_idx] += 1
        self.runs.append(run)
        if (act := self._after.get(len(self.runs))) is not None:
            act()


def alone(kind: MachineKind, n: int, folder: Path) -> dict[int, str | None]:
    """The tables that one computer measures."""
    tables = Tables()
    with Distributor(2, kind=kind, folder=folder) as fleet:
        fleet.add_job(sets(n), tables)
        assert fleet.wait(WAIT_S)
    return tables.tables


def simulated_kind(image: Path | None, *, realtime_factor: float | None = None) -> MachineKind:
    return simulated(realtime_factor=realtime_factor)


def guest_kind(image: Path | None, *, cpu_mips: float = 125.0) -> MachineKind:
    return qemu_by_mailbox(QemuSpec(arch="amd64", image=image, cpu_mips=cpu_mips))


def setup_in(folder: Path, make_kind: MakeKind, image: GuestImage | None = None, **more: Any) -> Any:
    folder.mkdir(exist_ok=True)
    named = None if image is None else (image.identity, image.arch, image.folder.name)

    def setup(worker: str, capacity: int | None) -> Setup:
        return Setup(
            worker=worker,
            capacity=capacity or 7,
            make_kind=make_kind,
            reserves=Reserves(),
            folder=folder,
            image=named,
            **more,
        )

    return setup


class Line:
    """From a crew to an agent in this process; `cut` loses the next reply that reports something, and the worker with it."""

    def __init__(self, worker: str, folder: Path, make_kind: MakeKind, **more: Any) -> None:
        self.agent = Agent(setup_in(folder, make_kind, **more)(worker, 7))
        self.seat = Seat(worker=worker, computer=worker)
        self.cut = threading.Event()
        self.lost: Reply | None = None

    def exchange(self, order: Order) -> Reply:
        reply = self.agent.exchange(order)
        if self.cut.is_set() and reply.reports:
            self.lost = reply
            raise WorkerLost(f"{self.seat.worker} is cut off")
        return reply


@contextmanager
def in_process(
    tmp_path: Path,
    *workers: str,
    factor: float | None = None,
    kinds: dict[str, MakeKind] | None = None,
    checked_share: float = 0.0,
) -> Iterator[tuple[Crew, list[Line]]]:
    """A crew with these workers; those in `kinds` have machines of another kind."""
    crew = Crew(per_computer=7, patience_s=1.0, checked_share=checked_share)
    usual = partial(simulated_kind, realtime_factor=factor)
    lines = [Line(name, tmp_path, (kinds or {}).get(name, usual)) for name in workers]
    try:
        for line in lines:
            crew.joined(line.seat, line.exchange)
        yield crew, lines
    finally:
        for line in lines:
            line.agent.end()


def local_cluster(made: list[Any], n_workers: int) -> object:
    """Worker processes of Dask's."""
    make: Any = distributed.LocalCluster
    made.append(
        make(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": ":0"},
        )
    )
    return made[0]


def signal_a_worker(made: list[Any], number: signal.Signals = signal.SIGKILL) -> int:
    """Send it to the process of the first worker; its id."""
    pid = int(next(iter(made[0].workers.values())).pid)
    os.kill(pid, number)
    return pid
