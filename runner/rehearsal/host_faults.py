"""What can happen to this computer."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runner.data.reuse import RESULTS_NAME
from runner.rehearsal.clock_shift import VARIABLE, build, can_be_built, shift
from runner.rehearsal.fault import Fault, Injection
from runner.rehearsal.link import Call
from runner.rehearsal.mount_namespace import creating
from runner.rehearsal.scene import Scene
from runner.rehearsal.setup import Setup
from runner.units import NS_PER_S

# In MiB: more than a run of a few sets takes, and than it wants to have left.
_DISK_MIB = 256
_DAY_S = 86_400
_PROBE_S = 10.0
# Holds the lock until its input ends; the run itself may hold it just then.
_LOCKER = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], timeout=2.0, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class DiskFull(Fault):
    """The disk of the run folder is full, for a while: a file system of its own, which only this run sees."""

    name: ClassVar[str] = "disk_full"
    what: ClassVar[str] = "no byte is left on the run folder's disk"
    source: ClassVar[str] = "the disk is looked at once a second, and every write tells"
    holds: ClassVar[bool] = True

    def applies_to(self, setup: Setup) -> str:
        try:
            done = subprocess.run(
                [*creating(), "true"], capture_output=True, text=True, timeout=_PROBE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            return f"no file system of its own can be made: {exc}"
        refusal = done.stderr.strip() or f"unshare ends with {done.returncode}"
        return "" if done.returncode == 0 else f"no file system of its own can be made: {refusal}"

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return 5.0

    def wrapped(self, command: Sequence[str], run_folder: Path) -> list[str]:
        """Run it in a mount namespace, with a small file system at the run folder, which goes back to the disk in the end."""
        kept = shlex.quote(f"{run_folder}.kept")
        folder, inner = shlex.quote(str(run_folder)), shlex.join(command)
        if os.geteuid() != 0:  # whoever may mount here is root here; the run is not
            inner = f"unshare --user --map-user={os.geteuid()} --map-group={os.getegid()} {inner}"
        carry = "cp -a {0}/. {1}"
        script = (
            f"mkdir -p {folder} {kept} && {carry.format(folder, kept)}"
            f" && mount -t tmpfs -o size={_DISK_MIB}m,mode=700 rehearsal {folder} && {carry.format(kept, folder)} || exit 4\n"
            f"{inner}\ncode=$?\n"
            f"rm -rf {folder}/ballast {kept} && mkdir {kept} && {carry.format(folder, kept)} && umount --lazy {folder}"
            # A journal of what was there before does not belong to the data that come there now.
            f" && find {folder} -mindepth 1 -delete && {carry.format(kept, folder)} && rm -rf {kept} || exit 4\n"
            "exit $code"
        )
        return [*creating(), "sh", "-c", script]

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        ballast = scene.inside(scene.paths.folder / "ballast")
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return any(word in f"{scene.held(injection)}{scene.logged(injection)}" for word in ("disk", "full"))

    def heal(self, scene: Scene, injection: Injection) -> None:
        for path in (scene.inside(scene.paths.folder), scene.paths.folder):
            with suppress(OSError):
                (path / "ballast").unlink(missing_ok=True)


@dataclass(frozen=True)
class ClockJump(Fault):
    """This computer's clock jumps, by up to a day, ahead or back: for this run alone."""

    name: ClassVar[str] = "clock_jump"
    what: ClassVar[str] = "this computer's clock jumps by up to a day"
    source: ClassVar[str] = "must not show: durations are taken from the monotonic clock"

    def applies_to(self, setup: Setup) -> str:
        return "" if can_be_built() else "the library that shifts the clock cannot be built: no gcc"

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return None

    def environment(self, setup: Setup, folder: Path) -> Mapping[str, str]:
        file = folder / "clock_shift"
        if not file.exists():
            shift(file, 0)
            build(folder)
        before = os.environ.get("LD_PRELOAD")
        library = str(folder / "clock_shift.so")
        return {"LD_PRELOAD": f"{library}:{before}" if before else library, VARIABLE: str(file)}

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        by_s = injection.seed % (2 * _DAY_S) - _DAY_S
        shift(scene.folder / "clock_shift", by_s * NS_PER_S)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return False


@dataclass(frozen=True)
class DatabaseDown(Fault):
    """Another process holds the data set locked."""

    name: ClassVar[str] = "database_down"
    what: ClassVar[str] = "another process holds the data set locked"
    source: ClassVar[str] = "SQLite waits for 0.5 s, and results for 0.2 s to be written together"

    def applies_to(self, setup: Setup) -> str:
        return ""

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return 5.0

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        # In a process that sees the run's file systems: SQLite follows links to the end, and out of them again.
        command = [*scene.entering, sys.executable, "-ISc", _LOCKER, str(scene.paths.folder / RESULTS_NAME)]
        locker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        injection.held.append(locker)
        if locker.stdout is not None and locker.stdout.readline() == b"locked\n":
            return ""
        self.heal(scene, injection)
        return None

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(re.search(r"\blocked\b", f"{scene.held(injection)}{scene.logged(injection)}"))

    def heal(self, scene: Scene, injection: Injection) -> None:
        for locker in injection.held:
            locker.communicate()  # it ends with its input
        injection.held.clear()
