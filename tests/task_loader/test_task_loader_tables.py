"""Random sets, run for real: what holds of every job table."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.task_loader.client import MS, SLACK_NS, Outcome, TaskLoader, task_line


@st.composite
def task_fields(draw: st.DrawFn) -> dict[str, object]:
    """Short tasks: a whole set takes a few hundred milliseconds at most."""
    workload: dict[str, object] = draw(
        st.sampled_from(
            [
                {"workload": "hey"},
                {"workload": "spin", "args": 500_000},
                {"workload": "idle", "args": 4},
                {"workload": "idle"},
            ]
        )
    )
    return workload | {
        "period_ns": draw(st.integers(1, 20)) * MS,
        "n_jobs": draw(st.integers(1, 6)),
        "offset_ns": draw(st.integers(0, 15 * MS)),
        "deadline_ns": draw(st.one_of(st.just("-"), st.integers(1, 20 * MS))),
        "kill_after_start_ns": draw(st.one_of(st.just("-"), st.integers(1, 10 * MS))),
    }


def check_table(outcome: Outcome, tasks: list[dict[str, object]], overrun: str, stop_ns: int) -> None:
    """What holds of every job table, whatever the timing was."""
    for idx, task in enumerate(tasks):
        period, offset, n_jobs = (int(str(task[key])) for key in ("period_ns", "offset_ns", "n_jobs"))
        jobs = outcome.of_task(idx)
        released = [k for k in range(n_jobs) if offset + k * period < stop_ns]
        assert [job["job"] for job in jobs] == released, "each release has one line"
        previous = None
        for job in jobs:
            assert job["release"] == offset + job.ns("job") * period
            if job["exit"] == "SKIPPED":
                assert previous == "EXIT_PERIOD"
                assert overrun == "kill_and_skip"
            if job["start"] is not None:
                assert job.ns("release") <= job.ns("start") <= stop_ns
            if job["exit"] == "EXIT_DEADLINE":
                assert job.ns("finish") >= job.ns("release") + int(str(task["deadline_ns"]))
            if job["exit"] == "EXIT_CRITICAL":
                assert job.ns("finish") >= job.ns("start") + int(str(task["kill_after_start_ns"]))
            previous = job["exit"]
    assert int(outcome.end["jobs"]) == len(outcome.jobs)
    assert outcome.end["lost"] == "0"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tasks=st.lists(task_fields(), min_size=1, max_size=5),
    overrun=st.sampled_from(["continue", "kill_and_skip", "abort_at_deadline"]),
    stop_ns=st.integers(1, 80 * MS),
)
def test_every_release_has_its_line(
    binary: Path, tasks: list[dict[str, object]], overrun: str, stop_ns: int
) -> None:
    with TaskLoader(binary) as loader:
        lines = [task_line(idx, **task) for idx, task in enumerate(tasks)]
        outcome = loader.run(lines, overrun=overrun, stop_ns=stop_ns)
        check_table(outcome, tasks, overrun, stop_ns)
        assert int(outcome.end["t_ns"]) <= stop_ns + SLACK_NS
