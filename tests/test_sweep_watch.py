"""One meter over the runs of a sweep, whichever process each is in."""

from __future__ import annotations

import io
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runner.exit_codes import ExitCode
from runner.operator.meter import Meter
from runner.operator.sweep_watch import SweepWatch, SweptRun, Tally, tally_of
from runner.run_folder.jobs import JobFiles

COUNTS = st.integers(0, 1000)
TALLIES = st.builds(Tally, st.none() | COUNTS, COUNTS, COUNTS)


def has(folder: Path, total: int | None, done: int, bad: int = 0) -> None:
    """A run of which so much is done."""
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"tasksets": {"total": total, "done": done, "bad": bad}}))


@given(TALLIES, TALLIES, TALLIES)
def test_tallies_add_up(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Tally() == a
    assert ((a + b).n_total is None) is (a.n_total is None or b.n_total is None)


def test_what_nobody_knows_yet_is_what_was_planned(tmp_path):
    assert tally_of(tmp_path / "0", 7) == Tally(7)
    has(tmp_path / "0", None, 3)
    assert tally_of(tmp_path / "0", 7) == Tally(7, 3)
    assert tally_of(tmp_path / "0", None) == Tally(None, 3)
    for damaged in ("", "{", "[]", '{"tasksets": 1}', '{"tasksets": {"total": 1, "done": null, "bad": 0}}'):
        (tmp_path / "0" / "status.json").write_text(damaged)
        assert tally_of(tmp_path / "0", 7) == Tally(7)


def test_one_line_has_all_runs(tmp_path):
    stream = io.StringIO()
    runs = [
        SweptRun(number=number, title=f"run {number + 1}/4", folder=tmp_path / str(number), n_sets=5)
        for number in range(3)
    ]
    has(tmp_path / "3", 5, 4, 1)
    done = SweptRun(number=3, title="run 4/4", folder=tmp_path / "3", code=ExitCode.BAD_TASKSETS)
    watch = SweepWatch([*runs, done], Meter("sweep", stream=stream))
    with watch:
        has(tmp_path / "0", 5, 5)
        has(tmp_path / "1", 5, 2)
        has(tmp_path / "2", 5, 1)
        for number in (0, 1, 2):
            watch.began(number)
        watch.ended(0, ExitCode.OK)
        watch.ended(2, ExitCode.HOST)
        watch.began(0)  # told late
    assert watch.codes == [ExitCode.BAD_TASKSETS, ExitCode.OK, ExitCode.HOST]
    assert [run.number for run in watch.waiting] == [1]
    lines = stream.getvalue().splitlines()
    assert lines[0] == "sweep: 5/20, 4 done, 1 bad, runs 1/4, 0 at work"
    assert lines[-1].startswith("sweep: 13/20, 12 done, 1 bad, runs 2/4, 1 at work, 1 failed")
    assert [line for line in lines if line.startswith("run ")] == ["run 1/4", "run 2/4", "run 3/4"]


def test_jobs_tell_what_they_print_and_how_they_end(tmp_path):
    files = JobFiles(tmp_path)
    assert JobFiles(tmp_path).stopped  # nobody waits
    files.open()
    assert JobFiles(tmp_path).stopped is False
    assert not files.began(4)
    with files.printing(4):
        print("one")
        print("half", end="")
        assert files.new_lines(4, "out") == ["one"]
        assert files.new_lines(4, "out") == []
        print(" a line")
    assert files.began(4)
    assert files.new_lines(4, "out") == ["half a line"]
    assert files.new_lines(4, "err") == []
    assert files.code(4) is None
    files.ended(4, ExitCode.STOPPED)
    assert files.code(4) is ExitCode.STOPPED
    files.stop()
    assert JobFiles(tmp_path).stopped
    files.close()
    assert not list(tmp_path.iterdir())
