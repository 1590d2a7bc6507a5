"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import runner
from tests.cli import ROOT
from tests.report_samples import simulated


def example(name: str) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def test_a_model_learns_what_was_measured_without_a_leak(tmp_path: Path) -> None:
    """The same sets under two schedulers: split at random, half of the tested ones would be known."""
    run = simulated(
        tmp_path,
        "tasksets=random",
        "tasksets.utilizations=[0.7,0.8,0.9,0.95,1.0]",
        "tasksets.sets_per_utilization=20",
        "tasksets.policy=[fifo,deadline]",
        "tasksets.horizon=500ms",
    )
    features = runner.load(run).tables["features"]
    lineages = features["group_lineage"].to_pylist()
    assert len(set(lineages)) < len(lineages)
    module = example("learn")
    splits = module.learn(str(run))
    assert sum(split.n_test for split in splits) == 200
    assert all(split.n_train + split.n_test == 200 for split in splits)
    model = sum(split.model * split.n_test for split in splits) / 200
    frequent = sum(split.frequent * split.n_test for split in splits) / 200
    assert model > frequent
