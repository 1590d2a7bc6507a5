"""The view `disagreements`, and its command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.disagreements import main
from runner.monitors.sqlite import SQLiteMonitor
from tests.monitor_samples import good, run


def disagreeing(folder: Path, verdict: str, n_missed: int, horizon_ns: int | None) -> Path:
    """A data set with one run, and one analysis of its set."""
    path = folder / "results.sqlite"
    monitor = SQLiteMonitor(path)
    monitor.open()
    monitor.__taskset_finish__(run(), good())
    monitor.close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM analysis_tasks")
        database.execute("DELETE FROM analyses")
        database.execute("UPDATE runs SET n_missed = ?, schedulable = ?", (n_missed, n_missed == 0))
        database.execute(
            "INSERT INTO analyses SELECT taskset_id, 'rta', coalesce(vcpus, 1), ?, 'exact', .1, 1.0, ? FROM runs",
            (verdict, horizon_ns),
        )
    return path


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (("schedulable", 1, None), "proven, missed"),
        (("unschedulable", 0, 1), "must miss, met"),
        (("unschedulable", 0, 1 << 60), None),
        (("unschedulable", 0, None), None),
        (("schedulable", 0, None), None),
        (("unknown", 1, None), None),
    ],
)
def test_contradictions_are_listed_with_their_command(tmp_path, capsys, case, kind):
    path = disagreeing(tmp_path, *case)
    assert main([str(path)]) == 0
    told = capsys.readouterr().out
    if kind is None:
        assert told.startswith("0 disagreements")
    else:
        assert kind in told
        assert "experiment=alone" in told
        (written,) = (tmp_path / "disagreements").glob("*/experiment/alone.yaml")
        assert "override /tasksets" in written.read_text()
