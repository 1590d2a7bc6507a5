"""Configs: override lists and YAML files, composed and checked in this process, and through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write

from runner.assembly import check
from runner.config import monitors as config_monitors
from runner.config import schemas as config_schemas
from runner.config.composer import ConfigComposer, ConfigPlaces, folder_of, record_of, secrets_in
from runner.config.errors import explained, is_config_error
from runner.config.files import bound_config_files
from runner.config.plan import to_plan
from runner.config.schemas import register_schemas
from runner.errors import RunnerError
from runner.exit_codes import ExitCode
from tests.cli import environment
from tests.mutations.feeder import unbounded_memory
from tests.mutations.kind import Kind
from tests.mutations.mutators import TEXTS, changed_tokens, written_number
from tests.mutations.texts import TASKSETS, database_of_sets, followed, mutated_yaml

_IDEAL = "machines=simulation"
#: Overrides that are right, one or several at a time.
_OVERRIDES: tuple[tuple[str, ...], ...] = (
    ("machines.count=2", "machines.limit=3"),
    ("tasksets.seed=7", "tasksets.sets_per_utilization=2", "tasksets.n_tasks=3"),
    ("tasksets.utilizations=[0.5,0.9]", "tasksets.periods=[20ms,40ms]", "tasksets.hyperperiods=1.5"),
    ("tasksets.policy=deadline", "tasksets.dl_margin=0.1", "tasksets.overrun_policy=kill_and_skip"),
    ("repeat=2", "tasksets.admission_control=false"),
    (
        "tasksets=explicit",
        "tasksets.tasksets=[{name: a, tasks: [{period: 10ms, wcet: [1ms, 2ms], n_jobs: 3}]}]",
    ),
    ("tasksets=hey", "machines=arm64"),
    ("experiment=g1_reversed",),
    (
        "machines=amd64",
        "machines.qemu.memory_mib=256",
        "machines.qemu.mailbox_mib=64",
        "machines.qemu.cpu_mips=500",
    ),
    ("machines=host_clock", "machines.qemu.vcpus=2", "machines.disturbance.steal_ppm=100"),
    ("machines=ssh", "machines.reset=machine", "machines.qemu.ssh_port=2200", "machines.qemu.snapshot=false"),
    (
        "machines.policy.max_tries=2",
        "machines.policy.taskset_timeout_s=9",
        "machines.policy.taskset_timeout_factor=2.5",
    ),
    (
        "machines.qemu.boot_timeout_s=60",
        "machines.policy.max_failures=1",
        "machines.policy.request_timeout_s=1",
    ),
    ("machines.session.realtime_factor=2.0",),
    ("monitors=[sqlite,stdout]", "monitors.sqlite.commit_interval_s=0.5", "monitors.sqlite.parquet=null"),
    ("monitors=[logging]", "monitors.logging.level=DEBUG", "monitors.progress.interval_s=1"),
    ("+monitors.own._target_=runner.monitors.stdout.StdoutMonitor",),
    ("resume=earlier", "changes=accept"),
    ("reuse=earlier", "machines.qemu.image=/nonexistent", "machines.qemu.qemu_binary=nosuch"),
)
_OWN_FILE: dict[str, Any] = {
    "defaults": [{"override /tasksets": "explicit"}, {"override /machines": "simulation"}],
    "repeat": 2,
    "machines": {"count": 1, "limit": 2, "policy": {"max_tries": 2, "taskset_timeout_s": 5.0}},
    "tasksets": {
        "tasksets": [{"name": "a", "tasks": [{"period": "10ms", "wcet": ["1ms", "2ms"], "n_jobs": 3}]}]
    },
}
_OTHER_FILE: dict[str, Any] = {
    "defaults": [{"override /monitors": ["sqlite", "stdout"]}, "_self_"],
    "machines": {"qemu": {"memory_mib": 256, "boot_timeout_s": 60.0}, "disturbance": {"steal_ppm": 5}},
    "tasksets": {
        "seed": "${repeat}",
        "periods": ["20ms", "40ms"],
        "utilizations": [0.5, "${tasksets.dl_margin}"],
    },
}
_THIRD_FILE: dict[str, Any] = {
    "defaults": [{"override /tasksets": "explicit"}, {"override /machines": "simulation"}],
    "tasksets": {"tasksets": TASKSETS},
}
_HEAD = "# @package _global_\n"
_WORDS = (
    *(
        "machines",
        "tasksets",
        "monitors",
        "experiment",
        "count",
        "limit",
        "seed",
        "qemu",
        "policy",
        "reset",
        "override /",
        "null",
    ),
    *(
        "_self_",
        "_target_",
        "_args_",
        "_partial_",
        "_recursive_",
        "_convert_",
        "???",
        "hydra",
        "defaults",
        "@package",
        "repeat",
    ),
)


#: Every key with a number or a text for a value.
_KEYS = tuple(
    f"{place}.{field.name}"
    for place, schema in (
        ("tasksets", config_schemas.UUniFastConf),
        ("machines", config_schemas.MachinesConf),
        ("machines.qemu", config_schemas.QemuConf),
        ("machines.policy", config_schemas.PolicyConf),
        ("machines.disturbance", config_schemas.DisturbanceConf),
        ("monitors.sqlite", config_monitors.SQLiteConf),
        ("monitors.progress", config_monitors.ProgressConf),
        ("monitors.logging", config_monitors.LoggingConf),
    )
    for field in fields(schema)
    if field.name not in ("_target_", "session", "qemu", "policy", "disturbance")
)


_USUAL = (0, 1, 2, 3, 0.5, 0.001, 10, 250, 1e6, "null", "true", "20ms", "[20ms,40ms]", "fifo", "taskset")


def _one_extreme(chance: Random) -> list[str]:
    """A small run with one value, or two, at its extreme."""
    overrides = [_IDEAL, "tasksets.sets_per_utilization=1", "tasksets.utilizations=[0.5]"]
    for key in chance.sample(_KEYS, chance.choice((1, 1, 2))):
        value = chance.choice((written_number(chance), str(chance.choice(_USUAL)), chance.choice(TEXTS)))
        overrides.append(f"{key}={value}")
    return overrides


def _mutated_overrides(chance: Random) -> list[str]:
    """Some groups of right overrides, most of them with something in it that is not."""
    if chance.random() < 0.4:
        return _one_extreme(chance)
    overrides = [one for group in chance.sample(_OVERRIDES, chance.choice((1, 1, 2, 3))) for one in group]
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        at = chance.randrange(len(overrides))
        key, _, value = overrides[at].partition("=")
        match chance.randrange(7):
            case 0:
                overrides[at] = changed_tokens(overrides[at], chance, _WORDS)
            case 1:
                overrides[at] = f"{key}={changed_tokens(value, chance, _WORDS)}"
            case 2:
                overrides[at] = f"{key}={written_number(chance)}"
            case 3:
                overrides[at] = f"{key}={chance.choice(TEXTS)}"
            case 4:
                overrides[at] = chance.choice(("+", "++", "~", "")) + overrides[at]
            case 5:
                depth = chance.choice((3, 30, 300))
                overrides[at] = f"{key}={'[' * depth}{value}{']' * depth}"
            case _:
                overrides[at] = (
                    f"{key}={chance.choice(('[', '{a:', 'range(1,', 'choice(', 'sort(', 'int('))}{value}"
                )
    if chance.random() < 0.5 and _IDEAL not in overrides:
        overrides.insert(0, _IDEAL)
    return overrides


def _mutated_file(chance: Random) -> bytes:
    values = [_OWN_FILE, _OTHER_FILE, _THIRD_FILE]
    texts = [yaml.safe_dump(value, sort_keys=False) for value in values]
    if chance.random() < 0.1:
        return mutated_yaml(chance, values, [_HEAD + text for text in texts], _WORDS)
    return _HEAD.encode() + mutated_yaml(chance, values, texts, _WORDS)


def _packed(overrides: list[str], file: bytes | None) -> bytes:
    return json.dumps(
        {"overrides": overrides, "file": None if file is None else file.decode("latin-1")}
    ).encode()


def _unpacked(data: bytes) -> tuple[list[str], bytes | None]:
    given = json.loads(data)
    file = given["file"]
    return given["overrides"], None if file is None else file.encode("latin-1")


class _ConfigKind(Kind):
    def make(self, chance: Random) -> bytes:
        if chance.random() < 0.5:
            return _packed(_mutated_overrides(chance), None)
        overrides = ["experiment=own"]
        if chance.random() < 0.2:
            overrides += _mutated_overrides(chance)
        return _packed(overrides, _mutated_file(chance))

    def write(self, file: bytes | None) -> list[str]:
        """Make the config folder; what names it on the command line."""
        folder = self.scratch / "conf" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        if file is None:
            return []
        (folder / "own.yaml").write_bytes(file)
        return ["--config-dir", str(self.scratch / "conf")]


class ComposedConfig(_ConfigKind):
    """From overrides and a file of the user's to a checked plan, as the command line does it before a run."""

    name = "configs"
    share = 40
    limit_s = 30.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        register_schemas()
        bound_config_files()
        self._database = database_of_sets()
        self.write(b"")
        (scratch / "conf" / "experiment" / "warm.yaml").write_text(_HEAD + yaml.safe_dump(_OWN_FILE))
        self._checked(["experiment=warm"])

    def feed(self, data: bytes) -> str:
        overrides, file = _unpacked(data)
        self.write(file)
        return self._checked(overrides)

    def _checked(self, overrides: list[str]) -> str:
        try:
            with ConfigComposer(ConfigPlaces(added=str(self.scratch / "conf"))) as composer:
                config = composer.compose(overrides)
                folder_of(config, sweep=False)
        except Exception as exc:
            raise explained(exc) from exc
        record_of(config)
        secrets_in(config)
        with read_write(config.hydra), open_dict(config):
            config.hydra.runtime.output_dir = str(self.scratch)
            HydraConfig.instance().set_config(config)
            del config["hydra"]
        try:
            source, _, _ = check(to_plan(config))
        except Exception as exc:
            if not is_config_error(exc):
                raise
            raise explained(exc) from exc
        for taskset in islice(source.variants(), 3):
            followed(taskset, self._database)
        return "accepted"


