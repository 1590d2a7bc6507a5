"""The workers of a Dask cluster: found, equipped with an agent each, and let go. The home of `distributed`."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from runner.cluster.agent import Agent, Setup
from runner.cluster.crew import Crew
from runner.cluster.delivery import send
from runner.cluster.link import WorkerLost
from runner.cluster.messages import Order, Reply
from runner.cluster.shares import Seat
from runner.deadline import Deadline
from runner.errors import HostError, RunnerError, UsageError
from runner.qemu.image import GuestImage

#: How often is looked who is there.
LOOK_S = 0.5
#: A worker that answers nothing for so long is lost, unless told otherwise. A fleet may take a minute to end.
ANSWER_S = 90.0
#: For each step of the end.
END_S = 20.0
#: The Dask resource by which a worker says how many machines it can hold: `dask worker … --resources "guests=4"`.
RESOURCE = "guests"
# Of Dask's own: what it looks at many times a second is of no use here, where a worker has one task, which never ends. This goes with
# the processes that Dask starts, to other computers, too: no folder of ours may be in it, nor that they log less, as Dask waits for it.
_OPTIONS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
_log = logging.getLogger("runner.cluster")


@dataclass
class _Member:
    address: str
    seat: Seat
    client: Any
    answer_s: float
    # Kept: the agent lives as long as somebody holds this.
    future: Any = None
    actor: Any = None
    gone: bool = False

    def exchange(self, order: Order) -> Reply:
        """One round to the worker and back.

        Raises:
            WorkerLost: it is gone, or does not answer.
        """
        return self.call("exchange", self.answer_s, order)  # type: ignore[no-any-return]

    def call(self, method: str, timeout_s: float, *arguments: object) -> Any:  # noqa: ANN401 - what the agent's method returns
        deadline = Deadline.after(timeout_s)
        try:
            with self.client.as_current():
                answer = getattr(self.actor, method)(*arguments)
            while not self.gone and not deadline.passed:
                try:
                    return answer.result(timeout=min(LOOK_S, deadline.remaining_s or LOOK_S))
                except TimeoutError:
                    continue
        except RunnerError:
            raise
        except Exception as exc:
            raise WorkerLost(f"worker {self.seat.worker} is lost: {type(exc).__name__}: {exc}") from exc
        why = "has left" if self.gone else f"has not answered for {timeout_s:.0f} s"
        raise WorkerLost(f"worker {self.seat.worker} {why}", where=self.seat.computer)


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What every worker gets.

    Attributes:
        setup: Makes what a worker is told, from its name and its capacity.
        guests_per_worker: Machines that a worker can hold that declares nothing; None: as many as its computer.
        image: The image that guests boot; None: none of ours.
        answer_s: One that answers nothing for so long is lost.
    """

    setup: Callable[[str, int | None], Setup]
    guests_per_worker: int | None = None
    image: GuestImage | None = None
    answer_s: float = ANSWER_S


@contextmanager
def pool(
    make_cluster: Callable[[], object], crew: Crew, equipment: Equipment, folder: Path
) -> Iterator[None]:
    """Make or reach a cluster, and bring its workers into the crew as long as the block lasts.

    Guarantees: afterwards no agent, connection, process or file of the cluster is left, if the cluster was made here; each step of
    the end is bounded, and processes that do not end by themselves are ended by force.

    Args:
        make_cluster: Makes any of Dask's clusters, or returns the address of a scheduler.
        folder: Of what Dask keeps on this computer meanwhile, if it was told so; removed at the end.

    Raises:
        UsageError: Dask is not installed.
        HostError: the cluster cannot be made or reached.
    """
    try:
        import dask  # late import: an extra
        import distributed  # late import: an extra
    except ImportError as exc:
        raise missing(exc) from exc
    before = set(multiprocessing.active_children())
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_end_processes, before)
        stack.enter_context(dask.config.set(_OPTIONS))
        # What is logged here is about connections that end, which is said in one line each.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        with _without_interrupts():
            try:
                cluster = make_cluster()
                close = getattr(cluster, "close", None)
                if close is not None:
                    stack.callback(_quietly, close, timeout=END_S)
                connect: Any = distributed.Client
                client = connect(cluster, set_as_default=False, timeout=END_S)
            except RunnerError:
                raise
            except Exception as exc:
                raise HostError(
                    f"the cluster cannot be had: {type(exc).__name__}: {exc}",
                    where="machines.cluster.dask",
                    next_step="check the address and the arguments beside _target_",
                ) from exc
        stack.callback(_quietly, client.close, timeout=END_S)
        members = _Members(client, crew, equipment)
        stack.callback(members.close)
        members.open()
        yield


