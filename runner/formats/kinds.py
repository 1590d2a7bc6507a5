"""Every format by name, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from runner.errors import UsageError
from runner.formats import native, original, rt_app, rtspin, schedcat, simso, task_hash
from runner.formats.document import open_regular
from runner.formats.jobs import Options
from runner.formats.notes import FoundSet
from runner.model import TaskSet
from runner.tasksets.written import nearest


def _as_it_is(taskset: TaskSet) -> TaskSet:
    return taskset


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one kind of file is read and written.

    Attributes:
        title: For people.
        read: Yields the sets of a file, lazily.
        write: Writes sets to a path; what that cannot carry is found by reading it again.
        count: Counts the sets of a file without reading them; None where files are bounded and read as a whole.
        arranged: A set as the format arranges it, with the same meaning.
    """

    title: str
    read: Callable[[Path, Options], Iterator[FoundSet]]
    write: Callable[[Iterable[TaskSet], Path, Options], None]
    count: Callable[[Path], int] | None = None
    arranged: Callable[[TaskSet], TaskSet] = _as_it_is


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "json": Format(title="rtfleet's JSON", read=native.read_json, write=native.write_json),
        "jsonl": Format(
            title="rtfleet's JSON Lines",
            read=native.read_lines,
            write=native.write_lines,
            count=native.count_lines,
        ),
        "rt-app": Format(title="rt-app's JSON", read=rt_app.read, write=rt_app.write),
        "simso": Format(title="SimSo's XML", read=simso.read, write=simso.write),
        "schedcat": Format(
            title="SchedCAT's XML", read=schedcat.read, write=schedcat.write, arranged=schedcat.arranged
        ),
        "rtspin": Format(title="LITMUS^RT's rtspin lines", read=rtspin.read, write=rtspin.write),
        "original": Format(
            title="the original's SQLite", read=original.read, write=original.write, count=original.count_sets
        ),
        "task-hash": Format(title="the original's task hash", read=task_hash.read, write=task_hash.write),
    }
)
#: What a name's end says; JSON and XML are looked into.
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".simso": "simso",
    ".rtspin": "rtspin",
    ".sh": "rtspin",
    ".db": "original",
    ".sqlite": "original",
    ".sqlite3": "original",
    ".hash": "task-hash",
}
_START_BYTES = 4096


def named(name: str, key: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in FORMATS:
        raise UsageError(f"{key} is {name!r}", where=key, next_step=nearest(name, FORMATS))
    return FORMATS[name]


def format_of_file(path: Path, key: str) -> str:
    """The name of the format that a file has, by its suffix and its first bytes.

    Raises:
        UsageError: neither says.
        OSError: it cannot be read.
    """
    if (known := _SUFFIXES.get(path.suffix.lower())) is not None:
        return known
    with open(open_regular(path), "rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(b"SQLite format 3\0"):
        return "original"
    text = start.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return "simso" if "<simulation" in text else "schedcat"
    if text.startswith("{"):
        return "json" if f'"{native.FORMAT}"' in text else "rt-app"
    raise UsageError(
        "neither its suffix nor its beginning says which format the file has",
        where=str(path),
        next_step=f"say it: {key}, one of {', '.join(FORMATS)}",
    )


def format_of_name(path: Path, key: str) -> str:
    """The name of the format that a file of that name is to have.

    Raises:
        UsageError: its suffix does not say.
    """
    suffixes = {**_SUFFIXES, ".json": "json"}
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise UsageError(
            f"the suffix {suffix!r} does not say which format the file is to have",
            where=str(path),
            next_step=f"say it: {key}, one of {', '.join(FORMATS)}",
        )
    return suffixes[suffix]
