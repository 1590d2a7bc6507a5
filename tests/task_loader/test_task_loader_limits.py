"""Every limit that ends a job, and the set."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.task_loader.client import MS, SLACK_NS, TaskLoader, periodic, task_line


def test_continue_starts_late_jobs_at_once(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(0, 4, 5, workload="spin", args=12 * MS)])
    jobs = outcome.of_task(0)
    assert outcome.exits(0) == ["EXIT"] * 4
    assert jobs[3]["release"] == 15 * MS
    for before, after in pairwise(jobs):
        assert after.ns("start") >= before.ns("finish")
    assert jobs[3].ns("start") >= 36 * MS


def test_kill_and_skip(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(0, 5, 20, workload="idle")], overrun="kill_and_skip")
    assert outcome.exits(0) == ["EXIT_PERIOD", "SKIPPED", "EXIT_PERIOD", "SKIPPED", "EXIT_PERIOD"]
    for job in outcome.of_task(0)[::2]:
        limit_ns = job.ns("release") + 20 * MS
        assert limit_ns <= job.ns("finish") <= limit_ns + SLACK_NS
        assert job["code"] is None
    skipped = outcome.of_task(0)[1]
    assert (skipped["release"], skipped["start"], skipped["finish"], skipped["exec"]) == (
        20 * MS,
        None,
        None,
        None,
    )


def test_abort_at_deadline(loader: TaskLoader) -> None:
    outcome = loader.run(
        [periodic(0, 3, 40, deadline_ns=15 * MS, workload="idle")], overrun="abort_at_deadline"
    )
    assert outcome.exits(0) == ["EXIT_DEADLINE"] * 3
    for job in outcome.of_task(0):
        limit_ns = job.ns("release") + 15 * MS
        assert limit_ns <= job.ns("finish") <= limit_ns + SLACK_NS


def test_kill_after_start_counts_from_the_start(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(0, 3, 10, kill_after_start_ns=25 * MS, workload="idle")])
    assert outcome.exits(0) == ["EXIT_CRITICAL"] * 3
    for job in outcome.of_task(0):
        assert 25 * MS <= job.ns("finish") - job.ns("start") <= 25 * MS + SLACK_NS


def test_stop_ns_ends_what_runs_and_what_waits(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(0, 1000, 30, workload="idle"), periodic(1, 1000, 30)], stop_ns=100 * MS)
    assert outcome.exits(0) == ["EXIT_EXTERNAL"] * 4, "released at 0, 30, 60 and 90 ms"
    assert [job["start"] is None for job in outcome.of_task(0)] == [False, True, True, True]
    assert all(job["finish"] == 100 * MS for job in outcome.of_task(0))
    assert outcome.exits(1) == ["EXIT"] * 4
    assert outcome.end["reason"] == "stopped"
    assert int(outcome.end["t_ns"]) <= 100 * MS + SLACK_NS


def test_stop_request(loader: TaskLoader) -> None:
    loader.begin([periodic(0, 1000, 10), task_line(1, workload="idle")], stop_ns=3600_000 * MS)
    time.sleep(0.1)
    loader.send("stop")
    outcome = loader.finish()
    assert outcome.end["reason"] == "stopped"
    assert outcome.exits(1) == ["EXIT_EXTERNAL"]
    assert 0 < len(outcome.of_task(0)) < 1000


def test_stop_without_a_set_is_no_error(loader: TaskLoader) -> None:
    """It may cross the `end` of the set it was meant for."""
    assert loader.replies_to(["stop"]) == []


def test_memory_limit(loader: TaskLoader) -> None:
    outcome = loader.run(
        [
            task_line(0, workload="tumatmul", args=100_000, mem_limit_bytes=50_000),
            task_line(1, workload="tumatmul", args=100_000, mem_limit_bytes=200_000),
            task_line(2, workload="linpack", args=60_000, mem_limit_bytes=1 << 20),
        ]
    )
    assert [outcome.exits(task) for task in range(3)] == [["OUT_OF_QUOTA"], ["EXIT"], ["OUT_OF_QUOTA"]]


def test_memory_that_the_computer_does_not_have(loader: TaskLoader) -> None:
    """Refused, not tried: what the kernel kills when it has none left could be anybody."""
    outcome = loader.run([task_line(0, workload="tumatmul", args=1 << 40), periodic(1, 3, 20)])
    assert outcome.exits(0) == ["OUT_OF_QUOTA"]
    assert outcome.exits(1) == ["EXIT"] * 3


def test_a_limit_takes_each_job_s_memory_anew(loader: TaskLoader) -> None:
    """Jobs of a task use the same memory: what a killed one left there is not the next one's."""
    outcome = loader.run(
        [
            periodic(0, 6, 20, workload="tumatmul", args=3_000_000, kill_after_start_ns=MS),
            periodic(1, 20, 5, workload="linpack", args=30),
        ],
        overrun="kill_and_skip",
    )
    assert outcome.exits(0) == ["EXIT_CRITICAL"] * 6
    assert set(outcome.exits(1)) <= {"EXIT", "EXIT_PERIOD", "SKIPPED"}


