"""What is stored of a run before it begins, read again when it is resumed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

from runner.config.record import RunRecord, read_record
from runner.config.resuming import config_changes, merged, refuse_changes
from runner.errors import UsageError
from tests.mutations.kind import Kind
from tests.mutations.texts import TASKSETS, mutated_yaml

_HYDRA: dict[str, Any] = {
    "overrides": {"task": ["repeat=2", "tasksets.seed=1"], "hydra": ["hydra.run.dir=run"]},
    "job": {"config_name": "config"},
    "runtime": {
        "cwd": "/tmp",
        "config_sources": [
            {"path": "hydra.conf", "schema": "pkg", "provider": "hydra"},
            {"path": "/conf", "schema": "file", "provider": "main"},
            {"path": "/own", "schema": "file", "provider": "command-line"},
        ],
    },
}
_CONFIG: dict[str, Any] = {
    "repeat": 2,
    "tasksets": {"tasksets": TASKSETS},
    "run_folder": "${hydra:runtime.output_dir}",
}
_WORDS = (
    "overrides",
    "task",
    "job",
    "runtime",
    "cwd",
    "path",
    "schema",
    "provider",
    "null",
    "{schema}",
    "{0.__class__}",
)


class StoredRun(Kind):
    """The folder `.hydra`, or a sweep's `multirun.yaml`, with one of its files mutated."""

    name = "records"
    share = 20
    refusals = (UsageError,)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._record = RunRecord(hydra=_HYDRA, config=_CONFIG)
        self._record.write(scratch)
        self._files = ["hydra.yaml", "config.yaml"]
        self._values: list[Any] = [{"hydra": _HYDRA}, _CONFIG, {"hydra": _HYDRA, **_CONFIG}]

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(self._values))
        value = self._values[which]
        return bytes([which]) + mutated_yaml(
            chance, [value], [yaml.safe_dump(value, sort_keys=False)], _WORDS
        )

    def feed(self, data: bytes) -> str:
        which, content = data[0], data[1:]
        sweep = self.scratch / "multirun.yaml"
        sweep.unlink(missing_ok=True)
        self._record.replace(self.scratch)
        (self.scratch / ".hydra" / self._files[which] if which < len(self._files) else sweep).write_bytes(
            content
        )
        found = read_record(self.scratch)
        merged([*found.hydra_overrides, *found.overrides], ["repeat=3"])
        assert isinstance(found.config_name, str)
        assert isinstance(found.working_folder, Path)
        for provider in ("main", "command-line"):
            found.config_folder(provider)
        refuse_changes(self.scratch, config_changes(found.config, _CONFIG))
        return "accepted"
