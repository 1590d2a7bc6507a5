"""What can happen within a guest, and to what it says."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runner.errors import UsageError
from runner.qemu.console_link import read_link
from runner.rehearsal.emulator_faults import END_S
from runner.rehearsal.fault import Fault, Injection, needs_seam
from runner.rehearsal.link import Call
from runner.rehearsal.processes import console_of
from runner.rehearsal.scene import Scene
from runner.rehearsal.sessions import HANG, LOADER_GONE, PANIC
from runner.rehearsal.setup import Reached, Setup
from runner.rehearsal.tampered_host import GARBAGE, TORN

# QEMU looks once a second whether anybody has opened the terminal, and reads nothing before.
_TERMINAL_S = 1.2


def _typed(scene: Scene, call: Call, command: str) -> str | None:
    """Have the shell on the guest's console run a command, as soon as the guest runs."""
    terminal = console_of(call.host_pid or 0) or _linked(scene, call)
    if terminal is None:
        return None
    fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    # QEMU would drop what it has not read yet when nobody has the terminal open any more.
    scene.owned.callback(os.close, fd)
    os.write(fd, f"\n{command}\n".encode())
    scene.wait(_TERMINAL_S)
    return ""


def _linked(scene: Scene, call: Call) -> Path | None:
    """The console's terminal as the machine's folder has it: of its newest emulator, which may be another one."""
    with suppress(UsageError):
        link = read_link(scene.inside(scene.paths.machines / str(call.facts["machine"])))
        if link.pid == call.host_pid:
            return Path(link.pty)
    return None


@dataclass(frozen=True)
class _OfGuest(Fault):
    """A fault that ends the attempt that it happens in."""

    def applies_to(self, setup: Setup) -> str:
        return needs_seam(setup)

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))


@dataclass(frozen=True)
class GuestPanic(_OfGuest):
    """The guest's kernel panics."""

    name: ClassVar[str] = "guest_panic"
    what: ClassVar[str] = "the guest's kernel panics (sysrq c)"
    source: ClassVar[str] = "the guest's bell, or its reset, is told at once"

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return PANIC
        return _typed(scene, call, "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")


@dataclass(frozen=True)
class GuestHang(_OfGuest):
    """Something within the guest takes all of its processor, above everything else."""

    name: ClassVar[str] = "guest_hang"
    what: ClassVar[str] = "the task loader stands still"
    source: ClassVar[str] = (
        "the guest's watchdog, in guest time; machines.policy.taskset_timeout_s and _factor at the latest"
    )

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        end_ns = injection.call.facts.get("end_ns", 0) if injection.call is not None else 0
        return setup.set_budget_s(end_ns) + END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return HANG
        return _typed(scene, call, "kill -STOP $(pidof taskloader)")


@dataclass(frozen=True)
class LoaderKilled(_OfGuest):
    """The program that runs the task sets is killed."""

    name: ClassVar[str] = "loader_killed"
    what: ClassVar[str] = "SIGKILL to the task loader"
    source: ClassVar[str] = "the guest's init rings the bell at once; over SSH the channel ends"

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return LOADER_GONE
        return _typed(scene, call, "kill -9 $(pidof taskloader)")


@dataclass(frozen=True)
class GarbageMessage(_OfGuest):
    """What comes back is nonsense."""

    name: ClassVar[str] = "garbage_message"
    what: ClassVar[str] = "random bytes instead of the guest's answer"
    source: ClassVar[str] = "every message is checked as it is read"
    moments: ClassVar[frozenset[str]] = frozenset({"start", "bell"})

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if scene.setup.reached is Reached.SSH:
            return _spoiled(scene, call, "spoil")
        if scene.setup.reached is Reached.MAILBOX and call.what != "bell":
            return None
        return f"{GARBAGE} {injection.seed}"


@dataclass(frozen=True)
class TornMessage(_OfGuest):
    """What comes back ends half-way."""

    name: ClassVar[str] = "torn_message"
    what: ClassVar[str] = "half of the guest's answer"
    source: ClassVar[str] = "every message is checked as it is read"
    moments: ClassVar[frozenset[str]] = frozenset({"start", "bell"})

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if scene.setup.reached is Reached.SSH:
            return _spoiled(scene, call, "tear")
        if scene.setup.reached is Reached.MAILBOX and call.what != "bell":
            return None
        return TORN


def _spoiled(scene: Scene, call: Call, how: str) -> str | None:
    relay = scene.relay_of(call)
    if relay is None:
        return None
    getattr(relay, how)()
    return ""