class CommandLine(_ConfigKind):
    """The command itself: an exit code of design.md but 1, no traceback, an error that says something."""

    name = "command_line"
    share = 1
    limit_s = 150.0
    #: A run that takes longer is stopped as an operator does it.
    run_s: ClassVar[float] = 20.0

    def make(self, chance: Random) -> bytes:
        overrides, file = _unpacked(super().make(chance))
        return _packed(
            [one for one in overrides if "\0" not in one and not one.lstrip("+~").startswith("hydra")], file
        )

    def feed(self, data: bytes) -> str:
        overrides, file = _unpacked(data)
        folder = self.scratch / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = [*self.write(file), "report=false", *overrides, "hydra.run.dir=run"]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "runner",
                *(
                    one.encode("utf-8", "surrogateescape" if _escaped(one) else "replace")
                    for one in arguments
                ),
            ],
            cwd=folder,
            # No image: whoever wants a guest is told so.
            env=environment(folder, {"RTFLEET_CACHE": str(folder / "cache")}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=unbounded_memory,  # noqa: PLW1509 - this process has one thread
        )
        try:
            code, stderr = self._ended(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert "Traceback" not in stderr, stderr
        assert "a bug ended" not in stderr, stderr
        assert code in {one.value for one in ExitCode if one is not ExitCode.BUG}, (code, stderr)
        if code in (ExitCode.USAGE, ExitCode.HOST):
            assert "error: " in stderr, stderr
            raise RunnerError(stderr)
        return ExitCode(code).name.lower()

    def _ended(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        for order in (None, signal.SIGINT, signal.SIGINT):
            if order is not None:
                process.send_signal(order)
            with suppress(subprocess.TimeoutExpired):
                _, stderr = process.communicate(timeout=self.run_s if order is None else 10.0)
                return process.returncode, stderr.decode(errors="replace")
        _, stderr = process.communicate(timeout=self.limit_s)
        return process.returncode, stderr.decode(errors="replace")


def _escaped(text: str) -> bool:
    with suppress(UnicodeEncodeError):
        text.encode("utf-8", "surrogateescape")
        return True
    return False
