"""Asking why: of real runs that went well and badly, while they go on and afterwards."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.data import schema
from runner.deadline import Deadline
from runner.events import Event, JobEvent, Validity
from runner.exit_codes import ExitCode
from runner.monitors.sqlite import SQLiteMonitor
from runner.sessions.simulation import SimulationSession
from runner.why.__main__ import main
from tests.cli import RUN_TIMEOUT_S, environment, run_cli, started_cli
from tests.fleet_samples import Plan as Faults
from tests.fleet_samples import Sets, distributor, faulty_kind, kind_of, wait_to_end
from tests.qemu_guests import eventually

#: A session that does something to the sets of some names.
OWN = """
from runner.errors import GuestDied, TaskSetError
from runner.sessions.simulation import SimulationSession

COUNTS = {}


class Spoilt(SimulationSession):
    def start(self, taskset, deadline):
        COUNTS[taskset.name] = COUNTS.get(taskset.name, 0) + 1
        if taskset.name == "u0.5-1":
            raise TaskSetError("this set is not to my taste")
        if taskset.name == "u0.65-1" and COUNTS[taskset.name] == 1:
            raise GuestDied("the guest panicked", evidence="Kernel panic - not syncing")
        super().start(taskset, deadline)

"""


def ask(folder: Path, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    path = folder / "results.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        return database.execute(sql, parameters).fetchall()


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twenty sets, each measured twice: one is bad, one failed at first; and what its machine met."""
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / "own.py").write_text(OWN)
    done = run_cli(
        folder,
        "machines=custom",
        "machines.session._target_=own.Spoilt",
        "tasksets.sets_per_utilization=4",
        "repeat=2",
    )
    assert done.returncode == ExitCode.BAD_TASKSETS, done.stderr
    run = folder / "run"
    ((bad_id, bad_idx),) = ask(
        run, "SELECT DISTINCT taskset_id, set_idx FROM tasksets JOIN ledger USING (taskset_id) WHERE name = 'u0.5-1'"
    )  # fmt: skip
    evidence = f"bad/{bad_idx}-{bad_id}"
    shutil.rmtree(run / evidence, ignore_errors=True)
    (run / evidence).mkdir(parents=True)
    (run / evidence / "error.txt").write_text("given up\n\nthis set is not to my taste\n")
    (run / evidence / "console.log").write_bytes(b"[    0.1] \x1b[31mBUG\x1b[0m: the last straw\r\n")
    ((first_id, first_idx, first_utc),) = ask(
        run,
        "SELECT taskset_id, set_idx, started_utc FROM runs JOIN tasksets USING (taskset_id) JOIN ledger USING (taskset_id)"
        " WHERE name = 'u0.65-1' AND outcome = 'guest_crash' LIMIT 1",
    )
    ask(run, "DELETE FROM incidents")
    columns = ", ".join("?" * len(schema.INCIDENTS.columns))
    for row in (
        (1, first_utc, "qemu1", "guest", "the guest panicked", "snapshot", None, first_id, 1, first_idx, 1, 1, None),
        (2, first_utc, "qemu1", "taskset", "it ruins its guest", "cold_boot", None, bad_id, 1, bad_idx, 1, 1, evidence),
        (3, "2026-01-02T03:04:05+00:00", "qemu1", "guest", "no boot\nlast words", None, 90.0, *[None] * 6),
    ):  # fmt: skip
        ask(run, f"INSERT INTO incidents VALUES ({columns})", *row)
    return run


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(one) for one in arguments]) == 0
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    return text


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(one) for one in arguments]) == ExitCode.USAGE
    return capsys.readouterr().err


def first(text: str) -> str:
    return text.splitlines()[0]


