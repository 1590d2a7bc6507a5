"""The sessions of the product, which tell the rehearsal before and after they hand a task set over, and do what it answers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

from runner.deadline import Deadline
from runner.errors import Fault, GuestDied, RunnerError, SessionLost
from runner.events import Event
from runner.hosts.base import AbstractHost
from runner.model import TaskSet
from runner.rehearsal.link import ask
from runner.rehearsal.qmp_sockets import shut_monitors
from runner.rehearsal.tampered_host import GARBAGE, TORN, TamperedHost
from runner.sessions.mailbox import MailboxSession
from runner.sessions.simulation import SimulationSession
from runner.sessions.ssh import TASK_LOADER, SshSession
from runner.task_loader import wire

#: Answers after a set was handed over: of QEMU's monitors, and, where there is no guest, of what a guest would have done.
SHUT_QMP = "shut_qmp"
KILLED, PANIC, LOADER_GONE, HANG, RESET = "killed", "panic", "loader_gone", "hang", "reset"


class RehearsedSimulation(SimulationSession):
    """The simulation, in which what happens to guests can happen as well: it raises what a session to one would raise.

    Args:
        link: Where the rehearsal listens.
        realtime_factor: As that of the simulation.
    """

    #: What it computes, it computes as the simulation does.
    ideal: ClassVar[bool] = True

    def __init__(self, *, link: str, realtime_factor: float | None = None) -> None:
        super().__init__(realtime_factor=realtime_factor)
        self._link = link
        self._answer = ""
        self._aborted = threading.Event()

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """As the simulation's, between two questions to the rehearsal."""
        ask(self._link, "next", taskset_id=taskset.taskset_id)
        super().start(taskset, deadline)
        self._answer = ask(self._link, "start", taskset_id=taskset.taskset_id, end_ns=taskset.end_ns)

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """As the simulation's; what is to go wrong goes wrong after the first of them."""
        word, _, seed = self._answer.partition(" ")
        self._answer = ""
        for event in super().events(deadline):
            yield event
            if word:
                self._fail(word, random.Random(seed), deadline)  # noqa: S311 - to be repeated, not to be secret

    def abort(self, error: RunnerError) -> None:
        """As the simulation's; also ends a hang."""
        super().abort(error)
        self._aborted.set()

    def _fail(self, word: str, rng: random.Random, deadline: Deadline) -> None:
        """Raise what a session to a guest would raise."""
        if word == HANG:
            self._aborted.wait(deadline.remaining_s)
            self._check_phase("events")
            raise SessionLost(f"rehearsal: no answer within {deadline.budget_s:g} s")
        if word in (GARBAGE, TORN):
            # As somebody who writes nonsense, and as somebody who is cut short, would have the decoder raise.
            noise = rng.randbytes(40).decode("latin-1").replace("\n", "")
            wire.decode(noise if word == GARBAGE else "job 0 0 10")
        raise _ERRORS[word]()


_ERRORS: Mapping[str, Callable[[], RunnerError]] = MappingProxyType(
    {
        KILLED: lambda: GuestDied("rehearsal: the emulator was killed by SIGKILL", fault=Fault.HOST),
        PANIC: lambda: GuestDied("rehearsal: the guest's kernel panicked", fault=Fault.TASKSET),
        LOADER_GONE: lambda: GuestDied("rehearsal: the guest's task loader ended", fault=Fault.TASKSET),
        RESET: lambda: SessionLost("rehearsal: the connection was reset"),
    }
)


class RehearsedMailbox(MailboxSession):
    """The session through the mailbox, on a host that can be tampered with.

    Args:
        host: The true one.
        link: Where the rehearsal listens.
    """

    def __init__(self, host: AbstractHost, *, link: str) -> None:
        super().__init__(TamperedHost(host, link))
        self._pid = host.pid
        self._name = host.name
        self._link = link

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """As the true one's, between two questions to the rehearsal: at the second the set is in the mailbox, and the guest stands."""
        ask(self._link, "next", **self._told(taskset))
        super().start(taskset, deadline)
        _obey(ask(self._link, "start", **self._told(taskset)))

    def _told(self, taskset: TaskSet) -> dict[str, object]:
        return _facts(self._name, self._pid, taskset)


class RehearsedSsh(SshSession):
    """The session over SSH, through a relay of the rehearsal's.

    Args:
        host: The true one.
        link: Where the rehearsal listens.
        command: As that of the true one.
    """

    def __init__(self, host: AbstractHost, *, link: str, command: str = TASK_LOADER) -> None:
        super().__init__(TamperedHost(host, link), command=command)
        self._pid = host.pid
        self._name = host.name
        self._link = link

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """As the true one's, between two questions to the rehearsal: at the second the set runs."""
        ask(self._link, "next", **self._told(taskset))
        super().start(taskset, deadline)
        _obey(ask(self._link, "start", **self._told(taskset)))

    def _told(self, taskset: TaskSet) -> dict[str, object]:
        return _facts(self._name, self._pid, taskset)


def _facts(machine: str, host_pid: int | None, taskset: TaskSet) -> dict[str, object]:
    return {
        "machine": machine,
        "host_pid": host_pid,
        "taskset_id": taskset.taskset_id,
        "end_ns": taskset.end_ns,
    }


def _obey(answer: str) -> None:
    if answer == SHUT_QMP:
        shut_monitors()
