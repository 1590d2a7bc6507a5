"""What a run is made of, frozen: the config's values after every check, and the only form that lower layers see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

#: QEMU's instruction counter gives an instruction a power of two of nanoseconds, at least one.
FASTEST_MIPS = 1000.0
CPU_MIPS = tuple(FASTEST_MIPS / (1 << shift) for shift in range(11))


class Clock(StrEnum):
    """Where a guest's time comes from."""

    #: QEMU's instruction counter: times do not depend on the host's load; one virtual CPU, TCG.
    ICOUNT = "icount"
    #: The host's clock: KVM where a booted probe proves it, else TCG.
    HOST = "host"


class Reach(StrEnum):
    """What the runner uses to talk to a guest while task sets run."""

    #: Shared memory, while the guest stands still: nothing that the host times reaches it while it runs.
    MAILBOX = "mailbox"
    #: Its network: the host's timing decides when packets arrive.
    SSH = "ssh"
    #: Its network too, in the words of Genode's task loader.
    GENODE = "genode"


class Reset(StrEnum):
    """When a machine goes back to its booted snapshot."""

    #: Before each task set: what it measures depends on the task set alone.
    TASKSET = "taskset"
    #: When the machine starts: what it measures also depends on the task sets before.
    MACHINE = "machine"


class Console(StrEnum):
    """How a machine's console can be attached to while it runs."""

    #: By `python -m runner.console`.
    PTY = "pty"
    #: Also by GNU screen, in a session with the machine's name.
    SCREEN = "screen"


class Accelerator(StrEnum):
    """How QEMU executes guest code."""

    KVM = "kvm"
    TCG = "tcg"
    #: Nothing: a real processor.
    NONE = "none"


class NetworkKind(StrEnum):
    """What a guest's network card is connected to."""

    #: A network of its own, within QEMU: nothing but forwarded ports leads in, nothing out.
    USER = "user"
    #: A bridge of this computer, made by `python -m host_setup network`; the guest gets its address by DHCP.
    BRIDGE = "bridge"


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The machines' network; what follows from it for each machine: `runner.network`.

    Attributes:
        kind: What the machines are connected to; all else is for the bridge.
        bridge: Its name.
        address: Its own address with the network's prefix.
        first_host: Address of machine 1; machine N has the one N - 1 further.
        mac_prefix: The first five bytes of the cards' addresses; the sixth is the machine's number.
        tap_prefix: Of the taps' names, which end in the machine's number.
        interface: A physical interface that is added to the bridge; None: none.
    """

    kind: NetworkKind = NetworkKind.USER
    bridge: str = "br0"
    address: str = "10.200.40.1/21"
    first_host: str = "10.200.45.1"
    mac_prefix: str = "0a:06:00:00:00"
    tap_prefix: str = "rtfleet"
    interface: str | None = None


@dataclass(frozen=True, kw_only=True)
class QemuSpec:
    """Everything that decides how a guest is built and booted; equal specs share a booted snapshot.

    Attributes:
        arch: A row of `runner.qemu.architectures.ARCHITECTURES`: `arm64`, `amd64`.
        clock: Where the guest's time comes from.
        cpu_mips: With `Clock.ICOUNT`, the processor's speed in million instructions per second: 1000, 500, 250, 125, 62.5 …
        vcpus: Virtual CPUs; exactly one with `Clock.ICOUNT`.
        memory_mib: The guest's RAM.
        reach: What the session talks through.
        mailbox_mib: With `Reach.MAILBOX`, room for a task set's files and jobs (56 bytes a job); a power of two. Only
            what is used takes memory.
        image: Folder of a built guest image; None takes the current one of `arch`.
        qemu_binary: QEMU to use instead of the architecture's; a name on the PATH or a path.
        ssh_port: First loopback port to forward to the guests' SSH (machine N takes `ssh_port + N - 1`); None takes free
            ones or, with a mailbox, gives the guest no network at all.
        genode_port: First loopback port to forward to a task loader in the guests that speaks the Genode protocol (machine N
            takes `genode_port + N - 1`); None takes free ones with `Reach.GENODE`, and else the guests have none. Not with a
            mailbox. On a bridge nothing is forwarded, and only 3001 is possible.
        snapshot: Start from a booted snapshot, made once and kept; False boots cold each time.
        boot_timeout_s: How long a cold boot may take until the guest reports ready.
        start_timeout_s: How long a start from a snapshot may take.
        network: What its card is connected to. On a bridge it always boots cold: in a snapshot every machine would have the
            same card and address.
    """

    arch: str = "arm64"
    clock: Clock = Clock.ICOUNT
    cpu_mips: float = 125.0
    vcpus: int = 1
    memory_mib: int = 128
    reach: Reach = Reach.MAILBOX
    mailbox_mib: int = 128
    image: Path | None = None
    qemu_binary: str | None = None
    ssh_port: int | None = None
    genode_port: int | None = None
    snapshot: bool = True
    boot_timeout_s: float = 120.0
    start_timeout_s: float = 30.0
    network: NetworkSpec = NetworkSpec()

    @property
    def bridged(self) -> bool:
        """Whether others can send it packets."""
        return self.network.kind is NetworkKind.BRIDGE

    @property
    def icount_shift(self) -> int:
        """QEMU's form of the speed: one guest instruction takes 2**icount_shift ns."""
        return round(math.log2(FASTEST_MIPS / self.cpu_mips))

    @property
    def serves_genode(self) -> bool:
        """Whether its task loader speaks Genode's protocol as well."""
        return self.reach is Reach.GENODE or self.genode_port is not None

    @property
    def exact(self) -> bool:
        """Whether nothing but the guest's own past decides what it does: neither the host's clock nor its network."""
        return self.clock is Clock.ICOUNT and self.reach is Reach.MAILBOX and not self.bridged