def test_a_run_is_told_in_a_sentence_and_then_in_detail(spoilt, capsys):
    text = told(capsys, spoilt)
    assert first(text) == (
        "The run has ended (ended, some task sets are bad): 20 submitted = 19 done + 1 bad + 0 pending."
    )
    assert re.search(r"next: python -m runner.why \S+/run '#\d+' tells more of a bad task set", text)
    assert "2 x guest, 1 task set, 1 machine; last 2026-01-02 03:04:05: no boot\n" in text
    assert re.search(
        r"qemu1: \d+ measured in \d+ attempts, 3 incidents, put aside 1 x; last fault 2026.*: no boot\n", text
    )
    assert re.search(
        r"#\d+ u0.5-1 \[\w+\]: this set is not to my taste \(fault: taskset\); evidence: bad/\d+-\w+", text
    )
    assert re.search(r"WARNING runner.tasksets: qemu1: stop u0.65-1", text)


def test_a_set_that_is_schedulable(spoilt, capsys):
    text = told(capsys, spoilt, "u0.9-0")
    assert re.fullmatch(
        r"u0.9-0 \[\w{16}\], #3: done, and schedulable: \d+ jobs, 0 missed, worst response 0\.\d+ D \(task t\d\).",
        first(text),
    )
    assert re.search(r"task +T +C +D +offset +priority +jobs +policy +workload\n", text)
    assert "handed out as #3, 2 of 2 measurements done, 0 failed" in text
    assert "attempt 1 on qemu1, repetition 2: completed" in text
    assert "2 measurements: 2 schedulable, 0 not, 0 open" in text
    assert re.search(r"runner.tasksets: qemu1: finish u0.9-0", text)


def test_a_set_that_is_not_says_who_missed_first_and_by_how_much(spoilt, capsys):
    text = told(capsys, spoilt, "u1-0")
    ((task, job, late_ns),) = ask(
        spoilt,
        "SELECT tasks.name, job_idx, lateness_ns FROM jobs JOIN runs USING (run_id) JOIN tasksets USING (taskset_id)"
        " JOIN tasks USING (taskset_id, task_idx) WHERE tasksets.name = 'u1-0' AND missed ORDER BY deadline_abs_ns, task_idx LIMIT 1",
    )
    assert f"first of all job {job} of task {task}, by {late_ns / 1e6:.6g} ms." in first(text)
    assert "done, and not schedulable: " in first(text)


def test_a_set_that_needed_a_second_try_shows_the_first(spoilt, capsys):
    text = told(capsys, spoilt, "u0.65-1")
    assert ": done, and schedulable" in first(text)
    assert re.search(r"attempt 1 on qemu1, repetition 1: guest_crash after .*: the guest panicked\n", text)
    assert "  fault: guest; recovery: snapshot\n" in text
    assert re.search(r"attempt 2 on qemu1, repetition 1: completed", text)


def test_a_bad_set_shows_why_and_its_evidence(spoilt, capsys):
    text = told(capsys, spoilt, "u0.5-1")
    assert ": bad after 1 try, because this set is not to my taste (fault: taskset)." in first(text)
    assert re.search(r"\nnext: look into \S+/bad/\d+-\w+\n", text)
    assert re.search(r"fault: taskset; recovery: cold_boot; evidence: bad/", text)
    assert re.search(r"evidence: bad/\S+/error.txt\n  given up\n  this set is not to my taste", text)
    assert "  [    0.1] BUG: the last straw\n" in text


class Moody(SimulationSession):
    """Measures something else each time."""

    count = itertools.count()

    def events(self, deadline: Deadline) -> Iterator[Event]:
        for event in super().events(deadline):
            if isinstance(event, JobEvent):
                yield JobEvent(event.job._replace(exec_ns=next(self.count)))
            else:
                yield event


def test_a_set_that_does_not_repeat_says_so(tmp_path, capsys):
    kind = replace(kind_of(Moody), validity=Validity.COMPUTED, settings=dict)
    with distributor(tmp_path, kind, repeat=2) as fleet:
        fleet.add_job(Sets(1), SQLiteMonitor(tmp_path / "results.sqlite"))
        wait_to_end(fleet)
    assert ": bad, because it does not repeat: " in first(told(capsys, tmp_path, "#0"))
    assert re.search(
        r"task sets that do not repeat\n  set1 \[\w+\]: .*different job tables", told(capsys, tmp_path)
    )


