"""What the coordinator has on each worker: the fleet of one computer, as it would be without a cluster."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.admission.capacity import Reserves
from runner.cluster.delivery import Delivery
from runner.cluster.messages import Assignment, Order, Reply, Report
from runner.cluster.relay import Relay
from runner.distributor import Distributor
from runner.faults.recovery import Recovery
from runner.fleet import RunState
from runner.machines.station import Fact, MachineKind
from runner.model import TaskSet
from runner.paths import RunPaths

#: When nobody has asked for so long, the coordinator is gone, unless told otherwise.
SILENCE_S = 120.0
_log = logging.getLogger("runner.cluster")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is told once.

    Attributes:
        worker: Its name.
        capacity: Machines that it may have at most.
        make_kind: Makes the kind of machine, given the folder of the image where guests boot one of ours.
        reserves: What is left to everybody else on its computer.
        folder: Where logs and consoles go, if that is there: the run folder, on a shared file system; else they go to a temporary
            folder, and are lost with the worker.
        silence_s: When nobody has asked for so long, the machines end.
        image: Identity, architecture and folder name of the guests' image; None: they boot none of ours.
    """

    worker: str
    capacity: int
    make_kind: Callable[[Path | None], MachineKind]
    reserves: Reserves
    folder: Path
    silence_s: float = SILENCE_S
    image: tuple[str, str, str] | None = None


class Batch:
    """The task sets that came with one order."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        self._tasksets = [assignment.taskset for assignment in assignments]
        self.n_variants = len(self._tasksets)

    def variants(self) -> Iterator[TaskSet]:
        """All of them."""
        return iter(self._tasksets)


class Agent:
    """Has its own Distributor do what is ordered: the machines, their recovery and their admission are those of one computer.

    One attempt at each assignment: whether there is another is decided, and counted, by the coordinator.

    Guarantees: after `end()`, or when nobody has asked for `silence_s`, no machine, thread or temporary file is left.
    Threads: any; one is served at a time.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._lock = threading.RLock()
        self._asked = threading.Event()
        self._relay = Relay()
        self._fleet: Distributor | None = None
        self._n_batches = 0
        self._ended = False
        self._recoveries: dict[Recovery, int] = {}
        shared = setup.folder.is_dir() and os.access(setup.folder, os.W_OK)
        self._temporary = None if shared else Path(tempfile.mkdtemp(prefix="rtfleet-worker-"))
        self._folder = self._temporary or RunPaths(setup.folder).workers / setup.worker
        self._image: Path | None = None
        self._delivery = None if setup.image is None else Delivery(*setup.image)
        self._more_facts = {
            "worker": setup.worker,
            "host_cpu": _cpu_model(),
            "host_kernel": platform.release(),
        }

    # The image

    def lacks_image(self) -> bool:
        """Whether the image has to be sent: it is not in this computer's cache."""
        if self._delivery is None:
            return False
        self._image = self._delivery.find()
        return self._image is None

    def take_image(self, name: str, chunk: bytes) -> None:
        """Append to a file of the image."""
        assert self._delivery is not None  # noqa: S101 - asked for by `lacks_image` alone
        self._delivery.take(name, chunk)

    def finish_image(self, digests: Mapping[str, str]) -> None:
        """All files were sent, with these SHA-256.

        Raises:
            HostError: something else arrived.
        """
        assert self._delivery is not None  # noqa: S101 - as above
        self._image = self._delivery.finish(digests)

    # The fleet

    def exchange(self, order: Order) -> Reply:
        """Do what is ordered, and tell what is new."""
        self._asked.set()
        with self._lock:
            return Reply(open=False) if self._ended else self._exchange(order)

    def _exchange(self, order: Order) -> Reply:
        if order.n_machines and not order.kill:
            self._keep_fleet(order)
        fleet = self._fleet
        if fleet is None:
            return Reply(open=False, recoveries=dict(self._recoveries))
        if not order.kill:
            fleet.steer(order.n_machines, RunState.PAUSE if order.paused else RunState.RUN)
        if order.batch:
            self._add(fleet, order.batch)
        idle = not order.n_machines or order.kill
        reports, incidents = self._relay.fetch(order.wait_s if not order.kill else 0.0)
        error = fleet.failure
        if order.kill or error is not None or (idle and not fleet.busy):
            late = self._close_fleet()
            return Reply(
                open=False,
                reports=(*self._told(reports), *self._told(late)),
                incidents=incidents,
                recoveries=dict(self._recoveries),
                error=error,
            )
        state = fleet.get_distributor_state() if order.survey else None
        return Reply(
            open=True,
            reports=self._told(reports),
            incidents=incidents,
            machines=None if state is None else state.machines,
            recoveries=None if state is None else _sum(self._recoveries, state.recoveries),
        )

    def _told(self, reports: Sequence[Report]) -> tuple[Report, ...]:
        """With this computer's facts; those that are equal are one object, which is sent once."""
        facts: dict[tuple[tuple[str, Fact], ...], dict[str, Fact]] = {}
        return tuple(
            report._replace(
                facts=facts.setdefault(tuple(report.facts.items()), {**report.facts, **self._more_facts})
            )
            for report in reports
        )

    def _keep_fleet(self, order: Order) -> None:
        if self._fleet is not None:
            return
        kind = self._setup.make_kind(self._image)
        policy = replace(kind.policy, max_tries=1, max_guest_tries=1, max_host_tries=1)
        self._relay, self._n_batches = Relay(), 0
        self._fleet = Distributor(
            order.n_machines,
            machine_limit=self._setup.capacity,
            kind=replace(kind, policy=policy),
            folder=self._folder,
            reserves=self._setup.reserves,
            standby=True,
        )
        threading.Thread(target=self._watch, args=(self._fleet,), name="silence").start()

    def _watch(self, fleet: Distributor) -> None:
        """End a fleet that nobody asks about any more."""
        while self._asked.wait(self._setup.silence_s) and not fleet.closed:
            self._asked.clear()
        with self._lock:
            if self._fleet is fleet:
                _log.warning("nobody has asked for %.0f s: the machines end", self._setup.silence_s)
                self.end()

    def _add(self, fleet: Distributor, batch: Sequence[Assignment]) -> None:
        parameters = batch[0].session_parameters
        self._n_batches += 1
        self._relay.expect(self._n_batches, batch)
        fleet.add_job(Batch(batch), self._relay, *parameters)

    def _close_fleet(self) -> tuple[Report, ...]:
        fleet, self._fleet = self._fleet, None
        if fleet is None:
            return ()
        fleet.close()
        self._asked.set()
        self._recoveries = _sum(self._recoveries, fleet.get_distributor_state().recoveries)
        reports, _ = self._relay.fetch(0.0)
        return reports

    def end(self) -> None:
        """Kill what runs and release everything; again does nothing."""
        with self._lock:
            self._ended = True
            try:
                self._close_fleet()
            finally:
                if self._delivery is not None:
                    self._delivery.drop()
                if self._temporary is not None:
                    shutil.rmtree(self._temporary, ignore_errors=True)


def _sum(one: Mapping[Recovery, int], other: Mapping[Recovery, int]) -> dict[Recovery, int]:
    return {step: one.get(step, 0) + other.get(step, 0) for step in one.keys() | other.keys()}


def _cpu_model() -> str | None:
    """As the kernel names the processor; None where it does not."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine() or None