@pytest.mark.parametrize("overrun", ["continue", "kill_and_skip", "abort_at_deadline"])
def test_kills_that_meet_the_end_of_a_job(loader: TaskLoader, overrun: str) -> None:
    """Whoever comes first, each release has one line, and no kill hits the job after."""
    outcome = loader.run(
        [
            periodic(
                i,
                1500,
                1,
                period_ns=100_000,
                deadline_ns=60_000,
                kill_after_start_ns=kill_ns,
                workload="spin",
                args=20_000,
            )
            for i, kill_ns in enumerate((1, 19_000, 20_000, 23_000))
        ],
        overrun=overrun,
        stop_ns=120 * MS,
    )
    for task in range(4):
        assert [job["job"] for job in outcome.of_task(task)] == list(range(1200))
    assert "EXIT_CRITICAL" in outcome.exits(0)
    assert int(outcome.end["t_ns"]) <= 120 * MS + SLACK_NS


def test_a_set_that_is_over_but_not_yet_reported_at_its_end_was_not_cut(loader: TaskLoader) -> None:
    """Nobody reads, so the reports wait: the stop finds tasks that the reporter knows nothing of, and nothing to stop."""
    loader.begin([periodic(0, 4000, 1, period_ns=MS // 10)], stop_ns=1500 * MS)
    time.sleep(1.7)
    outcome = loader.finish()
    assert outcome.exits(0) == ["EXIT"] * 4000
    assert outcome.end["reason"] == "completed"


def test_a_set_whose_last_job_still_runs_at_its_end_was_cut(loader: TaskLoader) -> None:
    """However little was missing: no release was cut off here, only a job."""
    tasks = [periodic(0, 1, 10, workload="hey"), periodic(1, 1, 40, workload="idle")]
    outcome = loader.run(tasks, stop_ns=40 * MS)
    assert outcome.exits(1) == ["EXIT_EXTERNAL"]
    assert outcome.end["reason"] == "stopped"


def test_a_set_whose_last_release_is_cut_off_was_cut(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(0, 3, 20, workload="hey")], stop_ns=40 * MS)
    assert outcome.exits(0) == ["EXIT"] * 2
    assert outcome.end["reason"] == "stopped"


def test_a_set_may_be_over_before_the_supervisor_has_looked(binary: Path) -> None:
    """Nice, on one CPU, it runs after those who woke it; and a set is over at once whose only task is refused: for not being nice."""
    one = str(min(os.sched_getaffinity(0)))
    humble = ("setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice")
    with TaskLoader(binary, under=("taskset", "-c", one, *humble, "nice", "-n", "10")) as loader:
        for _ in range(30):
            outcome = loader.run([task_line(0, workload="hey")])
            assert outcome.exits(0) == ["NOT_SCHEDULED"]
