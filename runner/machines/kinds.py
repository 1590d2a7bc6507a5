"""The kinds of machine that there are: a host, the session that goes with it, and what its measurements are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from runner.admission.capacity import MIB, Needs
from runner.disturbance import DisturbanceLimits
from runner.errors import UsageError
from runner.events import Validity
from runner.hosts.base import AbstractHost
from runner.hosts.board import BoardHost
from runner.machines.station import Fact, MachineKind
from runner.operator.screen import ScreenSession
from runner.qemu.genode_host import GenodeHost
from runner.qemu.host import QemuHost
from runner.qemu.settings import measurement_settings
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.sessions.simulation import SimulationSession
from runner.sessions.ssh import SshSession
from runner.simulator import SIMULATOR_VERSION
from runner.specs import BoardSpec, Clock, GenodeSpec, MachinePolicy, QemuSpec, Reach, Reset

# QEMU itself beside its guest's memory. Measured: 20 MiB with what the guest has touched of that, whatever the workload.
_EMULATOR_MIB = 32
# A guest that stands still beside the one that runs, with its QEMU: the next one, made ready. Measured: 20 MiB.
_NEXT_MIB = 24
# Of a guest: monitor, process, mailbox, logs. Measured: 8.5 for each further machine, 14 where it has the next guest ready.
_DESCRIPTORS = 10

# Measured: screen 3 MiB, and 13 MiB for what follows the console in it.
_SCREEN_MIB = 16
# While it is started.
_SCREEN_DESCRIPTORS = 2

OpenSession = Callable[[AbstractHost | None], AbstractSession]


def qemu(
    spec: QemuSpec,
    open_session: OpenSession,
    *,
    policy: MachinePolicy | None = None,
    reset: Reset = Reset.TASKSET,
    limits: DisturbanceLimits | None = None,
) -> MachineKind:
    """QEMU guests on this computer.

    Args:
        spec: `spec.reach` must be that of the session.
        limits: Under the host's clock, what a measurement may suffer before it is repeated.
    """

    def open_host(name: str, folder: Path) -> AbstractHost:
        return QemuHost(spec, name=name, folder=folder)

    @cache
    def settings() -> Mapping[str, Fact]:
        return {**measurement_settings(spec), "reset": reset.value}

    return MachineKind(
        open_host=open_host,
        open_session=open_session,
        policy=policy or MachinePolicy(),
        reset=reset,
        validity=Validity.EXACT if spec.exact else None,
        limits=(limits or DisturbanceLimits()) if spec.clock is Clock.HOST else None,
        settings=settings if spec.exact else None,
        needs=needs_of(spec, reset),
    )


def needs_of(spec: QemuSpec, reset: Reset) -> Needs:
    """What a machine with such guests may take.

    Most guests touch 12 MiB, but one that runs may touch all the memory that it was promised, and fill its mailbox: a machine
    counts with that, and with what QEMU takes itself. Of its two guests with `reset: taskset` only one runs at a time.
    """
    mailbox_mib = spec.mailbox_mib if spec.reach is Reach.MAILBOX else 0
    next_mib = _NEXT_MIB if reset is Reset.TASKSET else 0
    return Needs(
        memory_bytes=(spec.memory_mib + mailbox_mib + _EMULATOR_MIB + next_mib) * MIB,
        descriptors=_DESCRIPTORS * (2 if reset is Reset.TASKSET else 1),
        first_port=spec.ssh_port,
    )


def genode(
    spec: GenodeSpec,
    open_session: OpenSession,
    *,
    policy: MachinePolicy | None = None,
    reset: Reset = Reset.MACHINE,
) -> MachineKind:
    """QEMU guests that boot the user's Genode image. Nothing that is measured there repeats: packets arrive when they do."""

    def open_host(name: str, folder: Path) -> AbstractHost:
        return GenodeHost(spec, name=name, folder=folder)

    n_guests = 2 if reset is Reset.TASKSET else 1
    return MachineKind(
        open_host=open_host,
        open_session=open_session,
        policy=policy or MachinePolicy(),
        reset=reset,
        needs=Needs(
            memory_bytes=(spec.memory_mib + _EMULATOR_MIB) * n_guests * MIB,
            descriptors=_DESCRIPTORS * n_guests,
        ),
    )


def boards(
    spec: BoardSpec,
    open_session: OpenSession,
    *,
    policy: MachinePolicy | None = None,
    reset: Reset = Reset.MACHINE,
) -> MachineKind:
    """Boards on the network.

    Raises:
        UsageError: each task set was to have a fresh host, made ready while the last one runs: a machine has but one board.
    """
    if reset is Reset.TASKSET:
        raise UsageError(
            "machines.reset=taskset needs a second host beside the one that runs, and a machine has one board",
            where="machines.reset",
            next_step="set machines.reset=machine",
        )
    used: set[str] = set()

    def open_host(name: str, folder: Path) -> AbstractHost:
        fresh = name not in used
        used.add(name)
        return BoardHost(spec, name, folder, fresh=fresh)

    return MachineKind(
        open_host=open_host, open_session=open_session, policy=policy or MachinePolicy(), reset=reset
    )


def qemu_by_mailbox(
    spec: QemuSpec | None = None, policy: MachinePolicy | None = None, *, reset: Reset = Reset.TASKSET
) -> MachineKind:
    """QEMU guests that are asked through shared memory: the default, and exact."""
    return _qemu(spec, MailboxSession, policy, reset)


def qemu_over_ssh(
    spec: QemuSpec | None = None, policy: MachinePolicy | None = None, *, reset: Reset = Reset.MACHINE
) -> MachineKind:
    """QEMU guests that are reached over SSH: for the host's clock, several CPUs, and diagnosis."""
    return _qemu(spec, SshSession, policy, reset)


def with_screens(kind: MachineKind) -> MachineKind:
    """The same machines, each with its console in a detached screen session that has its name: `screen -xr qemu1`."""
    needs = replace(
        kind.needs,
        memory_bytes=kind.needs.memory_bytes + _SCREEN_MIB * MIB,
        descriptors=kind.needs.descriptors + _SCREEN_DESCRIPTORS,
    )
    return replace(kind, open_console=ScreenSession, needs=needs)


def simulated(*, realtime_factor: float | None = None, policy: MachinePolicy | None = None) -> MachineKind:
    """No guest at all: the ideal scheduler, computed."""

    def open_session(host: AbstractHost | None) -> AbstractSession:
        return SimulationSession(realtime_factor=realtime_factor)

    return without_host(open_session, policy=policy, ideal=True)


def without_host(
    open_session: OpenSession, *, policy: MachinePolicy | None = None, ideal: bool = False
) -> MachineKind:
    """Sessions that need no host.

    Args:
        ideal: Whether they are of the ideal scheduler, which computes the same always.
    """
    return MachineKind(
        open_host=None,
        open_session=open_session,
        policy=policy or MachinePolicy(),
        validity=Validity.COMPUTED if ideal else None,
        settings=_simulated_settings if ideal else None,
    )


def _simulated_settings() -> Mapping[str, Fact]:
    return {"simulator": SIMULATOR_VERSION}


def _qemu(
    spec: QemuSpec | None,
    session: type[MailboxSession | SshSession],
    policy: MachinePolicy | None,
    reset: Reset,
) -> MachineKind:
    def open_session(host: AbstractHost | None) -> AbstractSession:
        if host is None:
            raise UsageError(f"a {session.__name__} needs a host")
        return session(host)

    return qemu(replace(spec or QemuSpec(), reach=session.reach), open_session, policy=policy, reset=reset)