@dataclass(frozen=True, kw_only=True)
class GenodeSpec:
    """A guest that boots the user's `image.elf` on QEMU's realview-pbx-a9.

    Attributes:
        image: The file.
        clock: Where the guest's time comes from.
        cpu_mips: As in `QemuSpec`.
        vcpus: Processors; exactly one with `Clock.ICOUNT`.
        memory_mib: RAM; the board has 1024 MiB at most.
        qemu_binary: QEMU to use; a name on the PATH or a path.
        network: Where its card is.
    """

    image: Path
    clock: Clock = Clock.HOST
    cpu_mips: float = 125.0
    vcpus: int = 4
    memory_mib: int = 1024
    qemu_binary: str = "qemu-system-arm"
    network: NetworkSpec = NetworkSpec()

    @property
    def bridged(self) -> bool:
        """Whether it is on a bridge of this computer's."""
        return self.network.kind is NetworkKind.BRIDGE

    @property
    def icount_shift(self) -> int:
        """As in `QemuSpec`."""
        return round(math.log2(FASTEST_MIPS / self.cpu_mips))


@dataclass(frozen=True, kw_only=True)
class BoardSpec:
    """Boards, one per machine.

    Attributes:
        addresses: Host names or addresses, of machine 1 first, each with `:port` where that is not 3001.
        power: The words of a command that switches a board off and on again, with `{address}` for the board's; empty: boards are
            asked to reboot themselves.
        power_timeout_s: How long that may take.
        vcpus: Processors of each; None where nobody says.
    """

    addresses: tuple[str, ...]
    power: tuple[str, ...] = ()
    power_timeout_s: float = 30.0
    vcpus: int | None = None


class TryBounds(TypedDict):
    """How often a task set may be tried, by the kind of failure; as a queue of task sets takes it."""

    max_tries: int
    max_guest_tries: int
    max_host_tries: int


@dataclass(frozen=True, kw_only=True)
class MachinePolicy:
    """How patient a machine is.

    Attributes:
        max_tries: Attempts at a task set that ruins its guests before it is given up as bad.
        max_guest_tries: The same for attempts that failed because the guest, its emulator or the line to it did.
        max_host_tries: The same for attempts that this computer broke: it was short of something, or somebody ended QEMU. Before
            each it waits longer.
        max_failures: Failures of a machine in a row, of starts or of attempts, after which it is put aside.
        aside_s: For how long the first time; each time after that, without a success in between, twice as long.
        aside_max_s: But never longer.
        max_asides: How often in a row all machines may be put aside before the run ends; thrice at most before the first success.
        start_timeout_s: For bringing a host up, a first boot for the snapshot included.
        request_timeout_s: For opening the session, and for a task set to be accepted.
        taskset_timeout_s: Real time that a task set may take, beyond the next line.
        taskset_timeout_factor: Real seconds granted per second of the task set's own time.
    """

    max_tries: int = 3
    max_guest_tries: int = 5
    max_host_tries: int = 10
    max_failures: int = 3
    aside_s: float = 5.0
    aside_max_s: float = 300.0
    max_asides: int = 8
    start_timeout_s: float = 180.0
    request_timeout_s: float = 30.0
    taskset_timeout_s: float = 60.0
    taskset_timeout_factor: float = 20.0

    @property
    def tries(self) -> TryBounds:
        """The bounds for attempts."""
        return {
            "max_tries": self.max_tries,
            "max_guest_tries": self.max_guest_tries,
            "max_host_tries": self.max_host_tries,
        }
