"""A run from Python: the same run, its results as they come, and no way to leave it behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.config.record import read_record
from runner.config.resuming import read_manifest
from runner.data.audit import audit
from runner.errors import HostError, RunnerError, UsageError
from runner.exit_codes import ExitCode
from runner.notebook.bar import Bar
from runner.notebook.figures import Figure
from runner.notebook.messages import Placed, error_line, placed_line, read_line
from runner.notebook.started_run import StartedRun
from runner.paths import RunPaths
from runner.run_folder.pulse import MachinePulse, Pulse
from tests.cli import ROOT, RUN_TIMEOUT_S, environment, processes_of, run_cli
from tests.qemu_guests import PATIENCE_S, eventually

SIMULATED = ("machines=simulation", "report=false", "monitors.sqlite.parquet=null")
SAME = (*SIMULATED, "tasksets.seed=7", "machines.count=2")
#: Each set takes half a second, and there are more than any test waits for.
LONG = (*SIMULATED, "machines.session.realtime_factor=20", "tasksets.sets_per_utilization=200")
#: A script as a user would write it, which tells when the first result is there.
SCRIPT = f"""
import os, sys
import runner
with runner.start(*{LONG!r}, "hydra.run.dir=run") as run:
    for result in run:
        print("first", flush=True)
        break
    {{then}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def runs_in(folder: Path) -> list[str]:
    """The processes that work in a folder, or speak of it; but this one."""
    found = processes_of(folder)
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.readlink() == folder and int(path.parent.name) != os.getpid():
                found.append((path.parent / "cmdline").read_text())
    return found


def nothing_runs_in(folder: Path) -> bool:
    return eventually(lambda: not runs_in(folder), within_s=PATIENCE_S)


def jobs_of(run: Path) -> list[dict[str, Any]]:
    """All jobs; a simulated run's id is its own, so sets are told by theirs."""
    tables = runner.load(run).tables
    sets = dict(
        zip(tables["runs"]["run_id"].to_pylist(), tables["runs"]["taskset_id"].to_pylist(), strict=True)
    )
    rows = [{**row, "run_id": sets[row["run_id"]]} for row in tables["jobs"].to_pylist()]
    return sorted(rows, key=lambda row: (row["run_id"], row["task_idx"], row["job_idx"]))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[StartedRun, str]:
    """A run that is over, and what it has printed."""
    place = tmp_path_factory.mktemp("ended") / "run"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), runner.start(*SAME, f"hydra.run.dir={place}") as run:
        for result in run:
            assert result.machine in {"qemu1", "qemu2"}
    assert run.folder == place
    return run, printed.getvalue()


def test_it_is_the_run_of_the_command_line(here: Path, ended: tuple[StartedRun, str]) -> None:
    run, told = ended
    results = list(run)
    shell = here / "run"
    done = run_cli(here, *SAME, f"hydra.run.dir={shell}")
    assert done.returncode == ExitCode.OK, done.stderr
    assert jobs_of(run.folder) == jobs_of(shell)
    assert read_record(run.folder).config == read_record(shell).config
    names = [sorted(one.name for one in folder.rglob("*") if one.is_file()) for folder in (run.folder, shell)]
    assert names[0] == names[1]
    ours, theirs = (read_manifest(RunPaths(folder).manifest) for folder in (run.folder, shell))
    assert ours is not None
    assert theirs is not None
    assert set(ours) == set(theirs)
    assert ours["ended"]["exit_code"] == 0
    # What it prints, too: the summary, and where it is.
    assert done.stdout.rpartition("run folder")[0] in told
    assert told.endswith(f"run folder: {run.folder}\n")
    rows = {row["taskset_id"]: row for row in run.data.tables["runs"].to_pylist()}
    assert len(results) == len(rows) == 20
    for result in results:
        row = rows[result.taskset_id]
        assert (result.n_jobs, result.n_missed) == (row["n_jobs"], row["n_missed"])
        assert result.schedulable is row["schedulable"]
        assert len(result.jobs) == result.n_jobs
        assert (result.worst_response or 0) > 1 or result.n_missed == 0
    # A loop begins anew, also when all is over.
    assert [one.run_id for one in run] == [one.run_id for one in results]
    assert run.code is ExitCode.OK
    assert run.wait() is ExitCode.OK


