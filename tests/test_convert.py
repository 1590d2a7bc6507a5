"""Task sets from files on the command line: `python -m runner.convert`, and `tasksets=file`."""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from runner.convert import main
from runner.errors import HostError, UsageError
from runner.formats.export import export
from runner.formats.jobs import Options
from runner.formats.kinds import FORMATS
from runner.formats.source import N_LOOKED_AT, FileTaskSets
from runner.model import OverrunPolicy, Task, TaskSet
from runner.tasksets import UUniFastTaskSets
from runner.units import NS_PER_MS
from tests.cli import run_cli

GOLDEN = Path(__file__).parent / "golden"
TUTORIAL = GOLDEN / "tutorial.simso"
SMALL = UUniFastTaskSets(
    n_tasks=2, utilizations=[0.5], sets_per_utilization=5, periods=["10ms", "20ms"], hyperperiods=1
)


def converted(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = main([str(one) for one in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def saved(path: Path, source: Callable[[], TaskSet] | UUniFastTaskSets, name: str) -> Path:
    sets = source.variants if isinstance(source, UUniFastTaskSets) else lambda: iter([source()])
    export(sets, FORMATS[name], path, Options(), lossy=False)
    return path


def short() -> TaskSet:
    return TaskSet((Task(period_ns=10 * NS_PER_MS, wcet_ns=NS_PER_MS, n_jobs=3),), name="short")


class TestCommand:
    """The command."""

    def test_there_and_back(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = converted(capsys, TUTORIAL, tmp_path / "tutorial.json")
        assert (code, out, err) == (0, f"1 task set → {tmp_path / 'tutorial.json'}\n", "")
        code, _, err = converted(capsys, tmp_path / "tutorial.json", tmp_path / "tutorial.simso")
        assert (code, err) == (0, "")
        assert (tmp_path / "tutorial.simso").read_text() == TUTORIAL.read_text()

    def test_what_would_be_lost_is_refused_or_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task = Task(period_ns=10 * NS_PER_MS, wcet_ns=1_000_001, n_jobs=3, mem_limit_bytes=1 << 20)
        source = saved(tmp_path / "one.json", lambda: TaskSet((task,), name="two"), "json")
        target = tmp_path / "two.json"
        code, out, err = converted(capsys, source, target, "--to", "rt-app")
        assert (code, out) == (2, "")
        assert "2 things would be lost" in err
        assert "wcet_ns: 1.000001ms → 1.001ms" in err
        assert "mem_limit_bytes: 1MiB → none" in err
        assert not target.exists()
        code, out, err = converted(capsys, source, target, "--to", "rt-app", "--lossy")
        assert code == 0
        assert err.count("lost: ") == 2
        assert json.loads(target.read_text())["tasks"]["task"]["run"] == 1001

    def test_one_of_several(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = saved(tmp_path / "sets.jsonl", SMALL, "jsonl")
        code, _, err = converted(capsys, source, tmp_path / "one.simso")
        assert code == 2
        assert "--set 0" in err
        assert converted(capsys, source, tmp_path / "one.simso", "--set", 3, "--lossy")[0] == 0
        (back,) = FileTaskSets(str(tmp_path / "one.simso")).variants()
        wanted = next(islice(SMALL.variants(), 3, None))
        assert [task.period_ns for task in back.tasks] == [task.period_ns for task in wanted.tasks]
        code, _, err = converted(capsys, source, tmp_path / "one.json", "--set", 5)
        assert code == 2
        assert "no task set 5" in err

    def test_the_unit_and_the_duration(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = tmp_path / "a.xml"
        source.write_text('<taskset><task period="7" wcet="3"/></taskset>')
        target = tmp_path / "a.json"
        assert converted(capsys, source, target, "--unit", "ms", "--duration", "70ms")[0] == 0
        (found,) = FileTaskSets(str(target)).variants()
        assert (found.tasks[0].period_ns, found.tasks[0].n_jobs) == (7 * NS_PER_MS, 10)

    @pytest.mark.parametrize(
        ("arguments", "code", "what"),
        [
            ([], 2, "two files are needed"),
            (["nosuch.json", "b.json"], 2, "there is no such file"),
            ([".", "b.json"], 2, "no regular file"),
            (["/dev/null", "b.json"], 2, "no regular file"),
            ([TUTORIAL, "b.txt"], 2, "the suffix '.txt' does not say"),
            ([TUTORIAL, "nosuch/b.json"], 4, "cannot be written"),
            ([TUTORIAL, "b.json", "--from", "rt-app"], 2, "no JSON"),
            ([TUTORIAL, "b.json", "--unit", "parsec"], 2, "--unit"),
            ([TUTORIAL, "b.json", "--duration", "0s"], 2, "--duration"),
            ([TUTORIAL, "b.json", "--set", "-1"], 2, "--set"),
            ([TUTORIAL, "/dev/null", "--to", "json"], 2, "no regular file"),
            ([TUTORIAL, "b.db"], 2, "'spin', which the original does not have"),
        ],
    )
    def test_what_is_wrong_is_told(  # noqa: PLR0917 - pytest names them
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[object],
        code: int,
        what: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found, out, err = converted(capsys, *arguments)
        assert (found, out) == (code, "")
        assert what in err
        assert list(tmp_path.iterdir()) == []

    def test_a_target_is_replaced_at_once_or_not_at_all(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = tmp_path / "b.sh"
        target.write_text("before")
        source = saved(tmp_path / "a.json", short, "json")
        assert converted(capsys, source, target)[0] == 0
        assert target.read_text() == "rtspin -w -d 10 -o 0 -q 1 1 10 0.03\n"
        assert converted(capsys, tmp_path / "nosuch", target)[0] == 2
        assert target.read_text() == "rtspin -w -d 10 -o 0 -q 1 1 10 0.03\n"


class TestSource:
    """`tasksets=file`."""

    def test_a_run_measures_them(self, tmp_path: Path) -> None:
        done = run_cli(
            tmp_path, "tasksets=file", f"tasksets.path={TUTORIAL}", "machines=simulation", "monitors=[sqlite]"
        )
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(tmp_path / "run/results.sqlite")) as database:
            worst = database.execute("SELECT worst_response_ns FROM responses ORDER BY task_idx").fetchall()
            ((generator, params),) = database.execute(
                "SELECT generator, generator_params_json FROM tasksets"
            ).fetchall()
        assert worst == [(3 * NS_PER_MS,), (6 * NS_PER_MS,), (20 * NS_PER_MS,)]
        assert generator == "file"
        assert json.loads(params) == {"path": str(TUTORIAL), "format": "simso", "set_idx": 0}

    def test_a_mistake_names_key_file_and_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a.xml"
        path.write_text(TUTORIAL.read_text().replace('WCET="5"', 'WCET="five"'))
        done = run_cli(tmp_path, "tasksets=file", f"tasksets.path={path}", "machines=simulation")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert f"tasksets.path: {path}: line 7, <task>, WCET" in done.stderr

    def test_what_would_be_lost_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.xml"
        path.write_text(TUTORIAL.read_text().replace('ACET="0"', 'ACET="1"', 1))
        with pytest.raises(UsageError, match="ACET '1' is not carried") as caught:
            FileTaskSets(str(path))
        assert "tasksets.lossy=true" in caught.value.next_step
        assert FileTaskSets(str(path), lossy=True).n_variants == 1

    def test_sets_keep_where_they_come_from(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "sets.jsonl", SMALL, "jsonl")
        given = list(SMALL.variants())
        back = list(FileTaskSets(str(path)).variants())
        assert back == given
        assert [one.provenance.seed for one in back] == [one.provenance.seed for one in given]

    @pytest.mark.parametrize("name", ["jsonl", "original"])
    def test_one_set_after_the_other_is_in_memory(self, tmp_path: Path, name: str) -> None:
        source = FileTaskSets(str(_of_many(tmp_path / "sets", name, 2_000)), format=name)
        seen: list[weakref.ref[TaskSet]] = []
        for taskset in source.variants():
            seen.append(weakref.ref(taskset))
            assert not [one for one in seen[-50:-3] if one() is not None]
        assert source.n_variants == len(seen) == 2_000

    def test_a_later_set_is_checked_when_its_turn_comes(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "one.jsonl", short, "jsonl")
        line = path.read_text()
        path.write_text(line * N_LOOKED_AT + line.replace("10ms", "10"))
        source = FileTaskSets(str(path))
        assert source.n_variants == N_LOOKED_AT + 1
        with pytest.raises(UsageError) as caught:
            list(source.variants())
        assert f"line {N_LOOKED_AT + 1}" in caught.value.where

    def test_a_file_that_changes_is_noticed(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "sets.jsonl", SMALL, "jsonl")
        sets = FileTaskSets(str(path)).variants()
        next(sets)
        os.utime(path, ns=(0, 0))
        with pytest.raises(UsageError, match="has changed"):
            next(sets)

    def test_a_folder_is_all_its_files(self, tmp_path: Path) -> None:
        (folder := tmp_path / "sets").mkdir()
        saved(folder / "b.jsonl", SMALL, "jsonl")
        saved(folder / "a.xml", short, "simso")
        (folder / ".hidden").write_text("not looked at")
        source = FileTaskSets(str(folder))
        back = list(source.variants())
        assert source.n_variants == len(back) == 6
        assert back[0].provenance.params["path"] == str(folder / "a.xml")
        (folder / "c.txt").write_text("something else")
        with pytest.raises(UsageError, match="which format") as caught:
            FileTaskSets(str(folder))
        assert "c.txt" in caught.value.where

    def test_no_set_at_all_is_refused(self, tmp_path: Path) -> None:
        (path := tmp_path / "a.jsonl").touch()
        with pytest.raises(UsageError, match="no task set"):
            FileTaskSets(str(path))

    def test_a_file_that_is_not_to_be_read_is_the_hosts(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match="cannot be read"):
            FileTaskSets(str(tmp_path / ("x" * 300)))
        with pytest.raises(UsageError, match="no such file"):
            FileTaskSets("\0", format="json")


def _of_many(path: Path, name: str, n_sets: int) -> Path:
    """A file with the same set many times."""
    if name == "jsonl":
        line = saved(path, short, name).read_text()
        path.write_text(line * n_sets)
        return path
    task = Task(period_ns=NS_PER_MS * 10, workload="hey", mem_limit_bytes=100 << 20)
    one = TaskSet((task,), overrun_policy=OverrunPolicy.KILL_AND_SKIP)
    export(lambda: iter([one]), FORMATS[name], path, Options(), lossy=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        rows = ((number, None, 0, -1, -1, -1) for number in range(1, n_sets))
        database.executemany("INSERT INTO TaskSet VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
    return path
