"""Programs of the user's as jobs, and that nothing outlives the task loader."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.task_loader.client import (
    MS,
    SLACK_NS,
    TaskLoader,
    executable,
    gone,
    periodic,
    processes_of,
    task_line,
)


def test_executables_end_as_they_end(loader: TaskLoader, program: Path) -> None:
    outcome = loader.run(
        [
            executable(0, program),
            executable(1, program, "exit", "7"),
            executable(2, program, "crash"),
            executable(3, program, "greedy", mem_limit_bytes=16 << 20),
            executable(4, Path("/does/not/exist")),
            executable(5, Path("/etc/passwd")),
        ]
    )
    ends = [(job["exit"], job["code"]) for task in range(6) for job in outcome.of_task(task)]
    assert ends == [
        ("EXIT", 0),
        ("EXIT_ERROR", 7),
        ("EXIT_ERROR", 128 + signal.SIGABRT),
        ("OUT_OF_QUOTA", 22),
        ("EXIT_ERROR", 127),
        ("EXIT_ERROR", 126),
    ]
    assert outcome.of_task(0)[0].ns("exec") > 0


def test_executables_are_killed_with_their_children(loader: TaskLoader, program: Path) -> None:
    outcome = loader.run(
        [
            periodic(0, 3, 40, workload="executable", args=executable(0, program, "hang").rsplit("args=")[1]),
            executable(1, program, "hang", kill_after_start_ns=30 * MS),
            executable(2, program, "child"),
            executable(3, program, "daemon"),
            executable(4, program, "hang"),
        ],
        overrun="kill_and_skip",
        stop_ns=300 * MS,
    )
    assert outcome.exits(0) == ["EXIT_PERIOD", "SKIPPED", "EXIT_PERIOD"]
    assert [outcome.exits(task) for task in range(1, 5)] == [
        ["EXIT_CRITICAL"],
        ["EXIT"],
        ["EXIT"],
        ["EXIT_EXTERNAL"],
    ]
    assert processes_of(program) == []


@pytest.mark.parametrize("how", ["quit", "end of input", "nobody reads", "SIGTERM", "SIGKILL"])
def test_ends_with_everything_it_started(binary: Path, program: Path, how: str) -> None:
    with TaskLoader(binary) as loader:
        loader.begin([task_line(0, workload="idle"), periodic(1, 1000, 5), executable(2, program, "hang")])
        time.sleep(0.1)
        pids = processes_of(program)
        assert len(pids) == 1
        match how:
            case "quit":
                loader.send("quit")
            case "end of input":
                loader.close_input()
            case "nobody reads":
                loader.close_output()
            case "SIGTERM":
                loader.signal(signal.SIGTERM)
            case "SIGKILL":
                loader.signal(signal.SIGKILL)
        code = loader.process.wait(5)
        assert code == {"nobody reads": 1, "SIGKILL": -signal.SIGKILL}.get(how, 0)
    assert all(gone(pid) for pid in pids)


def test_a_reader_that_does_not_read_delays_no_task(binary: Path) -> None:
    """64 KiB of pipe and 64 KiB of buffer fill up; the set must end on time, and its records must not be lost."""
    with TaskLoader(binary) as loader:
        loader.begin([periodic(0, 4000, 1, period_ns=100_000)], stop_ns=1000 * MS)
        time.sleep(1.2)
        outcome = loader.finish()
        assert outcome.end["lost"] == "0"
        assert int(outcome.end["jobs"]) == len(outcome.jobs)
        assert int(outcome.end["t_ns"]) <= 1000 * MS + SLACK_NS
