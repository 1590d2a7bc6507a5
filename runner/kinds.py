"""The kinds of machine that there are: a host and the session that goes with it."""

from __future__ import annotations

from pathlib import Path

from runner.errors import UsageError
from runner.hosts import AbstractHost
from runner.machine import MachineKind
from runner.qemu.host import QemuHost
from runner.sessions.base import AbstractSession
from runner.sessions.simulation import SimulationSession
from runner.sessions.ssh import SshSession
from runner.specs import MachinePolicy, QemuSpec


def qemu_over_ssh(spec: QemuSpec | None = None, policy: MachinePolicy | None = None) -> MachineKind:
    """QEMU guests on this computer, reached over SSH: the default."""
    spec = spec or QemuSpec()

    def open_host(name: str, folder: Path) -> AbstractHost:
        return QemuHost(spec, name=name, folder=folder)

    def open_session(host: AbstractHost | None) -> AbstractSession:
        if host is None:
            raise UsageError("a session over SSH needs a host")
        return SshSession(host)

    return MachineKind(open_host=open_host, open_session=open_session, policy=policy or MachinePolicy())


def simulated(*, realtime_factor: float | None = None, policy: MachinePolicy | None = None) -> MachineKind:
    """No guest at all: the ideal scheduler, computed."""

    def open_session(host: AbstractHost | None) -> AbstractSession:
        return SimulationSession(realtime_factor=realtime_factor)

    return MachineKind(open_host=None, open_session=open_session, policy=policy or MachinePolicy())