def missing(exc: ImportError) -> UsageError:
    """The error for an extra that is not installed."""
    extra = "slurm" if exc.name and "jobqueue" in exc.name else "cluster"
    return UsageError(
        f"a fleet over many computers needs a package that is not installed: {exc.name}",
        where="machines.cluster",
        next_step=f"pip install 'rtfleet[{extra}]', on every computer; or machines/cluster=none",
    )


class _Members(threading.Thread):
    """Looks who is there, equips who is new, and notes who has gone."""

    def __init__(self, client: Any, crew: Crew, equipment: Equipment) -> None:  # noqa: ANN401 - a library without types
        super().__init__(name="members")
        self._client = client
        self._crew = crew
        self._equipment = equipment
        self._ended = threading.Event()
        self._members: dict[str, _Member] = {}

    def open(self) -> None:
        """Begin."""
        self.start()

    def close(self) -> None:
        """Stop looking, and end every agent."""
        self._ended.set()
        self.join()
        for member in self._members.values():
            if member.actor is not None and not member.gone:
                _quietly(member.call, "end", END_S)
            member.actor = member.future = None

    def run(self) -> None:
        """The thread; `open()` starts it."""
        while True:
            try:
                self._look()
            except Exception as exc:  # noqa: BLE001 - the thread's top: a scheduler that is busy is asked again
                _log.debug("the scheduler did not say who is there: %r", exc)
            if self._ended.wait(LOOK_S):
                return

    def _look(self) -> None:
        # Asked for directly: what the client keeps of it is overwritten, without any worker, every other second.
        workers = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        for address, member in list(self._members.items()):
            if address not in workers:
                member.gone = True
                del self._members[address]
        for address, facts in workers.items():
            if address not in self._members and not self._ended.is_set():
                self._members[address] = member = self._member(address, facts)
                try:
                    self._equip(member)
                except Exception as exc:  # noqa: BLE001 - one computer's trouble is not the others'
                    _log.warning("worker %s cannot be used: %r", member.seat.worker, exc)
                else:
                    self._crew.joined(member.seat, member.exchange)

    def _member(self, address: str, facts: Any) -> _Member:  # noqa: ANN401 - a library without types
        declared = facts.get("resources", {}).get(RESOURCE)
        capacity = self._equipment.guests_per_worker if declared is None else int(declared)
        # A worker that was restarted has its predecessor's name, and another port.
        port = address.rpartition(":")[2]
        given = facts["host"] if facts["name"] == address else facts["name"]
        name = "".join(char if char.isalnum() or char in ".-" else "_" for char in f"{given}-{port}")
        seat = Seat(worker=name, computer=facts["host"], capacity=capacity)
        return _Member(address, seat, self._client, self._equipment.answer_s)

    def _equip(self, member: _Member) -> None:
        setup = self._equipment.setup(member.seat.worker, member.seat.capacity)
        member.future = self._client.submit(
            Agent, setup, actor=True, workers=[member.address], allow_other_workers=False, pure=False
        )
        member.actor = member.future.result(timeout=END_S)
        image = self._equipment.image
        if image is not None and member.call("lacks_image", END_S):
            begun_s = time.monotonic()
            digests = send(image, partial(member.call, "take_image", ANSWER_S))
            member.call("finish_image", ANSWER_S, digests)
            _log.info(
                "worker %s has the image now, after %.1f s", member.seat.worker, time.monotonic() - begun_s
            )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Threads and processes that begin here take no Ctrl-C: the run tells them itself when to end."""
    resource_tracker.ensure_running()  # which would let Ctrl-C through again in the thread that first needs it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quietly(do: Callable[..., object], *arguments: object, **more: object) -> None:
    """What goes wrong at the end is no reason to leave the rest as it is."""
    try:
        do(*arguments, **more)
    except Exception as exc:  # noqa: BLE001 - see above
        _log.debug("at the end of the cluster: %r", exc)


def _end_processes(before: set[Any]) -> None:
    """End by force what the cluster has left."""
    for process in set(multiprocessing.active_children()) - before:
        process.join(1.0)
        for end in (process.terminate, process.kill):
            if process.is_alive():
                end()
                process.join(END_S / 4)


def running_scheduler(address: str) -> str:
    """A cluster that runs already: the address of its scheduler, `tcp://HOST:8786`.

    Raises:
        UsageError: there is no address.
    """
    if "://" not in str(address):
        raise UsageError(f"address is {address!r}", next_step="name the scheduler: tcp://HOST:8786")
    return address
