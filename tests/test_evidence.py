"""What is kept of bad sets: enough to find out why, little enough to keep, and never at the verdict's cost."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from omegaconf import OmegaConf

from runner.errors import GuestDied
from runner.events import Run, TaskDoneEvent
from runner.faults.evidence import MAX_EVENTS, EvidenceStore
from runner.model import Task, TaskSet
from runner.tasksets.explicit import ExplicitTaskSets, write_down
from tests.cli import environment
from tests.fleet_samples import one
from tests.strategies import tasksets

ERROR = GuestDied("the guest panicked", evidence="Kernel panic - not syncing")


def attempt(taskset: TaskSet, set_idx: int = 0) -> Run:
    return Run(taskset=taskset, machine="qemu1", attempt=3, set_idx=set_idx)


def read_again(path: Path) -> TaskSet:
    """The set of an experiment's file, read as Hydra would."""
    content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")), resolve=True)
    assert isinstance(content, dict)
    (taskset,) = ExplicitTaskSets(content["tasksets"]["tasksets"]).variants()
    return taskset


@given(tasksets())
def test_a_set_that_is_written_down_is_the_same_when_it_is_read(taskset: TaskSet) -> None:
    (again,) = ExplicitTaskSets([write_down(taskset)]).variants()
    assert again.taskset_id == taskset.taskset_id
    assert (again.name, again.tasks) == (taskset.name, taskset.tasks)


@settings(max_examples=30)
@given(tasksets(max_tasks=3))
def test_the_file_of_a_set_yields_it_again(
    tmp_path_factory: pytest.TempPathFactory, taskset: TaskSet
) -> None:
    kept = EvidenceStore(tmp_path_factory.mktemp("bad")).keep(attempt(taskset), ERROR)
    assert kept is not None
    assert read_again(kept / "experiment" / "alone.yaml").taskset_id == taskset.taskset_id


def test_what_is_kept(tmp_path: Path) -> None:
    console, stderr = tmp_path / "console.log", tmp_path / "qemu.stderr"
    console.write_bytes(b"x" * 100_000 + b"the end")
    events = [TaskDoneEvent(0, number) for number in range(500)]
    store = EvidenceStore(tmp_path / "bad")
    kept = store.keep(attempt(one(), 7), ERROR, logs=(console, stderr), events=events)
    assert kept == tmp_path / "bad" / f"7-{one().taskset_id}"
    files = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert files == ["console.log", "error.txt", "events.txt", "experiment/alone.yaml"]
    assert not [path for path in (kept, *kept.rglob("*")) if path.stat().st_mode & 0o077], "the user's alone"
    assert len((kept / "console.log").read_bytes()) == 64 << 10
    assert (kept / "console.log").read_bytes().endswith(b"the end")
    lines = (kept / "events.txt").read_text().splitlines()
    assert len(lines) == MAX_EVENTS
    assert "t_ns=499" in lines[-1]
    report = (kept / "error.txt").read_text()
    for part in ("the guest panicked", "Kernel panic", "attempt 3", "place 7", "experiment=alone"):
        assert part in report


def test_a_name_that_looks_like_a_reference_is_a_name(tmp_path: Path) -> None:
    taskset = TaskSet((Task(period_ns=None, wcet_ns=1, name="${oc.env:HOME}"),), name="${a} $${b} 'ö' 𐀀")
    kept = EvidenceStore(tmp_path).keep(attempt(taskset), ERROR)
    assert kept is not None
    again = read_again(kept / "experiment" / "alone.yaml")
    assert (again.name, again.tasks[0].name) == (taskset.name, "${oc.env:HOME}")


def test_the_command_in_the_report_runs_the_set_alone(tmp_path: Path) -> None:
    kept = EvidenceStore(tmp_path / "a run" / "bad").keep(attempt(one(3)), ERROR)
    assert kept is not None
    command = re.search(r"^  (cd .*)$", (kept / "error.txt").read_text(), re.M)
    assert command is not None
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command[1]} machines=simulation hydra.run.dir='{tmp_path}/alone'"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "1 done" in (tmp_path / "alone" / "distributor.log").read_text()


def test_there_are_so_many_and_no_more(tmp_path: Path) -> None:
    store = EvidenceStore(tmp_path, max_sets=3)
    assert [store.keep(attempt(one(n), n), ERROR) is None for n in range(5)] == [False] * 3 + [True] * 2
    assert store.keep(attempt(one(1), 1), GuestDied("again")) is not None, "in the place of what was there"
    assert EvidenceStore(tmp_path, max_sets=3).keep(attempt(one(9), 9), ERROR) is None, "also the next runner"
    assert "again" in (tmp_path / f"1-{one(1).taskset_id}" / "error.txt").read_text()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad").write_text("in the way")
    store = EvidenceStore(tmp_path / "bad")
    with caplog.at_level(logging.WARNING):
        assert [store.keep(attempt(one(n), n), ERROR) for n in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert one(0).taskset_id in caplog.text


def test_what_is_half_written_is_removed(tmp_path: Path) -> None:
    """A log that cannot be read to its end: nothing is left that could be taken for the whole."""
    log = tmp_path / "console.log"
    os.mkdir(log)
    assert EvidenceStore(tmp_path / "bad").keep(attempt(one()), ERROR, logs=(log,)) is None
    assert list((tmp_path / "bad").iterdir()) == []


def test_json_is_yaml(tmp_path: Path) -> None:
    kept = EvidenceStore(tmp_path).keep(attempt(one()), ERROR)
    assert kept is not None
    text = (kept / "experiment" / "alone.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert yaml.safe_load(text)["defaults"] == [{"override /tasksets": "explicit"}]
