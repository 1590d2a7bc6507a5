"""`tasksets=file`: the task sets of a run, from a file in any of the formats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from runner.errors import HostError, UsageError
from runner.formats.document import located_in, open_regular
from runner.formats.jobs import Options
from runner.formats.kinds import format_of_file, named
from runner.formats.notes import FoundSet, refuse_losses
from runner.model import Provenance, TaskSet
from runner.units import parse_ns

#: Of a file of any length so many sets are looked at before the run; each of the others when its turn comes.
N_LOOKED_AT = 1_000


class FileTaskSets:
    """Task sets from a file: JSON and JSON Lines of our own, rt-app, SimSo, SchedCAT, rtspin, the original's SQLite or task hash.

    JSON Lines and SQLite are read set by set, however many there are; what else a file may be is bounded, and read as a whole. Of a
    folder, all files are read one after the other, by their names.

    Guarantees: a set that is yielded is what its file says. What a set of ours does not hold is refused, unless `lossy`; of files that
    are read as a whole, and of the first thousand sets of others, when the constructor is called.

    Args:
        path: The file, or a folder of such files.
        format: A name of `runner.formats.kinds.FORMATS`; None: by suffix and content.
        unit: What a plain number counts in a file that has no units (SchedCAT): `us`, `ms`, `1us` …
        duration: How long a set runs where its file does not say so: `10s`; None: one hyperperiod.
        lossy: Take sets also where something in the file has no place in them.

    Raises:
        UsageError: the file is none of that format, or has what cannot be imported; names the place in it.
        HostError: it cannot be read.
    """

    def __init__(
        self,
        path: str,
        *,
        format: str | None = None,  # noqa: A002 - as its users call it
        unit: str = "us",
        duration: str | None = None,
        lossy: bool = False,
    ) -> None:
        options = options_of(unit, duration, "unit", "duration")
        with _in_config():
            if format is not None:
                named(format, "tasksets.format")
            self._files = [_File(one, format, options, lossy=lossy) for one in _files_in(Path(path))]
            self._n_variants = sum(file.n_sets for file in self._files)
            if self._n_variants == 0:
                raise UsageError("there is no task set", where=path, next_step="name another file")

    @property
    def n_variants(self) -> int:
        """How many sets there are."""
        return self._n_variants

    def variants(self) -> Iterator[TaskSet]:
        """The sets, in the order of the file.

        Raises:
            UsageError, HostError: as the constructor, for sets that were not looked at before; or the file has changed since.
        """
        with _in_config():
            for file in self._files:
                yield from file.tasksets()


def _files_in(path: Path) -> list[Path]:
    """The path itself, or what is in the folder, but for hidden files."""
    if not os.path.isdir(path):
        return [path]
    with located_in(path):
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    return [path / name for name in names]


class _File:
    """One file, looked at."""

    def __init__(self, path: Path, name: str | None, options: Options, *, lossy: bool) -> None:
        self._path = path
        self._options = options
        self._lossy = lossy
        with located_in(path):
            self._name = name or format_of_file(path, "tasksets.format=…")
        self._format = named(self._name, "tasksets.format")
        self._state = self._stamp()
        count = self._format.count
        n_found = sum(
            1 for _ in map(self._check, islice(self._found(), None if count is None else N_LOOKED_AT))
        )
        self.n_sets = n_found if count is None else count(path)

    def tasksets(self) -> Iterator[TaskSet]:
        """The sets, with where they come from."""
        for idx, found in enumerate(self._found()):
            if self._stamp() != self._state:
                raise UsageError(
                    "the file has changed since the run began",
                    where=str(self._path),
                    next_step="put it back as it was and resume, or begin a new run",
                )
            self._check(found)
            taskset = found.taskset
            if taskset.provenance.generator == "explicit":
                params = {"path": str(self._path), "format": self._name, "set_idx": idx}
                taskset = replace(taskset, provenance=Provenance(generator="file", params=params))
            yield taskset

    def _found(self) -> Iterator[FoundSet]:
        return self._format.read(self._path, self._options)

    def _check(self, found: FoundSet) -> None:
        if not self._lossy:
            refuse_losses(found.notes, str(self._path), "take the sets without it: tasksets.lossy=true")

    def _stamp(self) -> tuple[int, int, int]:
        with located_in(self._path), open(open_regular(self._path), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            return status.st_ino, status.st_size, status.st_mtime_ns


def options_of(unit: str, duration: str | None, unit_key: str, duration_key: str) -> Options:
    """The options as the user writes them.

    Raises:
        UsageError: one is no time; names its key.
    """
    unit_ns = parse_ns(unit if unit[:1].isdigit() else f"1{unit}", key=unit_key)
    duration_ns = None if duration is None else parse_ns(duration, key=duration_key)
    for key, value_ns in ((unit_key, unit_ns), (duration_key, duration_ns)):
        if value_ns is not None and value_ns <= 0:
            raise UsageError(f"{key} is {value_ns} ns, must be more than 0", where=key)
    return Options(unit_ns=unit_ns, duration_ns=duration_ns)


@contextmanager
def _in_config() -> Iterator[None]:
    """Say which key of the config names the file that something is wrong with."""
    try:
        yield
    except (UsageError, HostError) as exc:
        where = exc.where if exc.where.startswith("tasksets.") else f"tasksets.path: {exc.where}"
        raise type(exc)(exc.what, where=where, next_step=exc.next_step) from exc
