"""The crash injector `shim.c`, from Python: compiled, loaded into a process, armed, and what it reports."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType

_SOURCE = Path(__file__).with_name("shim.c")
#: By this name a process finds the shim that it was started with.
LOADED = "RTFLEET_CRASH_SHIM"


class Mode(Enum):
    """How a process ends at the operation; `shim.c` has the details."""

    KILL = "kill"
    TORN = "torn"
    #: Bytes and names that were not synced are undone.
    POWER = "power"
    #: The bytes are undone, the names stay.
    POWER_NAMES = "power-names"
    #: Sectors and names are undone or not, by lot.
    POWER_SOME = "power-some"

    @property
    def loses_power(self) -> bool:
        """Whether the computer goes down with the process."""
        return self in (Mode.POWER, Mode.POWER_NAMES, Mode.POWER_SOME)


@dataclass(frozen=True)
class Crash:
    """Where a process is to end.

    Attributes:
        at: The number of the operation, from 1 on; 0: never, only count.
        seed: Of the lots that are drawn.
    """

    at: int
    mode: Mode = Mode.KILL
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What became of an armed process.

    Attributes:
        n: Operations until then, the last one included.
        kind: Of the operation at which it ended: open, write, sync, rename, unlink, truncate, mkdir, link; None: it did not crash.
        path: The file's, relative to the folder.
        by_kind: How many of each kind there were, if it did not crash.
    """

    n: int
    kind: str | None = None
    path: str = ""
    by_kind: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, line: str) -> Report:
        """A line of the shim's; an empty one means that somebody else has killed the process."""
        match line.split():
            case ["crash", n, kind, *path]:
                return cls(int(n), kind, " ".join(path).lstrip("/"))
            case ["end", n, *counts]:
                pairs = (count.split("=") for count in counts)
                return cls(int(n), by_kind={kind: int(count) for kind, count in pairs})
            case []:
                return cls(0)
        raise ValueError(f"the shim has said {line!r}")


def compiled(folder: Path) -> Path:
    """The shim, made by this computer's compiler."""
    shim = folder / "shim.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
    subprocess.run(["gcc", *options, "-o", str(shim), str(_SOURCE)], check=True, timeout=60)
    return shim


def preload(shim: Path, crash: Crash, folder: Path, report_fd: int) -> dict[str, str]:
    """The variables with which a program starts armed; it inherits `report_fd`."""
    return {
        "LD_PRELOAD": str(shim),
        "RTFLEET_CRASH": f"{crash.at} {crash.mode.value} {crash.seed} {report_fd} {folder}",
    }


def restart_with_shim(shim: Path) -> None:
    """Start this Python program again with the shim loaded, for the processes forked from it; does not return."""
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "LD_PRELOAD": str(shim), LOADED: str(shim)})


class Shim:
    """The shim in this process, which was started with it; arms this process alone, once."""

    def __init__(self) -> None:
        # By its path: the loader knows that it is there already.
        self._library = ctypes.CDLL(os.environ[LOADED])

    def arm(self, crash: Crash, folder: Path, report_fd: int) -> None:
        """From here on this process counts what it does to files under `folder`."""
        self._library.crash_arm(
            ctypes.c_long(crash.at),
            crash.mode.value.encode(),
            ctypes.c_long(crash.seed),
            report_fd,
            os.fsencode(folder),
        )

    def end(self, *, power_lost: bool) -> None:
        """Report that the process lives, and count no more; if `power_lost`, undo as at a crash: it must end at once."""
        self._library.crash_end(ctypes.c_bool(power_lost))
