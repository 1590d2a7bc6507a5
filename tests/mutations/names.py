"""Names of task sets and tasks, on their way through every monitor into files and onto the screen."""

from __future__ import annotations

import io
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

from runner.errors import TaskSetError
from runner.model import Provenance, Task
from runner.monitors.logging import LoggingMonitor
from runner.monitors.sqlite import SQLiteMonitor
from runner.monitors.stdout import StdoutMonitor
from runner.monitors.summary import SummaryMonitor
from tests.monitor_samples import good, run, taskset
from tests.mutations.kind import Kind
from tests.mutations.mutators import TEXTS, changed_bytes

_ENCODING = ("utf-8", "surrogatepass")


class Names(Kind):
    """Texts of any characters and lengths as names, paths and arguments."""

    name = "names"
    share = 20

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._log = logging.FileHandler(scratch / "distributor.log", encoding="utf-8")
        logging.getLogger("runner").addHandler(self._log)
        logging.getLogger("runner").setLevel(logging.INFO)

    def make(self, chance: Random) -> bytes:
        return "\x1e".join(self._text(chance) for _ in range(3)).encode(*_ENCODING)

    def _text(self, chance: Random) -> str:
        match chance.randrange(6):
            case 0:
                return "name"
            case 1:
                return chance.choice(TEXTS) * chance.choice((1, 2, 50))
            case 2:
                return "".join(
                    chr(chance.choice((chance.randrange(256), chance.randrange(0x110000)))) for _ in range(9)
                )
            case 3:
                return "x" * chance.choice((64, 200, 201, 4096, 10**6))
            case 4:
                return changed_bytes(b"a name, and more", chance).decode("utf-8", "surrogateescape")
            case _:
                return f"{chance.choice(TEXTS)}name{chance.choice(TEXTS)}"

    def feed(self, data: bytes) -> str:
        name, task_name, argument = (*data.decode(*_ENCODING).split("\x1e"), "", "", "")[:3]
        base = taskset()
        first, *rest = base.tasks
        which = replace(
            base,
            name=name,
            tasks=(replace(first, name=task_name), *rest),
            provenance=Provenance(generator="explicit", params={"key": argument}),
        )
        Task(
            name="mine",
            period_ns=None,
            workload="executable",
            workload_args={"path": argument, "argv": (argument,)},
        )
        path = self.scratch / "names.sqlite"
        path.unlink(missing_ok=True)
        shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monitors = (SQLiteMonitor(path), LoggingMonitor(), StdoutMonitor(shown), SummaryMonitor(shown))
        for monitor in monitors:
            monitor.open()
        attempt = run(which)
        for monitor in monitors:
            monitor.__taskset_start__(attempt)
            monitor.__taskset_finish__(attempt, good())
            monitor.__taskset_bad__(attempt, TaskSetError(f"task set {which.name!r}: no"))
            monitor.close()
        self._log.flush()
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT name FROM tasksets").fetchall() == [(name,)]
            assert database.execute("SELECT name FROM tasks WHERE task_idx = 0").fetchall() == [(task_name,)]
        return "accepted"
