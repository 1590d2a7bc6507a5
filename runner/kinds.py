"""The kinds of machine that there are: a host, the session that goes with it, and what its measurements are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from runner.disturbance import DisturbanceLimits
from runner.errors import UsageError
from runner.events import Validity
from runner.hosts import AbstractHost
from runner.qemu.host import QemuHost
from runner.qemu.settings import measurement_settings
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.sessions.simulation import SimulationSession
from runner.sessions.ssh import SshSession
from runner.simulator import SIMULATOR_VERSION
from runner.specs import Clock, MachinePolicy, QemuSpec, Reset
from runner.station import Fact, MachineKind

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
