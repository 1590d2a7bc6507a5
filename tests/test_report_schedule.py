"""Schedules: executions as they follow from job tables, held against a simulation that knows them; and traces, against the format."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from runner.data.history import reading
from runner.errors import UsageError
from runner.events import ExitType, JobRecord
from runner.model import Policy, Task, TaskSet
from runner.report.__main__ import main
from runner.report.schedule import Execution, Job, executions, read_schedule
from runner.report.trace import TraceEvent, fleet_trace, set_trace, write_trace
from tests.report_samples import simulated
from tests.strategies import SMALL_UNIT_NS, small_tasksets
from tests.tick_simulator import TickSimulator, _Job

NS_PER_US = 1000


class WatchedSimulator(TickSimulator):
    """Notes who had the processor."""

    def __init__(self, taskset: TaskSet) -> None:
        super().__init__(taskset, SMALL_UNIT_NS)
        self.ran: dict[tuple[int, int], list[int]] = defaultdict(list)

    def _execute(self, job: _Job, now: int) -> None:
        self.ran[job.task_idx, job.idx].append(now - self.tick)
        super()._execute(job, now)


def job_of(record: JobRecord) -> Job:
    return Job(
        task_idx=record.task_idx,
        job_idx=record.job_idx,
        release_ns=record.release_ns or 0,
        start_ns=record.start_ns,
        finish_ns=record.finish_ns,
        deadline_abs_ns=None,
        exec_ns=record.exec_ns,
        response_ns=None,
        missed=None,
        exit_type=record.exit_type.value,
        preemptions=record.preemptions,
        migrations=record.migrations,
        cpu_first=record.cpu_first,
        cpu_last=record.cpu_last,
    )


def ticks(found: Iterable[Execution]) -> dict[tuple[int, int], list[int]]:
    """When each job ran for sure, in units of time."""
    ran: dict[tuple[int, int], list[int]] = defaultdict(list)
    for one in found:
        if one.known:
            ran[one.task_idx, one.job_idx] += range(one.start_ns, one.end_ns, SMALL_UNIT_NS)
    return ran


@settings(max_examples=80)
@given(small_tasksets(policies=(Policy.FIFO,)))
def test_under_fixed_priorities_every_execution_follows(taskset: TaskSet) -> None:
    reference = WatchedSimulator(taskset)
    records, _ = reference.run()
    found = executions([job_of(one) for one in records if one.exit_type is not ExitType.SKIPPED])
    assert all(one.known for one in found)
    assert ticks(found) == reference.ran


# A budget runs out within a job, and what its preempted neighbour used happens to fit what was left.
THROTTLED = TaskSet(
    (
        Task(period_ns=None, wcet_ns=2 * SMALL_UNIT_NS),
        Task(
            period_ns=3 * SMALL_UNIT_NS,
            wcet_ns=2 * SMALL_UNIT_NS,
            n_jobs=2,
            policy=Policy.DEADLINE,
            workload_args={"cpu_ns": 3 * SMALL_UNIT_NS},
        ),
    ),
    admission_control=False,
)


@settings(max_examples=120)
@given(small_tasksets())
@example(THROTTLED)
def test_whatever_is_called_known_is_right(taskset: TaskSet) -> None:
    reference = WatchedSimulator(taskset)
    records, _ = reference.run()
    jobs = [job_of(one) for one in records if one.start_ns is not None]
    found = executions(jobs)
    for job, ran in ticks(found).items():
        assert ran == reference.ran[job]
    # Nobody is left out: what is not known is told from start to finish.
    assert {(one.task_idx, one.job_idx) for one in found} >= set(reference.ran)
    spans = sorted((one.start_ns, one.end_ns) for one in found if one.known)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_job_that_moved_between_cpus_is_not_told_in_detail() -> None:
    moved = Job(0, 0, 0, 10, 50, 100, 30, 50, 0, "EXIT", 1, 1, 0, 1)
    other = Job(1, 0, 0, 20, 30, 100, 10, 30, 0, "EXIT", 0, 0, 0, 0)
    assert executions([moved, other]) == [
        Execution(0, 0, 0, 10, 50, known=False),
        Execution(1, 0, 0, 20, 30, known=True),
    ]


def test_what_a_system_spends_on_switching_is_allowed_for() -> None:
    low = Job(1, 0, 0, 0, 1_000, 2_000, 500, 1_000, 0, "EXIT", 1, 0, 0, 0)
    high = Job(0, 0, 300, 350, 700, 900, 350, 400, 0, "EXIT", 0, 0, 0, 0)
    # The job that was preempted ran for 650, 150 of which the system took.
    assert [one.known for one in executions([low, high])] == [False, True]
    assert all(one.known for one in executions([low, high], switch_ns=100))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schedules")
    return simulated(folder, "tasksets.sets_per_utilization=3", "machines.count=3")


def taskset_ids(run: Path, order: str = "n_missed DESC") -> list[str]:
    with reading(run / "results.sqlite") as database:
        return [row[0] for row in database.execute(f"SELECT taskset_id FROM runs ORDER BY {order}")]


def check_trace(path: Path) -> list[TraceEvent]:
    """What the format asks for; without it viewers drop events, or draw wrong ones."""
    trace = json.loads(path.read_text())
    assert set(trace) == {"displayTimeUnit", "traceEvents"}
    events: list[TraceEvent] = trace["traceEvents"]
    named: dict[str, set[int]] = {"process_name": set(), "thread_name": set()}
    ends: dict[tuple[int, int], int] = {}
    opened: dict[tuple[Any, ...], float] = {}
    for event in events:
        match event["ph"]:
            case "M":
                named.setdefault(event["name"], set()).add(event["pid"])
                assert event["args"]
            case "X":
                # In whole nanoseconds, as viewers have them. The slices of a track are told in order, and are beside each other.
                start, track = round(event["ts"] * NS_PER_US), (event["pid"], event["tid"])
                assert start >= ends.get(track, 0)
                ends[track] = start + round(event["dur"] * NS_PER_US)
                assert event["dur"] >= 0
            case "b":
                key = (event["cat"], event["id2"]["local"], event["pid"])
                assert key not in opened
                opened[key] = event["ts"]
            case "e":
                assert event["ts"] >= opened.pop((event["cat"], event["id2"]["local"], event["pid"]))
            case "i":
                assert event["s"] in "tp"
            case other:
                pytest.fail(f"a {other} event")
        assert event["name"]
        if event["ph"] != "M":
            assert event["ts"] >= 0
    assert opened == {}
    assert {event["pid"] for event in events} <= named["process_name"]
    return events


def test_a_sets_trace_has_its_executions_windows_and_misses(run: Path, tmp_path: Path) -> None:
    with reading(run / "results.sqlite") as database:
        schedule = read_schedule(database, taskset_ids(run)[0])
    assert schedule.n_unknown == 0
    path = tmp_path / "set.json"
    write_trace(path, set_trace(schedule))
    events = check_trace(path)
    ran_ns = sum(round(one["dur"] * NS_PER_US) for one in events if one["ph"] == "X")
    assert ran_ns == sum(job.exec_ns or 0 for job in schedule.jobs)
    assert sum(one["ph"] == "b" for one in events) == len(schedule.jobs) == schedule.run.n_jobs
    assert sum(one["ph"] == "i" for one in events) == schedule.run.n_missed
    assert schedule.run.n_missed


def test_the_fleets_trace_has_every_attempt(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    with reading(run / "results.sqlite") as database:
        write_trace(path, fleet_trace(database))
    events = check_trace(path)
    assert {one["args"]["name"] for one in events if one["ph"] == "M"} == {"qemu1", "qemu2", "qemu3"}
    attempts = [one for one in events if one["ph"] == "X"]
    assert sorted(one["args"]["taskset_id"] for one in attempts) == sorted(taskset_ids(run))
    assert min(one["ts"] for one in attempts) == 0


def test_the_command_writes_page_and_trace(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taskset_id = taskset_ids(run)[0]
    assert main([str(run), "--set", taskset_id[:8]]) == 0
    page, trace = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert (page, trace.name) == (run / f"schedule-{taskset_id}.html", f"schedule-{taskset_id}.trace.json")
    check_trace(trace)
    html = page.read_text()
    for part in ("rt-releases", "rt-deadlines", "rt-misses", "rt-executions-0"):
        assert f'id="{part}"' in html
    assert main([str(run), "--trace"]) == 0
    check_trace(run / "fleet.trace.json")


def test_a_part_of_the_time(run: Path) -> None:
    with reading(run / "results.sqlite") as database:
        taskset_id = taskset_ids(run)[0]
        whole = read_schedule(database, taskset_id)
        part = read_schedule(database, taskset_id, from_ns=400_000_000, to_ns=500_000_000)
        assert set(part.jobs) < set(whole.jobs)
        for job in set(whole.jobs) - set(part.jobs):
            assert (
                job.release_ns > 500_000_000
                or max(job.finish_ns or 0, job.deadline_abs_ns or 0) < 400_000_000
            )
        with pytest.raises(UsageError, match="has no job between"):
            read_schedule(database, taskset_id, from_ns=1 << 60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "nobody"], "nobody"),
        (["--set", "#0", "--from", "soon"], "--from"),
        (["--set", "#0", "--from", "1min"], "leave --from and --to out"),
    ],
)
def test_what_cannot_be_shown_is_said(
    run: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), *arguments]) == 2
    assert words in capsys.readouterr().err
