"""The check of a ledger: what is sound passes, and every kind of damage is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runner.check import main
from runner.data.audit import audit
from runner.errors import RunnerError
from runner.events import Run
from runner.monitors.sqlite import SQLiteMonitor
from runner.submission import Submission
from tests.monitor_samples import failed, good, run, taskset


def place(set_idx: int, *, repetition: int = 1, attempt: int = 1) -> Run:
    """An attempt at the set of that place, two measurements of which are wanted."""
    one = replace(run(taskset(n=set_idx), attempt=attempt), set_idx=set_idx, repetition=repetition)
    return replace(one, identity=one.taskset.taskset_id, run_id="")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of five sets: done, bad, half measured, begun, and not handed out."""
    monitor = SQLiteMonitor(tmp_path / "results.sqlite")
    monitor.open()
    monitor.__submission__(Submission(number=1, source="Five", repeat=2, n_total=5))
    for repetition in (1, 2):
        monitor.__taskset_start__(place(0, repetition=repetition))
        monitor.__taskset_finish__(place(0, repetition=repetition), good())
    monitor.__taskset_stop__(place(1), failed())
    monitor.__taskset_bad__(place(1), RunnerError("given up"))
    monitor.__taskset_finish__(place(2), good())
    monitor.__taskset_start__(place(3))
    monitor.close()
    return monitor.path


def test_a_sound_ledger_says_what_has_become_of_every_set(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(path.parent)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "submission 1 (Five): 5 submitted = 1 done + 1 bad + 3 pending",
        "4 runs, 9 jobs: sound",
    ]


def test_it_can_be_asked_while_the_run_goes_on(tmp_path: Path) -> None:
    monitor = SQLiteMonitor(tmp_path / "results.sqlite")
    monitor.open()
    monitor.__submission__(Submission(number=1, source="Endless"))
    monitor.__taskset_finish__(run(), good())
    monitor.idle()
    (account,) = audit(monitor.path).accounts
    assert (account.n_submitted, account.n_done, account.complete) == (1, 1, False)
    monitor.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM jobs WHERE task_idx = 1", "another number of jobs"),
        ("UPDATE jobs SET finish_ns = finish_ns + 1", "not those that its digest was made of"),
        ("UPDATE jobs SET exit_type = 'WHATEVER'", "not those that its digest was made of"),
        ("DELETE FROM ledger WHERE set_idx = 2", "belongs to no measurement"),
        ("UPDATE ledger SET run_id = NULL WHERE set_idx = 2", "has no valid run"),
        ("UPDATE ledger SET taskset_id = 'x' WHERE set_idx = 2", "has no valid run of that task set"),
        ("UPDATE ledger SET taskset_id = 'x' WHERE set_idx = 0 AND repetition = 2", "share a place"),
        ("UPDATE submissions SET repeat = 1", "more measurements of a set than were asked for"),
        ("UPDATE submissions SET n_total = 2", "2 submitted, but 1 done + 1 bad + 2 pending"),
        ("DELETE FROM runs WHERE n_jobs IS NOT NULL", "that is not there"),
        ("UPDATE runs SET schedulable = 1 WHERE n_jobs IS NULL", "does not count has a label"),
        ("UPDATE runs SET table_sha256 = 'x' WHERE repetition = 2", "different job tables"),
        ("DELETE FROM tasks WHERE task_idx = 1", "another number of tasks"),
        ("UPDATE tasksets SET state = 'done'", "counts as measured"),
    ],
)
def test_every_kind_of_damage_is_found(
    path: Path, capsys: pytest.CaptureFixture[str], damage: str, said: str
) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(damage).rowcount > 0
        database.commit()
    assert main([str(path)]) == 1
    assert said in capsys.readouterr().err


def test_a_torn_file_is_no_traceback(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 5 * 4096] = bytes(2 * 4096)
    path.write_bytes(content)
    assert main([str(path)]) in (1, 2)
    assert capsys.readouterr().err


def test_what_is_no_ledger_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    (tmp_path / "results.sqlite").touch()
    assert main([str(tmp_path)]) == 0
    assert "nothing was submitted" in capsys.readouterr().out
