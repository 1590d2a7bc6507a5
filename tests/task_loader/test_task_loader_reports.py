"""What a set that nothing disturbs reports."""

from __future__ import annotations

import os

import pytest

from tests.task_loader.client import MS, TaskLoader, periodic, task_line


def test_hello_comes_first(loader: TaskLoader) -> None:
    words = dict(word.split("=") for word in loader.hello.removeprefix("hello ").split(" "))
    assert words["version"] == "2"
    assert int(words["spin_ps"]) > 0
    assert int(words["cpus"]) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert words["realtime"] in "01"


def test_releases_are_nominal_and_jobs_are_whole(loader: TaskLoader) -> None:
    outcome = loader.run(
        [
            periodic(0, 5, 10, workload="spin", args=2 * MS),
            periodic(1, 3, 20, offset_ns=7 * MS, workload="pi", args=1000),
        ]
    )
    assert [job["release"] for job in outcome.of_task(0)] == [k * 10 * MS for k in range(5)]
    assert [job["release"] for job in outcome.of_task(1)] == [(7 + k * 20) * MS for k in range(3)]
    assert outcome.exits(0) == ["EXIT"] * 5
    for job in outcome.jobs:
        assert job.ns("release") <= job.ns("start") <= job.ns("finish")
        assert job["code"] == 0
    assert outcome.end["reason"] == "completed"
    assert (outcome.end["jobs"], outcome.end["lost"]) == ("8", "0")
    assert {line.split(" t_ns")[0] for line in outcome.lines if line.startswith("task_done")} == {
        "task_done task=0",
        "task_done task=1",
    }


def test_spin_uses_the_cpu_time_it_was_given(loader: TaskLoader) -> None:
    """Counted on the job's own clock: neither preemption nor a slow spell of the processor may show."""
    outcome = loader.run(
        [periodic(i, 10, 20, workload="spin", args=c * 100_000) for i, c in enumerate((5, 50))]
    )
    for task, wanted_ns in ((0, 500_000), (1, 5_000_000)):
        excess = sorted(job.ns("exec") - wanted_ns for job in outcome.of_task(task))
        assert excess[0] >= -20_000
        # Not the median: where other programs run, most jobs are charged 50 µs and more for interrupts and switches that are
        # not theirs.
        assert excess[2] <= 200_000 + wanted_ns // 100


def test_sets_follow_each_other_on_one_channel(loader: TaskLoader) -> None:
    for n in range(5):
        outcome = loader.run([task_line(0)], id=f"n{n}")
        assert outcome.end["id"] == f"n{n}"
        assert outcome.exits(0) == ["EXIT"]


def test_sixty_four_tasks(loader: TaskLoader) -> None:
    outcome = loader.run([periodic(i, 2, 50) for i in range(64)])
    assert len(outcome.jobs) == 128


@pytest.mark.parametrize(
    ("workload", "args"),
    [
        ("namaste", "-"),
        ("tumatmul", 1000),
        ("linpack", 20),
        ("cond_mod", 3),
        ("cond_mod", 2),
        ("cond_42", 42),
        ("idle", 3),
    ],
)
def test_every_workload_of_the_original(loader: TaskLoader, workload: str, args: object) -> None:
    outcome = loader.run([task_line(0, workload=workload, args=args)])
    assert outcome.exits(0) == ["EXIT"]
