"""Hosts without a guest: one that keeps the book of its calls and fails on demand, and one with a guest of Python behind its mailbox."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import GuestDied, MachineKilled, RunnerError
from runner.faults.recovery import Recovery
from runner.hosts.base import AbstractHost, BootKind, HostFacts, HostPhase, SshCredentials
from runner.machines.station import MachineKind
from runner.sessions.base import AbstractSession
from runner.sessions.simulation import SimulationSession
from runner.specs import Accelerator, MachinePolicy, Reach, Reset
from tests.mailbox_peer import MailboxPeer


class BenchHost(AbstractHost):
    """A host that notes its calls in `calls`; `faults[method]` is called at each of them."""

    def __init__(
        self,
        name: str = "qemu1",
        calls: list[str] | None = None,
        faults: dict[str, Callable[[BenchHost], None]] | None = None,
    ) -> None:
        self._name = name
        self._phase = HostPhase.NEW
        self._faults = faults or {}
        self.calls = [] if calls is None else calls
        self.killed = threading.Event()
        self.recovery: Recovery | None = None
        self.on_death: Callable[[GuestDied], None] = lambda error: None

    def _call(self, method: str, phase: HostPhase) -> None:
        self.calls.append(method)
        if method in self._faults:
            self._faults[method](self)
        if self.killed.is_set() and method != "stop":
            raise MachineKilled(f"host {self._name} was killed")
        self._phase = phase

    @property
    def name(self) -> str:
        return self._name

    @property
    def phase(self) -> HostPhase:
        return self._phase

    @property
    def facts(self) -> HostFacts:
        return HostFacts(
            name=self._name,
            arch="arm64",
            accel=Accelerator.TCG,
            cpu_mips=125.0,
            icount_shift=3,
            vcpus=1,
            memory_mib=128,
            qemu_version="7.2.22",
            image_digest="0123",
            kernel_release="6.1.0-rt",
            boot=BootKind.SNAPSHOT,
            start_s=0.1,
        )

    @property
    def ssh_address(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    @property
    def credentials(self) -> SshCredentials:
        return SshCredentials("root", Path("key"), "ssh-ed25519 AAAA")

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        self.recovery = recovery
        self._call("start", HostPhase.PAUSED)

    def pause(self) -> None:
        self._call("pause", HostPhase.PAUSED)

    def resume(self) -> None:
        self._call("resume", HostPhase.RUNNING)

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        self.on_death = on_death

    def stop(self) -> None:
        self._call("stop", HostPhase.STOPPED)

    def kill(self) -> None:
        self.killed.set()


class PeerHost(BenchHost):
    """A host whose guest is a `MailboxPeer`.

    Attributes:
        peer: The guest.
        damage: What happens to the memory after each answer.
    """

    def __init__(self, damage: Callable[[mmap.mmap], None] = lambda region: None) -> None:
        super().__init__()
        self._region = mmap.mmap(-1, 1 << 20)
        self.damage = damage
        self.peer = MailboxPeer(self._region)
        self.peer.hello()

    @property
    def mailbox(self) -> mmap.mmap:
        return self._region

    def run_until_bell(self, deadline: Deadline) -> None:
        self._call("run_until_bell", HostPhase.PAUSED)
        self.peer.answer()
        self.damage(self._region)

    def evidence(self) -> str:
        return "the console's last words"


class BoxedSimulation(SimulationSession):
    """Says that it talks through a mailbox, so that nobody but itself may let the guest run."""

    reach = Reach.MAILBOX


class Benches:
    """The hosts of one test."""

    def __init__(self, **faults: Callable[[BenchHost], None]) -> None:
        self.hosts: list[BenchHost] = []
        self.calls: list[str] = []
        self._faults = faults

    def kind(
        self,
        policy: MachinePolicy | None = None,
        realtime_factor: float | None = None,
        *,
        session: type[SimulationSession] = SimulationSession,
        reset: Reset = Reset.MACHINE,
    ) -> MachineKind:
        """Machines with such hosts; whatever is measured there is computed."""

        def open_session(host: AbstractHost | None) -> AbstractSession:
            return session(realtime_factor=realtime_factor)

        return MachineKind(
            open_host=self.open_host, open_session=open_session, policy=policy or MachinePolicy(), reset=reset
        )

    def open_host(self, name: str, folder: Path) -> AbstractHost:
        """Another one."""
        self.hosts.append(BenchHost(name, self.calls, self._faults))
        return self.hosts[-1]

    def check_all_stopped(self) -> None:
        """Each exactly once."""
        assert [host.phase for host in self.hosts] == [HostPhase.STOPPED] * len(self.hosts)
        assert self.calls.count("stop") == len(self.hosts)


def fault(error: Callable[[], RunnerError], *numbers: int) -> Callable[[BenchHost], None]:
    """Raise at the calls with these numbers, counted over all hosts; at every call if there are none."""
    count = iter(range(1, 1_000_000))

    def fail(bench: BenchHost) -> None:
        number = next(count)
        if not numbers or number in numbers:
            raise error()

    return fail
