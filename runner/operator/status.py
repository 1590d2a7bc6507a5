"""`status.json`: what a run is doing, beside what the operator wants of it."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.files.durable import replace_text
from runner.fleet import FleetState, MachineState, Phase
from runner.operator.control import Control

INTERVAL_S = 0.1
_log = logging.getLogger("runner.status")


class StatusWriter:
    """Keeps a status file up to date from a thread of its own; a context manager, whose end writes the last state.

    Guarantees: the file is replaced within a fraction of a second after `touch()`, never more than ten times a second, and is
    always whole. A disk that is full is reported once, and stops nothing.

    Args:
        path: The file.
        fleet: Asked for the present state at each write.
    """

    def __init__(self, path: Path, fleet: Callable[[], FleetState]) -> None:
        self._path = path
        self._fleet = fleet
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="status")
        self._started_utc = datetime.now(UTC)
        self._desired: Control | None = None
        self._control_error = ""
        self._ended: str | None = None
        self._reported = False

    def touch(self) -> None:
        """Something changed. Any thread; returns at once."""
        self._changed.set()

    def control(self, desired: Control | None, error: str = "") -> None:
        """What the control file says; `error` where it cannot be followed (the last valid content then stays)."""
        if desired is not None:
            self._desired = desired
        self._control_error = error
        self.touch()

    def end(self, how: str) -> None:
        """How the run ended, for the last write."""
        self._ended = how

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._changed.set()
        self._thread.join()
        # What stays: whoever comes after a loss of power is to find it.
        self._write(sync=True)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._changed.wait()
            self._changed.clear()
            self._write()
            self._stop.wait(INTERVAL_S)

    def _write(self, *, sync: bool = False) -> None:
        try:
            replace_text(self._path, json.dumps(self._content(), indent=1) + "\n", sync=sync)
        except OSError as exc:
            if not self._reported:
                self._reported = True
                _log.error("%s cannot be written: %s", self._path, exc)

    def _content(self) -> dict[str, Any]:
        fleet = self._fleet()
        desired = self._desired or Control(fleet.desired_machines, fleet.state)
        alive = [m for m in fleet.machines if m.phase not in (Phase.CLOSED, Phase.FAILED)]
        return {
            "desired": {"machines": desired.machines, "state": desired.state.value},
            "observed": {
                "machines": sum(m.phase is not Phase.ASIDE for m in alive),
                "state": fleet.state.value,
                "by_machine": {m.name: _machine(m) for m in alive},
                "recoveries": {step.value: count for step, count in fleet.recoveries.items()},
            },
            "held": fleet.held or None,
            "allowed": {"machines": fleet.allowed_machines, "shortage": fleet.shortage or None},
            "control_error": self._control_error or None,
            "tasksets": {
                "total": fleet.n_total,
                "done": fleet.n_done,
                "bad": fleet.n_bad,
                "running": fleet.n_running,
            },
            "pid": os.getpid(),
            "started_utc": self._started_utc.isoformat(timespec="seconds"),
            "updated_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "ended": self._ended,
        }


def _machine(machine: MachineState) -> dict[str, Any]:
    content = {"phase": machine.phase.value, "taskset_id": machine.taskset_id, "done": machine.n_done}
    return content if machine.until is None else {**content, "until_utc": machine.until.isoformat()}
