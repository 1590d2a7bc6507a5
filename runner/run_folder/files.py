"""What lies in the run folder before a run begins, or goes on: config, manifest, control file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runner.config.record import RunRecord
from runner.config.resuming import config_changes, fact_changes, read_manifest, refuse_changes
from runner.errors import UsageError
from runner.exit_codes import ExitCode
from runner.files.durable import replace_text
from runner.fleet import RunState
from runner.operator import control
from runner.operator.control import Control
from runner.operator.control_watcher import read_control
from runner.paths import RunPaths

_log = logging.getLogger("runner.run")


@dataclass(frozen=True)
class Resumption:
    """A run that an earlier runner has left.

    Attributes:
        before: What was stored when it began.
        accepted: Whether it is to go on in spite of changes.
    """

    before: RunRecord
    accepted: bool = False


class RunFiles:
    """Writes them in an order in which a crash at any point leaves a run that can be resumed, or one that has not begun.

    A run has begun when its manifest is there. Its config is there before that.

    Args:
        record: The present config.
        facts: The present manifest.
    """

    def __init__(self, paths: RunPaths, record: RunRecord, facts: Mapping[str, Any]) -> None:
        self._paths = paths
        self._record = record
        self._manifest = dict(facts)

    def begin(self, wanted: Control, limit: int) -> None:
        """Begin a run in a folder that holds no other.

        Raises:
            OSError: the folder cannot be written.
        """
        self._record.write(self._paths.folder)
        self._write_manifest()
        replace_text(self._paths.control, control.render(wanted, limit), sync=True)

    def go_on(self, resumption: Resumption, wanted: Control, limit: int) -> Control:
        """Take a run over; what the operator wants of it now.

        Raises:
            UsageError: something has changed that was not accepted, or a file is damaged; nothing was written.
            OSError: the folder cannot be written.
        """
        facts = self._manifest
        manifest = read_manifest(self._paths.manifest)
        changes = config_changes(resumption.before.config, self._record.config)
        if manifest is not None:
            changes = {**fact_changes(manifest, facts), **changes}
        if not resumption.accepted:
            refuse_changes(self._paths.folder, changes)
        if manifest is not None:
            again = {"started_utc": facts["started_utc"], "host": facts["host"]["name"], "changes": changes}
            self._manifest = {**manifest, "resumed": [*_list(manifest.get("resumed")), again]}
            self._manifest.pop("ended", None)
        self._write_manifest()
        if changes:
            self._record.replace(self._paths.folder)
        return self._take_control(wanted, limit, forced="machines.count" in changes)

    def end(self, code: ExitCode) -> None:
        """Note how the run ended: one that has nothing left to do is told from one that can be resumed thereby.

        Raises:
            OSError: the folder cannot be written.
        """
        ended = {"utc": datetime.now(UTC).isoformat(timespec="seconds"), "exit_code": int(code)}
        self._manifest["ended"] = ended
        self._write_manifest()

    def _write_manifest(self) -> None:
        replace_text(self._paths.manifest, json.dumps(self._manifest, indent=1) + "\n", sync=True)

    def _take_control(self, wanted: Control, limit: int, *, forced: bool) -> Control:
        """Follow the control file that is there, but for what ended the earlier runner."""
        try:
            before = control.parse(read_control(self._paths.control), limit)
        except (OSError, UsageError) as exc:
            _log.info("a control file is written anew: %s", exc.what if isinstance(exc, UsageError) else exc)
            before = None
        if before is not None:
            # To resume is the later word: what said that the run is to end has been followed.
            over = before.state in (RunState.DRAIN, RunState.KILL)
            machines = wanted.machines if forced else before.machines
            wanted = Control(machines, RunState.RUN if over else before.state)
        if wanted != before:
            replace_text(self._paths.control, control.render(wanted, limit), sync=True)
        if wanted.state is RunState.PAUSE:
            _log.warning("%s says pause: nothing is measured until it says run", self._paths.control)
        return wanted


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
