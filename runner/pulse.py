"""Whether a run goes on and how it ended, as one can tell from outside: by its status file, its lock and its process."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runner.paths import RunPaths

# A status file has some 100 bytes for each machine.
_MAX_STATUS_BYTES = 1 << 20
# Its start is noted in whole seconds, and so is that of this computer.
_TOLERANCE = timedelta(seconds=3)


@dataclass(frozen=True, kw_only=True)
class MachinePulse:
    """What a machine was doing last.

    Attributes:
        until_utc: When one that is put aside is tried again.
    """

    phase: str = ""
    taskset_id: str | None = None
    n_done: int = 0
    until_utc: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """The last sign of life of a run.

    Attributes:
        known: Whether there is a status file that can be read.
        goes_on: Whether a runner works on it now.
        pid: That of its last runner.
        ended: How it ended, in that runner's words; None: it did not tell.
        state: What the operator wanted last.
        held: Why no further task set is started; empty: nothing holds it.
        shortage: Why there are fewer machines than are wanted; empty: there may be as many.
        machines: Name -> what it is doing; only while the run goes on.
    """

    known: bool = False
    goes_on: bool = False
    pid: int | None = None
    started_utc: str | None = None
    updated_utc: str | None = None
    ended: str | None = None
    state: str | None = None
    held: str = ""
    shortage: str = ""
    machines: Mapping[str, MachinePulse] = field(default_factory=dict)


def read_pulse(paths: RunPaths) -> Pulse:
    """Look at a run folder; what is damaged or missing there counts as not known."""
    status = _read(paths.status)
    pid = status.get("pid") if isinstance(status.get("pid"), int) else None
    started = _text(status, "started_utc")
    ended = _text(status, "ended")
    locked = _is_locked(paths.lock)
    goes_on = (ended is None and _is_alive(pid, started)) if locked is None else locked
    observed = _mapping(status, "observed")
    return Pulse(
        known=bool(status),
        goes_on=goes_on,
        pid=pid,
        started_utc=started,
        updated_utc=_text(status, "updated_utc"),
        # One that goes on has not ended, whatever an earlier runner said.
        ended=None if goes_on else ended,
        state=_text(_mapping(status, "desired"), "state"),
        held=_text(status, "held") or "",
        shortage=_text(_mapping(status, "allowed"), "shortage") or "",
        machines=_machines(observed) if goes_on else {},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            content = json.loads(file.read(_MAX_STATUS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) and value else None


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _machines(observed: Mapping[str, Any]) -> dict[str, MachinePulse]:
    machines = _mapping(observed, "by_machine")
    found = {}
    for name in machines:
        one = _mapping(machines, name)
        done = one.get("done")
        found[name] = MachinePulse(
            phase=_text(one, "phase") or "",
            taskset_id=_text(one, "taskset_id"),
            n_done=done if isinstance(done, int) else 0,
            until_utc=_text(one, "until_utc"),
        )
    return found


def _is_locked(path: Path) -> bool | None:
    """Whether somebody holds the run's lock; None where there is none, or none can be asked for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared, and let go of at once: who asks does not stand in a runner's way.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(fd)


def _is_alive(pid: int | None, started: str | None) -> bool:
    """Whether that process is there, and is not another one that was given its number since."""
    if pid is None or started is None:
        return False
    try:
        # The second field is the program's name, in parentheses that it may contain itself.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        begin = _booted_utc() + timedelta(seconds=int(fields[19]) / os.sysconf("SC_CLK_TCK"))
        return fields[0] not in {"Z", "X"} and begin <= datetime.fromisoformat(started) + _TOLERANCE
    except (OSError, ValueError, LookupError, OverflowError, TypeError):
        return False


def _booted_utc() -> datetime:
    text = Path("/proc/stat").read_text("utf-8")
    (seconds,) = (line.split()[1] for line in text.splitlines() if line.startswith("btime "))
    return datetime.fromtimestamp(int(seconds), UTC)
