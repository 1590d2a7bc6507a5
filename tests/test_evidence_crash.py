"""Evidence of bad task sets, in a folder where a runner was killed before."""

from __future__ import annotations

from pathlib import Path

from runner.errors import TaskSetError
from runner.faults.evidence import EvidenceStore
from tests.monitor_samples import run, taskset


def test_what_a_killed_runner_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    kept = EvidenceStore(folder).keep(run(taskset()), TaskSetError("refused"))
    assert kept is not None
    (folder / ".7-0123456789abcdef" / "experiment").mkdir(parents=True)
    EvidenceStore(folder)
    assert list(folder.iterdir()) == [kept]
    assert EvidenceStore(tmp_path / "none").keep(run(taskset()), TaskSetError("refused")) is not None