def test_evidence_is_looked_for_in_the_run_folder_only(spoilt, tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "error.txt").write_text("nobody's business")
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    shutil.rmtree(run / "bad")
    ask(run, "UPDATE incidents SET evidence = '../outside' WHERE evidence IS NOT NULL")
    assert "nobody's business" not in told(capsys, run, "u0.5-1")


def test_a_machine_is_told_from_its_first_attempt_to_its_last_words(spoilt, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    folder = run / "machines" / "qemu1"
    (folder / "console.log").write_bytes(
        b"boots\r\n\x1b[2J\x07Kernel panic - not syncing: dead\r\n after it\r\n"
    )
    (folder / "qemu.stderr").write_text("qemu: \x1b]0;owned\x07out of luck\n")
    text = told(capsys, run, "qemu1")
    assert re.fullmatch(
        r"qemu1: 3\d measured in \d\d attempts; 2 x fault of kind guest; 1 x fault of kind taskset;"
        r" put aside 1 x, last until 2026-01-02 03:05:35 UTC; it does not work now.",
        first(text),
    )
    assert "1 x snapshot\n" in text
    assert re.search(
        r"no boot; fault: guest; qemu1 put aside for 90 s\n",
        text,
    )
    assert "the last words on its console\n  Kernel panic - not syncing: dead\n   after it\n" in text
    assert "the last words of QEMU\n  qemu: out of luck\n" in text
    assert re.search(r"its log, in local time\n  2.*WARNING .*task set u0.", text)
    err = refused(capsys, run, "qemu9")
    assert "no machine 'qemu9'" in err
    assert "qemu1" in err


def test_a_machine_of_a_workers_is_told_by_the_logs_of_that_worker_or_says_where_they_went(
    spoilt, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    (run / "machines" / "qemu1" / "console.log").write_bytes(b"Kernel panic - not syncing: dead\r\n")
    here = told(capsys, run, "qemu1")
    for table in ("runs", "incidents"):
        ask(run, f"UPDATE {table} SET machine = 'far-1.' || machine")
    (run / "workers" / "far-1").mkdir(parents=True)
    (run / "machines").rename(run / "workers" / "far-1" / "machines")
    assert told(capsys, run, "far-1.qemu1").replace("far-1.", "") == here
    place = "where the logs of its workers' machines are\n  far-1: "
    assert f"{place}workers/far-1\n" in told(capsys, run)
    assert "far-1.qemu1" in refused(capsys, run, "far-1.qemu9")
    shutil.rmtree(run / "workers")
    text = told(capsys, run, "far-1.qemu1")
    assert "Kernel panic" not in text
    assert re.search(
        r"its logs\n  .*/workers/far-1/machines/qemu1 is not there: worker far-1 did not see", text
    )
    assert f"{place}gone with the worker, which did not see the run folder\n" in told(capsys, run)
    assert "the run had no machine 'near.qemu1'" in refused(capsys, run, "near.qemu1")


def test_a_set_is_found_by_id_prefix_place_and_name(spoilt, capsys):
    sets = ask(
        spoilt, "SELECT DISTINCT taskset_id, name, set_idx FROM tasksets JOIN ledger USING (taskset_id)"
    )
    ids = [one[0] for one in sets]
    assert len(sets) == 20
    for taskset_id, name, set_idx in sets:
        n = next(n for n in range(1, 17) if sum(one.startswith(taskset_id[:n]) for one in ids) == 1)
        answers = {
            first(told(capsys, spoilt, words))
            for words in (taskset_id, taskset_id[:n], f"#{set_idx}", f"#1:{set_idx}", name)
        }
        assert len(answers) == 1
        assert answers.pop().startswith(f"{name} [{taskset_id}], #{set_idx}: ")


def test_an_ambiguous_beginning_lists_the_candidates(spoilt, capsys):
    ids = sorted(one for (one,) in ask(spoilt, "SELECT taskset_id FROM tasksets"))
    # Twenty ids begin with at most sixteen digits.
    digit = next(a[0] for a, b in itertools.pairwise(ids) if a[0] == b[0])
    err = refused(capsys, spoilt, digit)
    assert re.findall(r"(?m)^    (\w{16})  \S+  #\d+$", err) == [one for one in ids if one[0] == digit]


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("#20", "they are #0 … #19"),
        ("#2:0", "no task set at place #0"),
        ("nobody", "no task set 'nobody'"),
        ("", "may be any of"),
        ("#" + "9" * 40, "no task set"),
        ("%", "no task set"),
        ("\x00", "no task set"),
        ("\udcff", "no task set"),
        ("x" * 5000, "no task set"),
        ("../run", "no task set"),
    ],
)
def test_what_is_no_subject_is_refused(spoilt, capsys, subject, said):
    assert said in refused(capsys, spoilt, subject)


