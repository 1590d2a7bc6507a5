"""What a run becomes in the tables of `runner.data.schema`: one function per table, values in the order of its columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from runner.analysis import Finding
from runner.data.schema import FACTS
from runner.events import (
    VALID_OUTCOMES,
    Disturbance,
    EndEvent,
    Event,
    ExitType,
    JobRecord,
    RefusedEvent,
    Run,
    RunResult,
    StartEvent,
    TaskDoneEvent,
)
from runner.faults.incidents import Incident
from runner.model import TaskSet

Row = tuple[Any, ...]
_INT64_MAX = (1 << 63) - 1
_EXIT_TEXTS = {exit_type: exit_type.value for exit_type in ExitType}


def taskset_row(taskset: TaskSet) -> Row:
    """The set's row in `tasksets`, without a state; a seed beyond 64 bits goes to the generator's parameters."""
    origin = taskset.provenance
    params = dict(origin.params)
    seed = origin.seed
    if seed is not None and not -_INT64_MAX <= seed <= _INT64_MAX:
        params["seed"], seed = seed, None
    shares = [task.utilization for task in taskset.tasks]
    return (
        taskset.taskset_id,
        taskset.name,
        origin.generator,
        _json(params),
        seed,
        len(taskset.tasks),
        origin.utilization_target,
        taskset.utilization,
        _density(taskset),
        None if None in shares else float(max(share for share in shares if share is not None)),
        taskset.hyperperiod_ns,
        _deadline_model(taskset),
        int(taskset.admission_control),
        taskset.stop_ns,
        None,
    )


def task_rows(taskset: TaskSet) -> Iterator[Row]:
    """The rows of its tasks in `tasks`; `deadline_ns` is the effective one, so an implicit deadline shows the period."""
    for idx, task in enumerate(taskset.tasks):
        served = task.policy.value == "deadline"
        yield (
            taskset.taskset_id,
            idx,
            task.name,
            task.wcet_ns,
            task.period_ns,
            task.relative_deadline_ns,
            task.offset_ns,
            task.priority_rank,
            task.n_jobs,
            task.policy.value,
            _json(task.cpu_affinity),
            task.workload,
            _json(dict(task.workload_args)),
            task.mem_limit_bytes,
            task.kill_after_start_ns,
            task.dl_budget_ns if served else None,
            task.relative_deadline_ns if served else None,
            task.period_ns if served else None,
            task.jitter_ns,
        )


def analysis_row(taskset: TaskSet, finding: Finding) -> Row:
    """What one test says of a set, in `analyses`."""
    return (
        taskset.taskset_id,
        finding.test,
        finding.n_cpus,
        finding.verdict.value,
        finding.exactness.value,
        finding.margin,
        finding.wall_us,
        finding.horizon_ns,
    )


def analysis_task_rows(taskset: TaskSet, finding: Finding) -> Iterator[Row]:
    """The response times that a test bounds, in `analysis_tasks`; none for a test without."""
    key = (taskset.taskset_id, finding.test, finding.n_cpus)
    for idx, wcrt_ns in enumerate(finding.wcrt_ns):
        yield (*key, idx, wcrt_ns)


def run_row(run: Run, result: RunResult) -> Row:
    """The attempt's row in `runs`; the labels of an attempt that is not valid are null, and its `run_id` names the attempt, too.

    So whatever else went wrong before, a set's jobs are found under the same `run_id`.
    """
    taskset = run.taskset
    valid = result.outcome in VALID_OUTCOMES
    columns = [column.name for column in FACTS]
    schedulable = result.schedulable(taskset) if valid else None
    disturbance = result.disturbance or Disturbance()
    return (
        run.run_id if valid else f"{run.run_id}.{run.attempt}",
        taskset.taskset_id,
        run.machine,
        run.repetition,
        run.attempt,
        run.position,
        None if run.recovery is None else run.recovery.value,
        result.outcome.value,
        "+".join(sorted({task.policy.value for task in taskset.tasks})),
        taskset.overrun_policy.value,
        *(run.facts.get(name) for name in columns),
        _json({name: value for name, value in run.facts.items() if name not in columns}),
        result.t0_guest_ns,
        result.end_ns,
        run.started_utc.isoformat(timespec="microseconds"),
        result.wall_s,
        len(result.jobs) if valid else None,
        result.n_missed(taskset) if valid else None,
        None if schedulable is None else int(schedulable),
        _text(result.error) or None,
        run.identity,
        result.table_sha256,
        None if result.validity is None else result.validity.value,
        disturbance.steal_ns,
        disturbance.sched_delay_ns,
        disturbance.clock_drift_ns,
        result.reused_from,
    )


def job_rows(run: Run, jobs: Iterable[JobRecord]) -> Iterator[Row]:
    """The rows of a valid attempt in `jobs`. Response time and what follows from it exist for finished jobs only."""
    # There may be 10^6 jobs: what costs a call is asked once per task, or for the few that did not finish by themselves.
    run_id, taskset = run.run_id, run.taskset
    deadlines_ns = [task.relative_deadline_ns for task in taskset.tasks]
    for job in jobs:
        task_idx, job_idx, release_ns, start_ns, finish_ns, exec_ns, exit_type, *rest = job
        relative_ns = deadlines_ns[task_idx]
        deadline_ns = None if relative_ns is None or release_ns is None else release_ns + relative_ns
        response_ns = lateness_ns = missed = None
        if exit_type is not ExitType.EXIT or finish_ns is None:
            missed = job.missed(taskset)
        elif release_ns is not None:
            response_ns = finish_ns - release_ns
            if relative_ns is not None:
                lateness_ns = response_ns - relative_ns
                missed = lateness_ns > 0
        yield (
            run_id,
            task_idx,
            job_idx,
            release_ns,
            start_ns,
            finish_ns,
            deadline_ns,
            exec_ns,
            response_ns,
            None if start_ns is None or release_ns is None else start_ns - release_ns,
            lateness_ns,
            None if lateness_ns is None else max(0, lateness_ns),
            missed,
            _EXIT_TEXTS[exit_type],
            *rest,
        )


def event_rows(run_id: str, events: Iterable[Event]) -> Iterator[Row]:
    """The rows in `events` of whatever is not a job: those have a table of their own."""
    for seq, event in enumerate(events):
        match event:
            case StartEvent(t0_guest_ns):
                yield (run_id, seq, 0, "start", None, t0_guest_ns)
            case RefusedEvent(task_idx, errno):
                yield (run_id, seq, None, "refused", task_idx, errno)
            case TaskDoneEvent(task_idx, t_ns):
                yield (run_id, seq, t_ns, "task_done", task_idx, None)
            case EndEvent(t_ns, stopped):
                yield (run_id, seq, t_ns, "end", None, int(stopped))


def incident_row(incident: Incident, submission: int | None) -> Row:
    """The row in `incidents`, numbered by the table itself.

    Args:
        submission: The ledger's number of the submission.
    """
    return (
        None,
        incident.utc.isoformat(timespec="microseconds"),
        incident.machine,
        incident.fault.value,
        _text(incident.what),
        None if incident.recovery is None else incident.recovery.value,
        incident.aside_s,
        incident.taskset_id,
        submission,
        incident.set_idx,
        incident.repetition,
        incident.attempt,
        incident.evidence or None,
    )


def _text(text: str) -> str:
    """As it can be stored: a console's last words may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def _density(taskset: TaskSet) -> float | None:
    total = 0.0
    for task in taskset.tasks:
        limits = [limit for limit in (task.relative_deadline_ns, task.period_ns) if limit is not None]
        if task.wcet_ns is None or not limits:
            return None
        total += task.wcet_ns / min(limits)
    return total


def _deadline_model(taskset: TaskSet) -> str | None:
    model = "implicit"
    for task in taskset.tasks:
        deadline_ns, period_ns = task.relative_deadline_ns, task.period_ns
        if deadline_ns is None or period_ns is None:
            return None
        if deadline_ns > period_ns:
            return "arbitrary"
        if deadline_ns < period_ns:
            model = "constrained"
    return model


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, sort_keys=True, default=str)
