"""Writing task sets to a file: what was written is read again and compared, so that nothing is lost in silence, whatever the format."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.errors import HostError, UsageError
from runner.formats.jobs import Options
from runner.formats.kinds import Format
from runner.formats.notes import Note, differences, refuse_losses
from runner.model import TaskSet

#: Notes that are kept; of the others only that there are more.
MAX_NOTES = 1_000


def export(
    tasksets: Callable[[], Iterator[TaskSet]], form: Format, path: Path, options: Options, *, lossy: bool
) -> list[Note]:
    """Write concrete task sets; what the file does not hold.

    Guarantees: the file appears at once and whole, or stays as it was. Without `lossy` it holds everything.

    Args:
        tasksets: Yields the sets, each time from the first on: they are written, then compared with what was written.
        lossy: Write also what the format does not hold in full.

    Raises:
        UsageError: the format has no place for a set, or would lose something and `lossy` is off; lists what.
        HostError: the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file", where=str(path), next_step="name a file to write")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".rtfleet-", dir=path.parent))
    except OSError as exc:
        raise HostError.because(exc, "the file cannot be written", where=str(path)) from exc
    temporary = folder / (path.stem or "tasksets")
    try:
        form.write(tasksets(), temporary, options)
        try:
            notes = _losses(tasksets(), form, temporary, options)
        except UsageError as exc:
            where = exc.where.replace(str(temporary), str(path))
            what = f"{form.title} cannot hold this, not even with losses: {exc.what}"
            raise UsageError(what, where=where, next_step=exc.next_step) from exc
        if not lossy:
            advice = "write it all the same: --lossy; or choose a format that holds everything: --to json"
            refuse_losses(notes, str(path), advice)
        os.replace(temporary, path)
    except (OSError, UnicodeEncodeError) as exc:
        raise HostError(f"the file cannot be written: {exc}", where=str(path)) from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return notes


def _losses(tasksets: Iterator[TaskSet], form: Format, path: Path, options: Options) -> list[Note]:
    notes: list[Note] = []
    back = form.read(path, options)
    for idx, given in enumerate(tasksets):
        where = f"tasksets[{idx}]"
        found = next(back, None)
        if found is None:
            raise UsageError(f"{where} was written and is not there", where=where)
        arranged = form.arranged(given)
        if arranged.tasks != given.tasks:
            what = "tasks stand in the order of their priority, which is what the format goes by"
            notes.append(Note(f"{where}.tasks", what, lost=False))
        notes += differences(arranged, found.taskset, where)
        if len(notes) > MAX_NOTES:
            return [
                *notes[:MAX_NOTES],
                Note("further sets", "not compared any more: there is too much already"),
            ]
    return notes
