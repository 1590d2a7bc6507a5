"""Whether a run goes on and how it ended, as one can tell from outside: by its lock and its status file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.paths import RunPaths

# A status file has some 100 bytes for each machine, a manifest some for each time that the run was resumed.
_MAX_FILE_BYTES = 1 << 20


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
        resumed_utc: When it was resumed, each time.
        state: What the operator wanted last.
        held: Why no further task set is started; empty: nothing holds it.
        shortage: Why there are fewer machines than are wanted; empty: there may be as many.
        machines: Name -> what it is doing; only while the run goes on.
        n_wanted: How many machines the operator wanted last.
        n_total, n_done, n_bad: Task sets in all, done, and given up; None where that is not known.
    """

    known: bool = False
    goes_on: bool = False
    pid: int | None = None
    started_utc: str | None = None
    updated_utc: str | None = None
    ended: str | None = None
    resumed_utc: tuple[str, ...] = ()
    state: str | None = None
    held: str = ""
    shortage: str = ""
    machines: Mapping[str, MachinePulse] = field(default_factory=dict)
    n_wanted: int | None = None
    n_total: int | None = None
    n_done: int | None = None
    n_bad: int | None = None


def read_pulse(paths: RunPaths) -> Pulse:
    """Look at a run folder; what is damaged or missing there counts as not known."""
    status = _read(paths.status)
    goes_on = _is_locked(paths.lock)
    observed, desired, sets = (_mapping(status, name) for name in ("observed", "desired", "tasksets"))
    return Pulse(
        known=bool(status),
        goes_on=goes_on,
        pid=_number(status, "pid"),
        started_utc=_text(status, "started_utc"),
        updated_utc=_text(status, "updated_utc"),
        # One that goes on has not ended, whatever an earlier runner said.
        ended=None if goes_on else _text(status, "ended"),
        resumed_utc=tuple(_resumptions(paths.manifest)),
        state=_text(desired, "state"),
        held=_text(status, "held") or "",
        shortage=_text(_mapping(status, "allowed"), "shortage") or "",
        machines=_machines(observed) if goes_on else {},
        n_wanted=_number(desired, "machines"),
        n_total=_number(sets, "total"),
        n_done=_number(sets, "done"),
        n_bad=_number(sets, "bad"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            content = json.loads(file.read(_MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) and value else None


def _number(content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    return value if isinstance(value, int) else None


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _resumptions(manifest: Path) -> Iterator[str]:
    resumed = _read(manifest).get("resumed")
    for one in resumed if isinstance(resumed, list) else ():
        if isinstance(one, dict) and (started := _text(one, "started_utc")):
            yield started


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


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the run's lock; one that was left behind by a killed runner is nobody's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, and let go of at once: who asks does not stand in a runner's way.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        return exc.errno == errno.EWOULDBLOCK
    else:
        return False
    finally:
        os.close(fd)