def test_left_in_the_middle_it_can_be_resumed(here: Path) -> None:
    few = (*SIMULATED, "machines.session.realtime_factor=20")
    with runner.start(*few) as run:
        first = next(iter(run)).taskset_id
        assert run.wait(timeout_s=0) is None, "results come while the run goes on"
        assert f"{run!r}".startswith(f"<run in {run.folder}: run, ")
    assert run.code is ExitCode.STOPPED
    (one,) = audit(run.folder / "results.sqlite").accounts
    assert 0 < one.n_done < one.n_submitted == 20
    assert nothing_runs_in(run.folder)
    with pytest.raises(UsageError, match="it has ended"):
        run.rescale(2)
    with runner.start(resume=run.folder) as resumed:
        resumed.rescale(5)
        ids = [result.taskset_id for result in resumed]
    assert ids[0] == first
    assert len(ids) == len(set(ids)) == 20
    # One that is complete says so, and has its results.
    complete = runner.start(resume=run.folder)
    assert complete.wait() is ExitCode.OK
    assert [result.taskset_id for result in complete] == ids


def test_it_is_steered_while_it_goes_on() -> None:
    with runner.start(*LONG) as run:
        run.rescale(3)
        seen = iter(run)
        assert {next(seen).machine for _ in range(6)} <= {"qemu1", "qemu2", "qemu3"}
        assert run._pulse.n_wanted == 3
        run.pause()
        assert run._pulse.state == "pause"
        run.resume()
        assert run.wait(timeout_s=0) is None
        with pytest.raises(UsageError, match="8 machines are asked for, the limit is 7"):
            run.rescale(8)
        run.stop(kill=True)
    assert run.code is ExitCode.STOPPED


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (("machines.cuont=2",), UsageError, "there is no key machines.cuont\n.*\n.*did you mean machines.count?"),
        (("machines.qemu.qemu_binary=/nowhere/qemu",), HostError, "/nowhere/qemu"),
        (("--cfg", "job"), UsageError, "no run was asked for"),
        (("--multirun", "tasksets.seed=1,2"), UsageError, "a sweep is more than one run"),
        (("+api_key=hunter22",), UsageError, "holds a password or token"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_raised(here: Path, overrides: tuple[str, ...], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        runner.start(*overrides)
    assert "hunter22" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert nothing_runs_in(here)


def test_a_run_that_fails_says_so_at_the_end(here: Path) -> None:
    (here / "broken.py").write_text(
        "from runner import AbstractMonitor\n"
        "class Broken(AbstractMonitor):\n"
        "    required = True\n"
        "    def __taskset_finish__(self, run, result):\n"
        "        raise ValueError('no more')\n"
    )
    with pytest.raises(RunnerError, match="a bug ended the run: ValueError: no more"):  # noqa: SIM117
        with runner.start(*LONG, "+monitors.broken._target_=broken.Broken") as run:
            list(run)
    assert run.code is ExitCode.BUG
    with pytest.raises(RunnerError, match="no more"):
        run.wait()


def test_without_a_data_set_there_are_no_results() -> None:
    with runner.start("machines=simulation", "report=false", "monitors=[logging]") as run:  # noqa: SIM117
        with pytest.raises(UsageError, match="keeps no data set"):
            list(run)


def test_a_slow_reader_loses_nothing_and_nothing_waits_for_it_in_memory() -> None:
    overrides = (*SIMULATED, "monitors.sqlite.analyses=none", "tasksets.sets_per_utilization=120")
    with runner.start(*overrides, "tasksets.hyperperiods=1") as run:
        results = iter(run)
        ids = {next(results).taskset_id}
        assert run.wait() is ExitCode.OK, "nobody waits for the reader"
        tracemalloc.start()
        try:
            ids.update(result.taskset_id for result in results)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(ids) == 600
    assert most_bytes < 2 << 20


def test_two_at_once_from_a_thread_and_from_asyncio() -> None:
    counts: list[int] = []

    def count() -> None:
        with runner.start(*SIMULATED, "hydra.run.dir=first") as run:
            counts.append(sum(1 for _ in run))

    async def count_too() -> int:
        with runner.start(*SIMULATED, "hydra.run.dir=second") as run:
            return len([result async for result in run])

    thread = threading.Thread(target=count)
    thread.start()
    assert asyncio.run(count_too()) == 20
    thread.join()
    assert counts == [20]


def test_who_lets_go_of_it_ends_it(here: Path) -> None:
    run = runner.start(*LONG, "hydra.run.dir=run")
    assert any("notebook.child" in one for one in runs_in(here))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del run
        gc.collect()
    assert nothing_runs_in(here)
    (one,) = audit(here / "run" / "results.sqlite").accounts
    assert one.n_bad == 0
    resumed = runner.start(resume="run")
    os.kill(resumed._process.pid, signal.SIGKILL)
    with pytest.raises(RunnerError, match="has ended by signal 9"):
        list(resumed)


def started(here: Path, then: str) -> subprocess.Popen[str]:
    """A user's script in a process of its own, its first result seen."""
    (here / "script.py").write_text(SCRIPT.format(then=then))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=here,
        env=environment(here),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "first\n" in iter(process.stdout.readline, "")
    return process


def test_ctrl_c_ends_the_run_in_order(here: Path) -> None:
    with started(here, "run.wait()") as script:
        script.send_signal(signal.SIGINT)
        _, errors = script.communicate(timeout=RUN_TIMEOUT_S)
    assert errors.endswith("KeyboardInterrupt\n")
    assert nothing_runs_in(here)
    manifest = read_manifest(here / "run" / "manifest.json")
    assert manifest is not None
    assert manifest["ended"]["exit_code"] == ExitCode.STOPPED


def test_no_run_outlives_its_starter(here: Path) -> None:
    """Not even when a child that it has forked holds all that it had."""
    script = started(here, "os.fork()\n    run.wait()")
    try:
        script.kill()
        script.wait(timeout=RUN_TIMEOUT_S)
        assert eventually(
            lambda: not any("notebook.child" in one for one in runs_in(here)), within_s=PATIENCE_S
        )
        assert not (here / "run" / "run.lock").exists(), "it has ended in order"
    finally:
        script.communicate(timeout=RUN_TIMEOUT_S)  # the forked one has seen the end, too
    assert audit(here / "run" / "results.sqlite").violations == ()


@pytest.mark.guest
def test_on_guests(here: Path) -> None:
    with runner.start("machines.count=2", "tasksets.sets_per_utilization=1", "report=false") as run:
        results = list(run)
        assert run.code is ExitCode.OK
    assert [result.validity for result in results] == ["exact"] * 5
    assert {result.machine for result in results} <= {"qemu1", "qemu2"}
    assert {result.utilization_target: result.schedulable for result in results}[0.5] is True
    assert nothing_runs_in(here)


def test_each_figure_of_the_report_is_shown_by_itself(ended: tuple[StartedRun, str]) -> None:
    run, _ = ended
    assert set(run.figures) >= {"acceptance", "responses", "distribution", "misses", "labels", "machines"}
    figure = run.figure("acceptance")
    html = figure._repr_html_()
    assert html.count("<svg") == 1
    assert "N = 20 task sets" in html
    # The plot's colours are variables, each of which the figure brings along.
    used = {one.split(")")[0] for one in html.split("var(")[1:]}
    assert all(f"{name}: " in html for name in used)
    assert [path.name for path in figure.save("paper", ("svg",))] == ["acceptance.svg"]
    whole = run._repr_html_()
    assert whole.count("<svg") >= 7
    assert "every task set is done, 20 done and 0 bad of 20" in whole
    with pytest.raises(UsageError, match="there is no figure 'pie'"):
        run.figure("pie")


def test_words_of_a_figure_do_nothing() -> None:
    html = Figure(title="<script>", caption='"><img src=x>', charts=())._repr_html_()
    assert "<script" not in html
    assert "<img" not in html


def test_an_error_arrives_as_it_was_raised() -> None:
    error = HostError("no", where="here", next_step="go", evidence="line", log_path=Path("a.log"))
    found = read_line(error_line(error))
    assert isinstance(found, HostError)
    assert str(found) == str(error)
    placed = Placed(Path("/a b/ü"), 7)
    assert read_line(placed_line(placed)) == placed


def test_the_bar_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    machines = {"qemu1": MachinePulse()}
    bar.show(Pulse(n_done=0, n_bad=0, n_wanted=2, n_total=0, machines=machines))
    assert "set" not in capsys.readouterr().err
    bar.show(Pulse(n_done=2, n_bad=1, n_wanted=2, n_total=10, machines=machines))
    bar.say("between")
    bar.close()
    out, err = capsys.readouterr()
    assert "between" in out
    assert "task sets:  30%" in err
    assert "3/10" in err
    assert "1 bad, machines 1/2" in err
