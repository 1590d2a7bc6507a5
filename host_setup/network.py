"""The machines' bridge: made, removed and looked at; the only part of the project that changes a computer's network."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from host_setup.check import Finding
from host_setup.command import run_command
from host_setup.dhcp import dhcp_command, running_server, stop_server
from host_setup.interfaces import interfaces
from host_setup.network_record import Kind, Made, NetworkRecord
from host_setup.network_steps import Part, Step, creation, removal
from host_setup.packages import BRIDGE_REQUIREMENTS, missing_packages
from runner.config.composer import ConfigComposer, ConfigPlaces
from runner.config.errors import explained
from runner.config.files import bound_config_files
from runner.config.machines import to_network
from runner.config.schemas import register_schemas
from runner.errors import HostError, RunnerError
from runner.network import BridgePlan, plan_bridge
from runner.qemu.confinement import qemu_account
from runner.qemu.tap import TUN_DEVICE

_GROUP = "machines/network"
_TIMEOUT_S = 60.0
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Network:
    """The network that a config asks for, on this computer."""

    def __init__(self, overrides: Sequence[str], *, report: Callable[[str], None] = print) -> None:
        """
        Args:
            overrides: As `python -m runner` takes them; that it is a bridge goes without saying.

        Raises:
            UsageError: the config contradicts itself.
        """
        self._overrides = tuple(overrides)
        self._plan = _composed(self._overrides)
        self._record = NetworkRecord(self._plan.bridge)
        self._owner, self._owner_uid = _owner()
        self._report = report

    def create(self, *, dry_run: bool = False) -> None:
        """Make what is missing. Again does nothing; what was there before is used as it is.

        Raises:
            HostError: something is in the way, missing, or root's alone. What was made until then is recorded: `remove` undoes it.
        """
        if dry_run:
            for words in (*self._missing_commands(), *self._dhcp_commands()):
                self._report(shlex.join(words))
            return
        _require_root("create", self._overrides)
        if missing := missing_packages(BRIDGE_REQUIREMENTS):
            raise HostError(
                f"not installed: {', '.join(missing)}", next_step="python -m host_setup packages --bridge"
            )
        with self._record.locked():
            # All obstacles are found before anything is touched.
            for part in tuple(self._parts()):
                for step in part.steps:
                    self._make(step)
            self._serve()
        self._report(f"network: {self._plan.bridge} with {len(self._plan.taps)} taps ({self._record.folder})")

    def remove(self, *, dry_run: bool = False) -> None:
        """Undo what `create` has made, and nothing else. Again does nothing.

        Raises:
            HostError: a machine still uses it, or only root may do it.
        """
        steps = removal(self._record.made, interfaces())
        server = running_server(self._record.folder)
        if dry_run:
            for words in (
                *(_ending(server[0]) if server is not None else ()),
                *(step.command for step in steps),
                *(self._record.deleting if self._record.folder.exists() else ()),
            ):
                self._report(shlex.join(words))
            return
        if not self._record.folder.exists():
            self._report(f"network: nothing of {self._plan.bridge} was made here")
            return
        _require_root("remove", self._overrides)
        with self._record.locked():
            stop_server(self._record.folder)
            for step in steps:
                _run(step)
            for words in self._record.deleting:
                _run(Step(words))
        self._report(f"network: what was made of {self._plan.bridge} is gone")

    def check(self) -> bool:
        """Report line by line what is there and what is not; True if machines can use it."""
        usable = True
        for finding in self._findings():
            self._report(str(finding))
            usable = usable and (finding.good or not finding.needed)
        # One command, though single ones would do: what it makes is recorded, so that `remove` undoes it.
        mend = f"sudo {_command('create', self._overrides)}"
        self._report(
            "The network is ready." if usable else f"The network is not ready; what makes it: {mend}"
        )
        return usable

    def _findings(self) -> Sequence[Finding]:
        found = []
        missing = missing_packages(BRIDGE_REQUIREMENTS)
        found.append(
            Finding(
                ability="packages",
                good=not missing,
                detail=f"not installed: {', '.join(missing)}"
                if missing
                else "iproute2 and dnsmasq are installed",
                next_step="python -m host_setup packages --bridge",
            )
        )
        found.append(
            Finding(
                ability="taps",
                good=TUN_DEVICE.exists(),
                detail=f"{TUN_DEVICE} is {'there' if TUN_DEVICE.exists() else 'missing'}",
                next_step="sudo modprobe tun",
            )
        )
        try:
            found += [_finding(part) for part in self._parts()]
        except RunnerError as error:
            found.append(Finding(ability="network", good=False, detail=error.what, next_step=error.next_step))
        server = self._dhcp_commands()
        found.append(
            _finding(Part("DHCP server", "runs, with an address for each machine", tuple(map(Step, server))))
        )
        with suppress(OSError):
            forwards = _FORWARDING.read_text().strip() == "1"
            found.append(
                Finding(
                    ability="isolation",
                    good=not forwards,
                    detail="this computer passes packets on for others, guests among them, if they are told a route"
                    if forwards
                    else "this computer passes no packets on",
                    next_step="if nothing else needs it: sudo sysctl net.ipv4.ip_forward=0",
                    needed=False,
                )
            )
        return found

    def _parts(self) -> Sequence[Part]:
        return tuple(creation(self._plan, interfaces(), self._owner, self._owner_uid))

    def _missing_commands(self) -> list[tuple[str, ...]]:
        return [step.command for part in self._parts() for step in part.steps]

    def _dhcp_commands(self) -> list[tuple[str, ...]]:
        """What brings the server into the state that it should have."""
        folder = self._record.folder
        wanted = dhcp_command(self._plan, folder)
        server = running_server(folder)
        if server is not None and server[1][1:] == wanted[1:]:
            return []
        first = [("mkdir", "-p", str(folder))] if server is None else _ending(server[0])
        return [*first, tuple(wanted)]

    def _make(self, step: Step) -> None:
        if step.makes is None:
            _run(step)
            return
        # Noted before it is made: whatever ends this program in between, nothing is made of which nobody knows.
        before = tuple(
            one for one in self._record.made if (one.kind, one.name) != (step.makes.kind, step.makes.name)
        )
        self._record.store((*before, step.makes))
        try:
            _run(step)
        except HostError as error:
            # Nothing is made by a command that says it failed; by one that was ended before it said anything, who knows.
            if not isinstance(error.__cause__, subprocess.TimeoutExpired):
                self._record.store(before)
            raise
        self._record.store((*before, _identified(step.makes)))

    def _serve(self) -> None:
        if not self._dhcp_commands():
            return
        stop_server(self._record.folder)
        _run(Step(tuple(dhcp_command(self._plan, self._record.folder))))


def _composed(overrides: Sequence[str]) -> BridgePlan:
    chosen = any(one.lstrip("+").partition("=")[0] in (_GROUP, "machines.network.kind") for one in overrides)
    # Otherwise Hydra prints errors in its own way and ends the program.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schemas()
    bound_config_files()
    try:
        with ConfigComposer(ConfigPlaces()) as composer:
            config = composer.compose([*overrides, *(() if chosen else (f"{_GROUP}=bridge",))])
            machines = config.machines
            return plan_bridge(to_network(machines), machines.limit)
    except RunnerError:
        raise
    except Exception as exc:
        raise explained(exc) from exc


def _owner() -> tuple[str, int]:
    """Whose the taps are: who has asked root for them, else as whom root's QEMU runs."""
    account = qemu_account()
    names = (os.environ.get("SUDO_USER"), None if account is None else account.name)
    for name in names if os.geteuid() == 0 else ():
        if name and name != "root":
            with suppress(KeyError):
                return name, pwd.getpwnam(name).pw_uid
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return str(uid), uid


def _identified(made: Made) -> Made:
    return (
        replace(made, index=socket.if_nametoindex(made.name))
        if made.kind in (Kind.BRIDGE, Kind.TAP)
        else made
    )


def _run(step: Step) -> None:
    run_command(step.command, doing="changing the network", timeout_s=_TIMEOUT_S)


def _ending(pid: int) -> list[tuple[str, ...]]:
    """End a process, and wait until it is gone: it deletes its files itself."""
    return [("kill", str(pid)), ("tail", f"--pid={pid}", "-f", "/dev/null")]


def _finding(part: Part) -> Finding:
    return Finding(
        ability=part.name, good=not part.steps, detail="is not ready" if part.steps else part.there
    )


def _command(verb: str, overrides: Sequence[str]) -> str:
    # By its full name: sudo looks elsewhere for a `python`, and finds one without our packages.
    return shlex.join([sys.executable, "-m", "host_setup", "network", verb, *overrides])


def _require_root(verb: str, overrides: Sequence[str]) -> None:
    if os.geteuid() != 0:
        raise HostError(
            "only root may change a computer's network",
            next_step=f"sudo {_command(verb, overrides)} (with --dry-run it shows what it would do)",
        )
