"""Files that people write: the control file, task sets, names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from runner.data import rows, schema
from runner.errors import TaskSetError, UsageError
from runner.fleet import RunState
from runner.identity import measurement_identity
from runner.model import TaskSet
from runner.operator import control
from runner.operator.control_watcher import ControlWatcher
from runner.task_loader import wire
from runner.tasksets.explicit import ExplicitTaskSets
from tests.mutations.kind import Kind
from tests.mutations.mutators import (
    as_yaml,
    bombs,
    changed_bytes,
    changed_tokens,
    changed_value,
)

_LIMIT = 7


def mutated_yaml(chance: Random, values: Sequence[Any], texts: Sequence[str], words: Sequence[str]) -> bytes:
    """A document that was changed as value, as text, as bytes, or all of it."""
    match chance.randrange(20):
        case 0:
            return bombs(chance)
        case 1:
            text = chance.choice(texts)
            return f"{text}\nx: ".encode() + bombs(chance)
        case 2 | 3 | 4 | 5:
            return changed_tokens(chance.choice(texts), chance, words).encode("utf-8", "surrogatepass")
        case 6 | 7 | 8:
            encoded = [text.encode() for text in texts]
            return changed_bytes(chance.choice(encoded), chance, encoded)
        case 9:
            data = as_yaml(changed_value(_copied(chance.choice(values)), chance))
            return changed_bytes(data, chance, [data])
        case _:
            return as_yaml(changed_value(_copied(chance.choice(values)), chance))


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


class ControlFile(Kind):
    """Bytes on disk, looked at as the watcher does, and followed as far as the fleet's own orders."""

    name = "control"
    share = 150
    refusals = (UsageError,)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        states = [control.Control(n, state) for n in (0, 1, _LIMIT) for state in RunState]
        self._texts = [control.render(state, _LIMIT) for state in states]
        self._texts += [
            "machines: 3\nstate: run\n",
            "{machines: 2, state: pause}",
            "state: 'kill'\nmachines: \"1\"\n",
        ]
        self._values = [{"machines": state.machines, "state": state.state.value} for state in states]
        self._path = scratch / "control.yaml"
        self._path.write_text("before")
        self._heard: list[str] = []
        self._watcher = ControlWatcher(self._path, self._heard.append)

    def make(self, chance: Random) -> bytes:
        return mutated_yaml(chance, self._values, self._texts, ("machines", "state", "run", "kill", "3"))

    def feed(self, data: bytes) -> str:
        self._heard.clear()
        self._path.write_bytes(data)
        self._watcher.look()
        if not self._heard:
            return "passed over"
        wanted = control.parse(self._heard[0], _LIMIT)
        assert 0 <= wanted.machines <= _LIMIT
        assert control.parse(control.render(wanted, _LIMIT), _LIMIT) == wanted
        return "accepted"


#: A task set with every key there is.
TASKSETS: list[dict[str, Any]] = [
    {
        "name": "golden",
        "overrun_policy": "continue",
        "priority": "rm",
        "stop": "4.2s",
        "tasks": [
            {"name": "fast", "period": "70ms", "wcet": "28.5ms", "n_jobs": 60},
            {
                "period": ["100ms", "120ms"],
                "wcet": ["1ms", "2ms"],
                "n_jobs": 35,
                "deadline": "90ms",
                "offset": "1ms",
            },
        ],
    },
    {
        "name": "served",
        "admission_control": False,
        "tasks": [
            {
                "policy": "deadline",
                "period_ns": 10_000_000,
                "wcet_ns": 1_000_000,
                "dl_runtime": "2ms",
                "n_jobs": 3,
            },
            {"policy": "other", "workload": "pi", "workload_args": {"arg1": [8192, 16384]}, "period": "1s"},
        ],
    },
    {
        "name": "mine",
        "overrun_policy": "kill_and_skip",
        "priority": "explicit",
        "tasks": [
            {
                "workload": "executable",
                "workload_args": {"path": "./a.out", "argv": [["a", "b"], []]},
                "period": "50ms",
                "n_jobs": [20, 30],
                "priority_rank": [0, 1],
                "mem_limit": "100M",
                "kill_after_start": "9ms",
                "cpu_affinity": [0],
            },
            {
                "workload": "spin",
                "workload_args": {"cpu": "5ms"},
                "period": "50ms",
                "cpu_affinity": [[0], [0, 1]],
            },
        ],
    },
]
_WORDS = (
    "name",
    "tasks",
    "period",
    "period_ns",
    "wcet",
    "n_jobs",
    "10ms",
    "deadline",
    "rm",
    "executable",
    "argv",
    "100M",
)


def followed(taskset: TaskSet, database: sqlite3.Connection) -> None:
    """What a run does with a set that was accepted, but for running it."""
    wire_uploads = {str(task.workload_args.get("path")): "/run/workloads/a" for task in taskset.tasks}
    try:
        wire.encode(taskset, uploads=wire_uploads)
    except TaskSetError:
        return
    measurement_identity(taskset, {}, files=dict.fromkeys(wire_uploads, "d"))
    with database:
        database.execute("DELETE FROM tasks")
        database.execute("DELETE FROM tasksets")
        database.execute(schema.TASKSETS.insert, rows.taskset_row(taskset))
        database.executemany(schema.TASKS.insert, rows.task_rows(taskset))


def database_of_sets() -> sqlite3.Connection:
    """Tables for them, in memory."""
    database = sqlite3.connect(":memory:")
    for table in (schema.TASKSETS, schema.TASKS):
        database.execute(table.ddl)
    return database


class WrittenTaskSets(Kind):
    """Task sets as a YAML file holds them, down to the request and the rows that they become."""

    name = "tasksets"
    share = 150
    refusals = (UsageError, yaml.YAMLError)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._database = database_of_sets()
        self._loader = get_yaml_loader()
        self._values = [TASKSETS, *([one] for one in TASKSETS)]
        self._texts = [yaml.safe_dump(value, sort_keys=False) for value in self._values]

    def make(self, chance: Random) -> bytes:
        return mutated_yaml(chance, self._values, self._texts, _WORDS)

    def feed(self, data: bytes) -> str:
        try:
            given = yaml.load(data, Loader=self._loader)
        except (
            ValueError,
            TypeError,
            LookupError,
            RecursionError,
            AttributeError,
        ):  # PyYAML's own: `!!timestamp`, 10^4 digits …
            return "no YAML"
        source = ExplicitTaskSets(given)
        n_read = 0
        for taskset in islice(source.variants(), 5):
            followed(taskset, self._database)
            n_read += 1
        assert n_read == (5 if source.n_variants is None else min(5, source.n_variants))
        return "accepted"
