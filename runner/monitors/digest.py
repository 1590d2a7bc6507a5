"""What an attempt at a task set says, in the few numbers that people ask for first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from runner.events import Run, RunResult


@dataclass(frozen=True, slots=True)
class Digest:
    """One valid attempt in numbers.

    Attributes:
        n_jobs: Jobs that were reported.
        n_missed: Those that are known to have missed their deadline.
        schedulable: As `RunResult.schedulable`.
        worst_response: The largest response time of a finished job, as a fraction of its task's deadline; None if there is none.
    """

    n_jobs: int
    n_missed: int
    schedulable: bool | None
    worst_response: float | None

    @classmethod
    def of(cls, run: Run, result: RunResult) -> Self:
        """Look through the attempt's jobs."""
        worst_ns = [-1] * len(run.taskset.tasks)
        for job in result.jobs:
            response_ns = job.response_ns
            if response_ns is not None and response_ns > worst_ns[job.task_idx]:
                worst_ns[job.task_idx] = response_ns
        ratios = [
            response_ns / task.relative_deadline_ns
            for response_ns, task in zip(worst_ns, run.taskset.tasks, strict=True)
            if response_ns >= 0 and task.relative_deadline_ns is not None
        ]
        return cls(
            len(result.jobs),
            result.n_missed(run.taskset),
            result.schedulable(run.taskset),
            max(ratios, default=None),
        )


def counted(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def started_line(run: Run) -> str:
    """What begins: `fft [0123456789abcdef], 3 tasks, utilization 0.85, attempt 2`."""
    taskset = run.taskset
    parts = [f"{taskset.name} [{taskset.taskset_id}]", counted(len(taskset.tasks), "task")]
    if taskset.utilization is not None:
        parts.append(f"utilization {taskset.utilization:.3g}")
    if run.attempt > 1:
        parts.append(f"attempt {run.attempt}")
    return ", ".join(parts)


def finished_line(run: Run, result: RunResult) -> str:
    """What came of it: `fft [0123456789abcdef], completed, 150 jobs, 2 missed, worst response 1.07 D, 0.412 s`."""
    digest = Digest.of(run, result)
    parts = [
        f"{run.taskset.name} [{run.taskset.taskset_id}]",
        result.outcome.value,
        counted(digest.n_jobs, "job"),
        f"{digest.n_missed} missed",
    ]
    if digest.worst_response is not None:
        parts.append(f"worst response {digest.worst_response:.3g} D")
    parts.append(f"{result.wall_s:.3f} s")
    return ", ".join(parts)


def stopped_line(run: Run, result: RunResult) -> str:
    """Why it does not count: the error's first line."""
    why = result.error.splitlines()[0] if result.error else "no reason was given"
    return f"{run.taskset.name} [{run.taskset.taskset_id}], {result.outcome.value} in attempt {run.attempt}: {why}"