def test_as_data_it_says_the_same(spoilt, capsys):
    for subject in ([], ["u1-0"], ["u0.5-1"], ["qemu1"]):
        text = told(capsys, spoilt, *subject)
        content = json.loads(told(capsys, "--json", spoilt, *subject))
        assert content["answer"] == first(text)
        assert content["run"] == str(spoilt)
    assert content["history"]["incidents"][-1]["aside_s"] == 90.0


def test_without_logs_the_ledger_tells(spoilt, tmp_path, capsys):
    run = tmp_path / "bare"
    run.mkdir()
    shutil.copy(spoilt / "results.sqlite", run)
    assert "How the run ended is not known: there is no status file" in first(told(capsys, run))
    assert "distributor.log: there is no such file" in told(capsys, run, "u1-0")
    # So does the file alone, wherever it lies.
    assert "19 done" in told(capsys, run / "results.sqlite")


def test_without_a_ledger_the_logs_tell(spoilt, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    (run / "results.sqlite").unlink()
    text = told(capsys, run)
    assert "the ledger is missing" in first(text)
    assert "WARNING runner.tasksets" in text
    assert "there is no data set" in refused(capsys, run, "u1-0")
    (run / "results.sqlite").touch()
    assert "the ledger is missing" in first(told(capsys, run))


def test_a_torn_ledger_is_no_traceback(spoilt, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    whole = (run / "results.sqlite").read_bytes()
    for start in range(0, len(whole), 16 * 4096):
        torn = bytearray(whole)
        torn[start : start + 8 * 4096] = bytes(8 * 4096)
        (run / "results.sqlite").write_bytes(torn)
        for subject in ([], ["u1-0"], ["#3"], ["qemu1"]):
            code = main([str(run), *subject])
            out, err = capsys.readouterr()
            assert code in (0, ExitCode.USAGE, ExitCode.HOST)
            assert out if code == 0 else err.startswith("error: ")


def test_what_is_no_run_folder_is_refused(spoilt, tmp_path, monkeypatch, capsys):
    assert "no run folder" in refused(capsys, tmp_path)
    assert "no run folder" in refused(capsys, tmp_path / "nothing" / "there")
    err = refused(capsys, spoilt.parent)
    assert f"name one of the runs in it: {spoilt}" in err
    monkeypatch.chdir(tmp_path)
    assert "there is no run under outputs" in refused(capsys)
    assert "no folder 'u1-0'" in refused(capsys, "u1-0")
    assert "there is no run under outputs" in refused(capsys, "x" * 5000)
    # Compared without the name: pytest would take minutes to show it.
    assert main([f"/{'x' * 5000}"]) == ExitCode.USAGE


def test_the_newest_run_is_meant_where_none_is_named(tmp_path):
    run_cli(tmp_path, "machines=simulation", "tasksets.sets_per_utilization=1", "hydra.run.dir=outputs/a/old")
    run_cli(tmp_path, "machines=simulation", "tasksets.sets_per_utilization=2", "hydra.run.dir=outputs/a/new")
    for words, said in (
        ((), "10 submitted"),
        (("u0.5-1",), "u0.5-1 ["),
        (("#9", "--json"), '"answer": "u1-1'),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "runner.why", *words],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_a_run_is_asked_while_it_goes_on_and_after_it_was_killed(tmp_path, capsys):
    run = tmp_path / "run"
    slow = ("machines=simulation", "tasksets.sets_per_utilization=40", "machines.session.realtime_factor=1")
    with started_cli(tmp_path, *slow, "machines.count=2") as process:
        assert eventually(
            lambda: (
                (run / "status.json").exists()
                and json.loads((run / "status.json").read_text())["tasksets"]["done"] > 1
            ),
            within_s=60.0,
        )
        text = told(capsys, run)
        assert re.match(r"The run goes on: 200 submitted = \d+ done \+ 0 bad \+ \d+ pending\.", text)
        # Between two sets a machine is idle for an instant.
        both = r"what works now\n  qemu1: running \w{16}\n  qemu2: running"

        def both_run() -> bool:
            nonlocal text
            text = told(capsys, run)
            return re.search(both, text) is not None

        assert eventually(both_run, within_s=60.0)
        assert first(told(capsys, run, "#199")) == (
            "#199 of 200: pending, because it was not handed out to a machine yet."
        )
        running = re.findall(r"running (\w{16})", text)
        # It may have ended meanwhile.
        assert re.search(
            r": (pending, because it runs now, on qemu|done)", first(told(capsys, run, running[0]))
        )
        process.send_signal(signal.SIGKILL)
        process.wait(RUN_TIMEOUT_S)
    text = told(capsys, run)
    assert first(text).startswith(f"The run was cut off: process {process.pid} is gone")
    assert f"next: python -m runner resume={run} goes on where it stopped\n" in text
    assert "resume=" in told(capsys, run, "#199")
    ((cut_off,),) = ask(run, "SELECT max(taskset_id) FROM ledger WHERE state = 'pending'")
    text = told(capsys, run, cut_off)
    assert "pending, because the run stopped before it was measured" in first(text)
    assert f"next: python -m runner resume={run} goes on with it\n" in text
    with started_cli(tmp_path, "resume=run") as process:
        assert eventually(
            lambda: json.loads((run / "status.json").read_text())["pid"] == process.pid, within_s=60.0
        )
        assert "The run goes on: " in told(capsys, run)
        process.send_signal(signal.SIGINT)
        process.wait(RUN_TIMEOUT_S)
    text = told(capsys, run)
    assert first(text).startswith("The run has ended (stopped by the operator): 200 submitted = ")
    assert "\nresumed, in UTC\n  1 x, last at 2" in text


def test_what_held_a_run_is_told_with_its_time(spoilt, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(spoilt, run)
    with (run / "distributor.log").open("a") as log:
        log.write(
            "2026-01-02 03:04:05,678 WARNING runner.gate: held, no further task set is started: no room\n"
        )
        log.write("2026-01-02 03:05:05,678 WARNING runner.gate: no longer held by the disk\n")
    text = told(capsys, run)
    assert "what held it or kept machines away, in local time\n  2026-01-02 03:04:05,678 WARNING" in text
    assert "no longer held by the disk\n" in text


def test_a_place_of_several_submissions_needs_its_number(tmp_path, capsys):
    monitor = SQLiteMonitor(tmp_path / "results.sqlite")
    with distributor(tmp_path, faulty_kind(Faults())) as fleet:
        fleet.add_job(Sets(3), monitor)
        fleet.add_job(Sets(2), monitor)
        wait_to_end(fleet)
    assert "5 submitted = 5 done" in told(capsys, tmp_path)
    assert "several submissions" in refused(capsys, tmp_path, "#1")
    # The second source yields the same sets again: each stands at two places.
    assert ", #0, #2:0: done" in first(told(capsys, tmp_path, "#2:0"))
    # Only one of them has a third.
    assert ", #2: done" in first(told(capsys, tmp_path, "#2"))


def test_a_large_run_takes_neither_lines_nor_memory(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    monitor = SQLiteMonitor(run / "results.sqlite")
    monitor.open()
    monitor.close()
    fill_with_bad_sets(run, 100_000)
    with (run / "distributor.log").open("w") as log:
        for number in range(100_000):
            log.write(
                f"2026-01-02 03:04:05,678 ERROR   runner.tasksets: qemu1: bad s{number} [{number:016x}]\n"
            )
    tracemalloc.start()
    try:
        texts = [told(capsys, run, *subject) for subject in ([], ["qemu1"], ["#77777"])]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "100000 submitted = 0 done + 100000 bad + 0 pending" in texts[0]
    assert "bad task sets (the first 20 of 100000)" in texts[0]
    assert "(the last 10 of 100000)" in texts[0]
    assert max(len(text.splitlines()) for text in texts) < 100
    assert peak_bytes < 4 << 20


def fill_with_bad_sets(run: Path, n: int) -> None:
    """A ledger of that many sets, each given up after one try that an incident ended."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {n})"
    ask(run, "INSERT INTO submissions VALUES (1, 'Many', 1, ?)", n)
    ask(
        run,
        f"INSERT INTO tasksets (taskset_id, name, generator, generator_params_json, n_tasks, admission_control, state) {numbers}"
        " SELECT printf('%016x', i), 's' || i, 'explicit', '{}', 0, 1, 'bad' FROM n",
    )
    ask(
        run,
        f"INSERT INTO ledger {numbers} SELECT 1, i, 1, printf('%016x', i), 'bad', 1, NULL, 'it died' FROM n",
    )
    ask(
        run,
        "INSERT INTO runs (run_id, taskset_id, machine, repetition, attempt, position, outcome, scheduler, overrun_policy, facts_json,"
        f" started_utc, wall_s, error) {numbers} SELECT i, printf('%016x', i), 'qemu1', 1, 1, 1, 'guest_crash', 'fifo', 'continue',"
        " '{}', printf('2026-01-02T03:04:05.%06d+00:00', i), 0.1, 'it died' FROM n",
    )
    ask(
        run,
        f"INSERT INTO incidents (seq, utc, machine, fault, what, taskset_id, submission, set_idx, repetition, attempt) {numbers}"
        " SELECT i, '2026-01-02T03:04:05+00:00', 'qemu1', 'taskset', 'it died', printf('%016x', i), 1, i, 1, 1 FROM n",
    )


@pytest.mark.guest
def test_a_set_that_panics_its_guest_is_explained_by_the_console(tmp_path, capsys):
    (tmp_path / "panic.sh").write_text(
        "#!/bin/sh\necho 1 > /proc/sys/kernel/sysrq\necho c > /proc/sysrq-trigger\n"
    )
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "ruin.yaml").write_text("""
# @package _global_
defaults: [{override /tasksets: explicit}]
tasksets:
  tasksets:
    - {name: panic, tasks: [{period: null, workload: executable, workload_args: {path: panic.sh}}]}
""")
    done = run_cli(tmp_path, "--config-dir=conf", "experiment=ruin", "machines.policy.max_tries=2")
    assert done.returncode == ExitCode.BAD_TASKSETS, done.stderr
    run = tmp_path / "run"
    assert "1 submitted = 0 done + 1 bad" in first(told(capsys, run))
    assert re.search(
        r"panic \[\w+\], #0: bad after 2 tries, because .*(panic|crash|died)", first(told(capsys, run, "#0"))
    )
    assert re.search(r"the last words on its console\n(  .*\n)*  .*Kernel panic", told(capsys, run, "qemu1"))
