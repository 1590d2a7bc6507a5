"""What can happen to QEMU, and to what it starts from."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runner.qemu.image import cache_root
from runner.rehearsal.fault import Fault, Injection, needs_guests, needs_seam
from runner.rehearsal.link import Call
from runner.rehearsal.private_cache import spoil_cache
from runner.rehearsal.processes import stem_of
from runner.rehearsal.scene import Scene
from runner.rehearsal.sessions import KILLED, SHUT_QMP
from runner.rehearsal.setup import Setup

# The kernel tells of a process's end at once; a guest's death was seen within 0.04 s (measured). The rest is for a busy computer.
END_S = 2.0


@dataclass(frozen=True)
class QemuKilled(Fault):
    """Somebody, or the kernel for want of memory, kills an emulator."""

    name: ClassVar[str] = "qemu_killed"
    what: ClassVar[str] = "SIGKILL to QEMU"
    source: ClassVar[str] = "the kernel closes its monitor at once"

    def applies_to(self, setup: Setup) -> str:
        return needs_seam(setup)

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return KILLED
        os.kill(call.host_pid, signal.SIGKILL)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))


@dataclass(frozen=True)
class QemuStopped(Fault):
    """An emulator stands still: stopped by somebody, or by a computer that swaps."""

    name: ClassVar[str] = "qemu_stopped"
    what: ClassVar[str] = "SIGSTOP to QEMU"
    source: ClassVar[str] = (
        "a QMP command is answered within 10 s; a set ends within machines.policy.taskset_timeout_s and _factor"
    )

    def applies_to(self, setup: Setup) -> str:
        return needs_guests(setup)

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        end_ns = injection.call.facts.get("end_ns", 0) if injection.call is not None else 0
        return max(10.0, setup.set_budget_s(end_ns)) + END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return None
        os.kill(call.host_pid, signal.SIGSTOP)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))


@dataclass(frozen=True)
class QmpGone(Fault):
    """The connections to the monitors of all present emulators break."""

    name: ClassVar[str] = "qmp_gone"
    what: ClassVar[str] = "QEMU's monitor hangs up"
    source: ClassVar[str] = "the end of a connection is seen at once"

    def applies_to(self, setup: Setup) -> str:
        return needs_guests(setup)

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        return SHUT_QMP if call.host_pid is not None else None

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))


@dataclass(frozen=True)
class MemoryRefused(Fault):
    """Emulators that are started from now on get no memory, for a while."""

    name: ClassVar[str] = "memory_refused"
    what: ClassVar[str] = "new QEMUs get no memory (RLIMIT_AS of their stem)"
    source: ClassVar[str] = (
        "QEMU says so as it starts, in 0.1 s; a machine that failed often enough has said so, too"
    )
    n_after: ClassVar[int] = 2  # the next set's emulator is ready already

    def applies_to(self, setup: Setup) -> str:
        if reason := needs_guests(setup):
            return reason
        if not (cache_root() / "stem" / "current.so").exists():
            return "QEMU is started without a stem here (python -m host_setup stem)"
        return (
            ""
            if setup.config["machines"]["reset"] == "taskset"
            else "no QEMU is started while sets run (machines.reset)"
        )

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return 10.0

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        stem = stem_of(call.pid)
        if stem is None:
            return None
        before = resource.prlimit(stem, resource.RLIMIT_AS)
        statm = Path(f"/proc/{stem}/statm").read_text(encoding="utf-8")
        # What the stem has itself, and hardly more.
        allowed_bytes = int(statm.split()[0]) * resource.getpagesize() + (8 << 20)
        resource.prlimit(stem, resource.RLIMIT_AS, (allowed_bytes, before[1]))
        injection.held = [(stem, before)]
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        words = f"{scene.logged(injection)}{scene.held(injection)}".lower()
        # One that came as far as its first thread aborts: that is in the log before anybody waits for it.
        return "memory" in words or "qemu was ended by" in words or bool(scene.told(injection, "incident"))

    def heal(self, scene: Scene, injection: Injection) -> None:
        for stem, before in injection.held:
            with suppress(ProcessLookupError):
                resource.prlimit(stem, resource.RLIMIT_AS, before)


@dataclass(frozen=True)
class SnapshotDamaged(Fault):
    """A bit of the booted snapshot flips on the disk: in a copy of it, which only this run sees."""

    name: ClassVar[str] = "snapshot_damaged"
    what: ClassVar[str] = "a byte of the snapshot's device state flips"
    source: ClassVar[str] = "machines.policy.start_timeout_s: it is made anew as the first machine starts"
    moments: ClassVar[frozenset[str]] = frozenset()

    def applies_to(self, setup: Setup) -> str:
        if reason := needs_guests(setup):
            return reason
        qemu = setup.config["machines"]["qemu"]
        return "" if qemu["snapshot"] and qemu["clock"] == "icount" else "no guest starts from a snapshot"

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return setup.policy["start_timeout_s"]

    def environment(self, setup: Setup, folder: Path) -> Mapping[str, str]:
        return {"RTFLEET_CACHE": str(folder / "cache")}

    def before(self, scene: Scene, injection: Injection) -> None:
        """Have it find a cache in which every snapshot is damaged."""
        spoilt = scene.folder / "cache"
        if spoilt.exists():
            return
        for seal in spoil_cache(scene.cache, spoilt, injection.seed):
            injection.held.append((seal, seal.stat().st_mtime_ns))
        injection.begin(Call("", 0), "before the first machine", 0)

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        return None  # it has happened before

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return any(
            not seal.exists() or seal.stat().st_mtime_ns != sealed_ns for seal, sealed_ns in injection.held
        )
