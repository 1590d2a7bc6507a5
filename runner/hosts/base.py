"""What a machine spawns: a guest that can be paused and reached over SSH, whatever it runs on."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.deadline import Deadline
from runner.errors import GuestDied, UsageError
from runner.faults.recovery import Recovery
from runner.specs import Accelerator


class HostPhase(Enum):
    """Where a host is in its life; it only ever moves downwards here, but for PAUSED and RUNNING."""

    #: Nothing was opened yet: `start()` is next.
    NEW = "new"
    #: `start()` is at work.
    STARTING = "starting"
    #: The guest is ready and stands still, at no cost.
    PAUSED = "paused"
    #: The guest runs.
    RUNNING = "running"
    #: The guest ended by itself, or `kill()` ended it; `stop()` releases what is left.
    DEAD = "dead"
    #: Everything is released.
    STOPPED = "stopped"


class BootKind(StrEnum):
    """How a guest got ready."""

    COLD = "cold"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What a measurement has to say about the host that it ran on; columns of the `runs` table.

    Attributes:
        name: The host's name: `qemu1`.
        arch: The guest's architecture, by Debian's name.
        accel: What executed the guest's code.
        cpu_mips: Speed of the guest's processor in million instructions per second; None where the host's clock ruled.
        icount_shift: The same in QEMU's form: one guest instruction took 2**icount_shift ns.
        vcpus: Virtual CPUs.
        memory_mib: The guest's RAM.
        qemu_version: `7.2.22 (Debian 1:7.2+dfsg-7)`.
        image_digest: Digest of the guest image.
        kernel_release: What `uname -r` says in the guest.
        boot: Cold, or from a snapshot.
        start_s: Seconds of wall-clock time that `start()` took.
    """

    name: str
    arch: str
    accel: Accelerator
    cpu_mips: float | None
    icount_shift: int | None
    vcpus: int
    memory_mib: int
    qemu_version: str
    image_digest: str
    kernel_release: str
    boot: BootKind
    start_s: float


@dataclass(frozen=True)
class SshCredentials:
    """What it takes to log in, and to know that it is the right guest.

    Attributes:
        user: The account to log in to.
        client_key: The private key's file.
        host_key: The one public key that the guest may show: `ssh-ed25519 AAAA…`.
    """

    user: str
    client_key: Path
    host_key: str


class AbstractHost(ABC):
    """One guest: started once, paused and resumed at will, stopped once; never started again.

    Guarantees: after `stop()` nothing of the guest is left on this computer, whatever happened before. After
    `kill()` or the guest's death, every call but `stop()` and `kill()` raises the reason.
    Threads: one thread, the owner, calls `start`, `pause`, `resume` and `stop`; `kill` and the properties are
    for any thread, at any time.

    Wrong order of calls is the caller's bug: `UsageError`, naming the host, the method, the phase and what to do.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The host's name, unique among those that run: `qemu1`."""

    @property
    @abstractmethod
    def phase(self) -> HostPhase:
        """Where the host is in its life right now."""

    @property
    @abstractmethod
    def facts(self) -> HostFacts:
        """What is known since `start()` returned; stays readable when the guest is gone.

        Raises:
            UsageError: before that.
        """

    @property
    @abstractmethod
    def ssh_address(self) -> tuple[str, int]:
        """Address and port at which the guest's SSH server can be reached while it runs.

        Raises:
            UsageError: before `start()` returned.
        """

    @property
    def address(self) -> tuple[str, int]:
        """Address and port of the guest's task loader, where it listens to TCP; it may take a while until it does.

        Raises:
            UsageError: it does not, or `start()` has not returned.
        """
        raise UsageError(f"host {self.name} has no task loader on TCP", next_step="choose a Genode host")

    @property
    @abstractmethod
    def credentials(self) -> SshCredentials:
        """How to log in at `ssh_address`; known from the beginning."""

    @abstractmethod
    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        """Bring the guest up until it reports ready, and leave it paused.

        Args:
            recovery: What is not to be trusted: with `COLD_BOOT` a booted snapshot, with `PROCESS` also whatever else is kept ready
                to start from. The guest is the same either way.

        On any error everything that was opened is released before the error leaves.

        Raises:
            UsageError: the specification contradicts itself.
            HostError: this computer cannot run it; says why and what to do.
            BootFailed: the guest did not get ready before the deadline, or died on the way.
            MachineKilled: `kill()` was called meanwhile.
        """

    @abstractmethod
    def pause(self) -> None:
        """Let the guest's time stand still; nothing happens if it does already.

        Raises:
            GuestDied: it is gone.
            MachineKilled: `kill()` was called.
        """

    @abstractmethod
    def resume(self) -> None:
        """Let the guest run on; nothing happens if it does already.

        Raises:
            GuestDied: it is gone.
            MachineKilled: `kill()` was called.
        """

    @property
    def mailbox(self) -> mmap.mmap:
        """The memory that is shared with the guest; to be read and written only while the guest is paused.

        Raises:
            UsageError: before `start()` returned, or where the guest has none.
        """
        raise UsageError(f"host {self.name} has no mailbox", next_step="use a session that does without")

    def run_until_bell(self, deadline: Deadline) -> None:
        """Let a paused guest run until it rings its bell; it is paused again then, from that instruction on.

        Raises:
            GuestDied: it ended, or its own watchdog found it hanging: that one counts in guest time.
            SessionLost: the deadline passed; the guest may still be running.
            MachineKilled: `kill()` was called.
            UsageError: the guest has no mailbox.
        """
        raise UsageError(f"host {self.name} has no bell", next_step="use a session that does without")

    def evidence(self) -> str:
        """The last words of the guest that runs now, and of what emulates it; may be empty."""
        return ""

    @property
    def pid(self) -> int | None:
        """The process whose scheduling on this computer decides how fast the guest runs, if it is one of this computer."""
        return None

    @abstractmethod
    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        """Have `on_death` called when the guest ends, panics or is reset without `stop()` or `kill()`.

        It is called once at most, from a thread of the host, and at once if the guest died since `start()`.
        It must return quickly and may call `kill()`, but not `stop()`. One watcher: a second call replaces the first.
        A guest that hangs does not die: the callers' deadlines find that.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the guest and release everything, gracefully if it can be, in bounded time; again does nothing.

        Raises:
            HostError: the guest could not be ended even by force.
        """

    @abstractmethod
    def kill(self) -> None:
        """End the guest at once; callable from any thread, also during `start()`, which then raises MachineKilled.

        Returns without waiting. The owner still calls `stop()`.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
