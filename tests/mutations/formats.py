"""Files of task sets in every format, for the reader that takes them for `tasksets=file` and the command that converts them."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import ClassVar

from runner.errors import UsageError
from runner.formats.export import export
from runner.formats.jobs import Options
from runner.formats.kinds import FORMATS
from runner.formats.source import FileTaskSets
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.units import NS_PER_MS
from tests.mutations.kind import Kind
from tests.mutations.mutators import (
    as_json,
    bombs,
    changed_bytes,
    changed_tokens,
    changed_value,
    written_number,
)
from tests.mutations.texts import database_of_sets, followed

_FIXED = TaskSet(
    (
        Task(period_ns=7 * NS_PER_MS, wcet_ns=3 * NS_PER_MS, n_jobs=60, cpu_affinity=(0,), name="fast"),
        Task(period_ns=12 * NS_PER_MS, wcet_ns=3 * NS_PER_MS, n_jobs=35, priority_rank=1, name="slow"),
    ),
    name="fixed",
)
_SERVED = TaskSet(
    (
        Task(
            period_ns=12 * NS_PER_MS, wcet_ns=3 * NS_PER_MS, n_jobs=10, policy=Policy.DEADLINE, name="served"
        ),
    ),
    name="served",
    admission_control=False,
)
_ORIGINAL = TaskSet(
    tuple(
        Task(
            period_ns=5000 * NS_PER_MS,
            n_jobs=20,
            workload=name,
            workload_args={"arg1": 8192},
            priority_rank=rank,
            offset_ns=rank * NS_PER_MS,
            mem_limit_bytes=100 << 20,
            kill_after_start_ns=4500 * NS_PER_MS,
        )
        for rank, name in enumerate(("pi", "cond_mod"))
    ),
    name="set0",
    overrun_policy=OverrunPolicy.KILL_AND_SKIP,
)
#: Format -> sets that its files hold; one file each.
_SETS = {
    **{
        "json": (_FIXED, _SERVED, _ORIGINAL),
        "jsonl": (_FIXED, _SERVED, _ORIGINAL),
        "rt-app": (_FIXED, _SERVED),
    },
    **{"simso": (_FIXED, _SERVED), "schedcat": (_FIXED,), "rtspin": (_FIXED,)},
    **{"original": (_ORIGINAL,), "task-hash": (_ORIGINAL,)},
}
_NAMES = tuple(_SETS)
_WORDS = (
    *(
        "runtime",
        "timer",
        "period",
        "loop",
        "-1",
        "NaN",
        "1e400",
        "0x10",
        "null",
        "\\ud800",
        "<!DOCTYPE a>",
        "&a;",
    ),
    *(
        "<task/>",
        "<taskset>",
        "WCET",
        "priority",
        "9" * 5000,
        "1e-9",
        "-q",
        "-p",
        "[]",
        "{}",
        "true",
        '"',
        "0",
    ),
)
_NUMBER = re.compile(r"[0-9][0-9.]*")
# Statements that make a file of the original's a hostile one.
_HOSTILE = (
    "DROP TABLE Task",
    "ALTER TABLE Task DROP COLUMN Period",
    "UPDATE Task SET Period = 'x'",
    "UPDATE Task SET Period = -1",
    "UPDATE Task SET Arg = zeroblob(100000)",
    "UPDATE Task SET PKG = x'ff'",
    "UPDATE Task SET Quota = 100",
    "UPDATE Task SET Number_of_Jobs = 1e300",
    "UPDATE Task SET Period = 9223372036854775807",
    "UPDATE TaskSet SET TASK1_ID = 77",
    "UPDATE TaskSet SET TASK1_ID = 'one'",
    "UPDATE TaskSet SET TASK1_ID = -1, TASK2_ID = NULL",
    "DELETE FROM TaskSet",
    "CREATE TABLE Other AS SELECT * FROM Task; DROP TABLE Task; CREATE VIEW Task AS WITH RECURSIVE n(x) AS"
    " (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS Task_ID, Other.* FROM n, Other",
    "CREATE TABLE Old AS SELECT * FROM TaskSet; DROP TABLE TaskSet; CREATE TABLE TaskSet (Set_ID, TASK1_ID"
    " GENERATED ALWAYS AS (length(hex(zeroblob(1000000000)))))",
)


def _with_other_number(text: str, chance: Random) -> bytes:
    """One number exchanged: mostly for another that the format could hold, so that the file is mostly one that may be accepted."""
    place = chance.choice(list(_NUMBER.finditer(text)))
    plausible = str(chance.choice((0, 1, 2, 7, 10, 128, 5000, 0.5, 3.25)))
    number = plausible if chance.random() < 0.7 else written_number(chance)
    return f"{text[: place.start()]}{number}{text[place.end() :]}".encode()


class TaskSetFile(Kind):
    """Bytes on disk under a format's name, down to the requests and rows that its sets become, and back into a file."""

    name = "formats"
    share = 150
    refusals = (UsageError,)
    memory_mib: ClassVar[int] = 512

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._database = database_of_sets()
        self._path = scratch / "sets"
        self._specimens: dict[str, list[bytes]] = {}
        for name, sets in _SETS.items():
            specimens = []
            for taskset in sets:
                export(lambda one=taskset: iter([one]), FORMATS[name], self._path, Options(), lossy=True)  # type: ignore[misc]
                specimens.append(self._path.read_bytes())
            self._specimens[name] = specimens

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(_NAMES))
        specimens = self._specimens[_NAMES[which]]
        data = chance.choice(specimens)
        if _NAMES[which] == "original":
            if chance.random() < 0.5:
                data = self._with_hostile_schema(chance.choice(_HOSTILE), data)
            else:
                data = changed_bytes(data, chance, specimens)
        else:
            match chance.randrange(10):
                case 0:
                    data = bombs(chance)
                case 1 | 2:
                    data = changed_bytes(data, chance, specimens)
                case 3 | 4 | 5:
                    data = _with_other_number(data.decode(), chance)
                case 6 | 7 if _NAMES[which] in ("json", "rt-app"):
                    data = as_json(changed_value(json.loads(data), chance))
                case _:
                    data = changed_tokens(data.decode(), chance, _WORDS).encode("utf-8", "surrogatepass")
        return bytes([which]) + data

    def _with_hostile_schema(self, statements: str, data: bytes) -> bytes:
        self._path.write_bytes(data)
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.executescript(statements)
        return self._path.read_bytes()

    def feed(self, data: bytes) -> str:
        name, lossy = _NAMES[data[0] % len(_NAMES)], bool(len(data) % 2)
        self._path.write_bytes(data[1:])
        source = FileTaskSets(str(self._path), format=name, lossy=lossy)
        sets = list(islice(source.variants(), 5))
        assert len(sets) == min(5, source.n_variants)
        for taskset in sets:
            followed(taskset, self._database)
        back = self.scratch / "back.json"
        assert export(lambda: iter(sets), FORMATS["json"], back, Options(), lossy=False) == []
        assert [one.taskset_id for one in FileTaskSets(str(back)).variants()] == [
            one.taskset_id for one in sets
        ]
        return name
