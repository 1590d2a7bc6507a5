"""Real-time priorities on this computer: short sets, because they take a whole CPU."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.task_loader.client import MS, SLACK_NS, TaskLoader, periodic, task_line, taskset_line


@pytest.mark.usefixtures("realtime")
@pytest.mark.parametrize("overrun", ["continue", "kill_and_skip", "abort_at_deadline"])
def test_overload_at_top_priority_ends_on_time(loader: TaskLoader, overrun: str) -> None:
    """Three endless hogs on one CPU, nothing but the supervisor above them."""
    hogs = [
        periodic(
            i,
            1000,
            20,
            policy="fifo",
            priority=98 - i,
            deadline_ns=20 * MS,
            cpus=1,
            workload="spin",
            args=20 * MS,
        )
        for i in range(3)
    ]
    outcome = loader.run(hogs, overrun=overrun, stop_ns=200 * MS)
    assert outcome.end["reason"] == "stopped"
    assert outcome.end["lost"] == "0"
    assert int(outcome.end["t_ns"]) <= 200 * MS + SLACK_NS
    for task in range(3):
        released = [job.ns("release") for job in outcome.of_task(task)]
        assert released == [k * 20 * MS for k in range(10)], (
            "no release is missing, and none is reported twice"
        )


@pytest.mark.usefixtures("realtime")
def test_the_more_urgent_task_preempts(loader: TaskLoader) -> None:
    """Exact figures need a guest; the order of things does not."""
    outcome = loader.run(
        [
            task_line(0, policy="fifo", priority=10, cpus=1, workload="spin", args=40 * MS),
            task_line(1, policy="rr", priority=20, offset_ns=10 * MS, cpus=1, workload="spin", args=10 * MS),
        ]
    )
    low, high = outcome.of_task(0)[0], outcome.of_task(1)[0]
    assert low.ns("start") < high.ns("start") < high.ns("finish") < low.ns("finish")
    assert low.ns("preemptions") >= 1


@pytest.mark.usefixtures("realtime")
def test_bandwidth_cap_is_put_back(loader: TaskLoader) -> None:
    cap = Path("/proc/sys/kernel/sched_rt_runtime_us")
    before = cap.read_text()
    loader.run([task_line(0, policy="fifo", priority=1)])
    assert cap.read_text() == before


def test_a_cpu_that_does_not_exist_is_refused(loader: TaskLoader) -> None:
    """The kernel's refusal is data: the other task runs."""
    loader.send("\n".join([taskset_line(2), task_line(0, cpus="8000000000000000"), task_line(1), "run"]))
    outcome = loader.finish()
    assert "refused task=0 errno=22 name=EINVAL" in outcome.lines
    assert outcome.exits(0) == ["NOT_SCHEDULED"]
    assert outcome.of_task(0)[0]["release"] is None
    assert outcome.exits(1) == ["EXIT"]


@pytest.mark.usefixtures("realtime")
def test_what_a_stop_finds_asleep_keeps_no_bandwidth(loader: TaskLoader) -> None:
    deadline = {
        "policy": "deadline",
        "dl_runtime_ns": 10 * MS,
        "dl_deadline_ns": 20 * MS,
        "dl_period_ns": 20 * MS,
    }
    for _ in range(8):
        loader.begin(
            [task_line(0, **deadline, workload="idle"), task_line(1, **deadline, offset_ns=3000 * MS)],
            admission_control=1,
            stop_ns=4000 * MS,
        )
        time.sleep(0.1)
        loader.send("stop")
        outcome = loader.finish()
        assert outcome.exits(0) == ["EXIT_EXTERNAL"]
        assert outcome.exits(1) == []
