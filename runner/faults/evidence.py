"""What is kept of a task set that was given up, so that somebody can find out why."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.errors import RunnerError
from runner.events import Event, Run
from runner.files.durable import sync_folder, sync_tree
from runner.files.private import make_private, write_private
from runner.model import TaskSet
from runner.tasksets.explicit import write_down

#: Task sets of which evidence is kept; if there are more, they die of the same.
MAX_SETS = 100
#: Events of the last attempt, the last ones.
MAX_EVENTS = 200
_TAIL_BYTES = 64 << 10
# How the name of a folder begins that is not whole.
_PARTIAL = "."
_SURROGATES = re.compile(r"\\u(d[89ab]..)\\u(d[c-f]..)")
_log = logging.getLogger("runner.evidence")


class EvidenceStore:
    """A folder with a folder for each task set that was given up: `SET_IDX-TASKSET_ID`.

    Guarantees: holds at most `max_sets` of them, those of earlier runners in the same folder included, each less than 1 MiB beside
    the task set itself; one is there as a whole or not at all, after a loss of power, too. What cannot be written is reported once,
    and stops nothing. What a runner that was killed has left half-written is removed: there is one store at a time in a folder.
    Threads: every method may be called from any thread.

    Args:
        folder: Made if need be.
    """

    def __init__(self, folder: Path, *, max_sets: int = MAX_SETS) -> None:
        self._folder = folder
        self._max_sets = max_sets
        self._lock = threading.Lock()
        self._reported = False
        for partial in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)

    def keep(
        self, run: Run, error: RunnerError, *, logs: Iterable[Path] = (), events: Sequence[Event] = ()
    ) -> Path | None:
        """Keep what is known of a set whose last attempt this was; where, or None if nothing was kept.

        Args:
            error: Why it is given up.
            logs: Files of which the end is kept, under their own names; those that are missing are passed over.
            events: What happened in that attempt; the last `MAX_EVENTS` are kept.
        """
        target = self._folder / f"{run.set_idx}-{run.taskset.taskset_id}"
        with self._lock:
            try:
                return self._keep(target, run, error, logs, events)
            except OSError as exc:
                if not self._reported:
                    self._reported = True
                    _log.warning("what is known of the bad task set %s cannot be kept: %s", target.name, exc)
                return None

    def _keep(
        self, target: Path, run: Run, error: RunnerError, logs: Iterable[Path], events: Sequence[Event]
    ) -> Path | None:
        make_private(self._folder)
        kept = {path.name for path in self._folder.iterdir() if not path.name.startswith(_PARTIAL)}
        if len(kept - {target.name}) >= self._max_sets:
            return None
        partial = self._folder / f"{_PARTIAL}{target.name}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            make_private(partial / "experiment")
            lines = [f"{event}\n" for event in list(events)[-MAX_EVENTS:]]
            texts = {
                "error.txt": _report(target, run, error),
                "experiment/alone.yaml": experiment_alone(run.taskset),
                "events.txt": "".join(lines),
            }
            for name, text in texts.items():
                write_private(partial / name, text.encode("utf-8", "replace"))
            for log in logs:
                if log.exists():
                    write_private(partial / log.name, _tail(log))
            sync_tree(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return target


def _report(target: Path, run: Run, error: RunnerError) -> str:
    taskset = run.taskset
    return (
        f"task set {taskset.name!r} ({taskset.taskset_id}), place {run.set_idx} of submission {run.submission},"
        f" repetition {run.repetition}: given up after attempt {run.attempt}, on {run.machine}\n\n{error}\n\n"
        "to run it again, alone (with the overrides that this run had for its machines, see .hydra/overrides.yaml):\n"
        f"  {command_again(target)}\n"
    )


def command_again(folder: Path) -> str:
    """What a shell runs to measure the task set of such a folder again, alone."""
    again = [sys.executable, "-m", "runner", f"--config-dir={folder.absolute()}", "experiment=alone"]
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(again)}"


def experiment_alone(taskset: TaskSet) -> str:
    """A file for the group `experiment`; JSON is YAML, but for how it escapes characters beyond 16 bits: as two, which YAML leaves two."""
    experiment = {
        "defaults": [{"override /tasksets": "explicit"}],
        "tasksets": {"tasksets": [_uninterpolated(write_down(taskset))]},
    }
    text = _SURROGATES.sub(_escaped, json.dumps(experiment, indent=1))
    return f"# @package _global_\n{text}\n"


def _escaped(pair: re.Match[str]) -> str:
    high, low = int(pair[1], 16), int(pair[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + low - 0xDC00:08x}"


def _uninterpolated(value: object) -> object:
    """The value with texts in which `${` means nothing but itself to OmegaConf."""
    match value:
        case str():
            return value.replace("${", "\\${")
        case dict():
            return {key: _uninterpolated(one) for key, one in value.items()}
        case list():
            return [_uninterpolated(one) for one in value]
        case _:
            return value


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES)
