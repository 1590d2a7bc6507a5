"""The schedule of one measured task set: its jobs, and when each of them ran, as far as the data tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.data.history import DataSet, all_of
from runner.errors import UsageError
from runner.report.acceptance import has_table
from runner.text.excerpt import excerpt

#: More jobs are read by nobody; the times asked for say which.
MAX_JOBS = 20_000
# The kernel's own work at each switch, which lies between start and finish, and is not of the job's CPU time. Measured on the
# default guest: up to 0.06 ms at a release, 0.05 ms at an end.
SWITCH_NS = 120_000

_SET = "SELECT taskset_id, name, utilization, hyperperiod_ns FROM tasksets WHERE taskset_id = ?"
# A run with a miss, if there is any; as `python -m runner.why` has it.
_RUN = """
SELECT run_id, machine, outcome, scheduler, overrun_policy, coalesce(vcpus, 1) AS vcpus, coalesce(validity, '?') AS validity,
    n_jobs, n_missed, end_ns
FROM valid_runs WHERE taskset_id = ? ORDER BY schedulable IS NOT 0, repetition, attempt LIMIT 1
"""
_TASKS = """
SELECT task_idx, name, wcet_ns, period_ns, deadline_ns, priority_rank, policy, {bound} AS bound_ns
FROM tasks WHERE taskset_id = ?1 ORDER BY priority_rank, deadline_ns, task_idx LIMIT 200
"""
_BOUND = """
(SELECT wcrt_ns FROM analysis_tasks AS found WHERE found.taskset_id = ?1 AND found.task_idx = tasks.task_idx AND n_cpus = ?2
    AND test = CASE ?3 WHEN 'fifo' THEN 'rta' WHEN 'deadline' THEN 'edf_rta' END)
"""
_JOBS = """
SELECT task_idx, job_idx, release_ns, start_ns, finish_ns, deadline_abs_ns, exec_ns, response_ns, missed, exit_type,
    preemptions, migrations, cpu_first, cpu_last
FROM jobs WHERE run_id = ?1 AND release_ns <= ?3 AND max(release_ns, coalesce(finish_ns, 0), coalesce(deadline_abs_ns, 0)) >= ?2
ORDER BY release_ns, task_idx, job_idx LIMIT ?4
"""
_VERDICTS = "SELECT test, n_cpus, verdict, exactness FROM analyses WHERE taskset_id = ? ORDER BY test, n_cpus LIMIT 100"


class Job(NamedTuple):
    """A row of `jobs`, as far as a schedule takes it."""

    task_idx: int
    job_idx: int
    release_ns: int
    start_ns: int | None
    finish_ns: int | None
    deadline_abs_ns: int | None
    exec_ns: int | None
    response_ns: int | None
    missed: int | None
    exit_type: str
    preemptions: int | None
    migrations: int | None
    cpu_first: int | None
    cpu_last: int | None


class Execution(NamedTuple):
    """A span of time in which a job had a CPU; in which it may have had it, where that is not known."""

    task_idx: int
    job_idx: int
    cpu: int
    start_ns: int
    end_ns: int
    known: bool


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """The set."""

    taskset_id: str
    name: str
    utilization: float | None
    hyperperiod_ns: int | None


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """The run of it that is shown."""

    run_id: str
    machine: str
    outcome: str
    scheduler: str
    overrun_policy: str
    vcpus: int
    validity: str
    n_jobs: int | None
    n_missed: int | None
    end_ns: int | None


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task of it; `bound_ns` is its worst-case response time by analysis."""

    task_idx: int
    name: str
    wcet_ns: int | None
    period_ns: int | None
    deadline_ns: int | None
    priority_rank: int
    policy: str
    bound_ns: int | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a test says of the set."""

    test: str
    n_cpus: int
    verdict: str
    exactness: str


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One measured set.

    Attributes:
        tasks: The most urgent first.
        jobs: Those that were alive in the time asked for, by release.
        executions: When they ran.
        complete: Whether `jobs` are all there are in that time.
    """

    taskset: SetRow
    run: RunRow
    tasks: tuple[TaskRow, ...]
    verdicts: tuple[Verdict, ...]
    jobs: tuple[Job, ...]
    executions: tuple[Execution, ...]
    complete: bool

    @property
    def n_unknown(self) -> int:
        """Jobs of which only start and finish are known."""
        return len({(one.task_idx, one.job_idx) for one in self.executions if not one.known})


def read_schedule(
    database: DataSet, taskset_id: str, *, from_ns: int = 0, to_ns: int = (1 << 62)
) -> Schedule:
    """A set's run, one with a miss if there is any.

    Raises:
        UsageError: it has not been measured, or there is no job in that time.
    """
    (taskset,) = all_of(SetRow, database, _SET, taskset_id)
    runs = all_of(RunRow, database, _RUN, taskset_id)
    if not runs:
        raise UsageError(
            f"task set {taskset.name!r} was not measured: there is no schedule to show",
            where=taskset_id,
            next_step=f"python -m runner.why RUN_FOLDER {taskset_id} tells why",
        )
    (run,) = runs
    # Not through `all_of`: there may be many.
    rows = database.execute(_JOBS, (run.run_id, from_ns, to_ns, MAX_JOBS + 1)).fetchall()
    jobs = tuple(Job(*row) for row in rows[:MAX_JOBS])
    if not jobs:
        raise UsageError(
            f"task set {taskset.name!r} has no job between {from_ns} ns and {excerpt(to_ns)} ns",
            where=taskset_id,
            next_step="leave --from and --to out",
        )
    if has_table(database, "analysis_tasks"):
        tasks = all_of(TaskRow, database, _TASKS.format(bound=_BOUND), taskset_id, run.vcpus, run.scheduler)
    else:
        tasks = all_of(TaskRow, database, _TASKS.format(bound="NULL"), taskset_id)
    return Schedule(
        taskset=taskset,
        run=run,
        tasks=tasks,
        verdicts=all_of(Verdict, database, _VERDICTS, taskset_id) if has_table(database, "analyses") else (),
        jobs=jobs,
        executions=tuple(executions(jobs, switch_ns=0 if run.validity == "computed" else SWITCH_NS)),
        complete=len(rows) <= MAX_JOBS,
    )


def executions(jobs: Sequence[Job], *, switch_ns: int = 0) -> list[Execution]:
    """When each job ran, in the order of time, from when it started and finished.

    On one CPU whoever started last runs: it has preempted the others, and they go on when it has finished. So it is under fixed
    priorities and under EDF, but not where turns are taken (SCHED_RR), budgets run out (SCHED_DEADLINE) or jobs migrate. Whether it
    was so is checked against the CPU time that each job used: where the two differ by more than `switch_ns` for each of the job's
    executions, its whole span from start to finish is given instead, as not known; and so is that of whoever it preempted, since what
    was left to them is not known either.

    Guarantees: known executions of one CPU do not overlap.

    Args:
        switch_ns: Time that a system spends on preempting a job and going on with it.
    """
    cpus: dict[int, list[Job]] = {}
    found: list[Execution] = []
    for job in jobs:
        if job.start_ns is None or job.finish_ns is None:
            continue
        if job.cpu_first != job.cpu_last or job.migrations:
            found.append(_whole(job))
        else:
            cpus.setdefault(job.cpu_first or 0, []).append(job)
    for cpu, own in cpus.items():
        found += _on_one_cpu(cpu, own, switch_ns)
    return sorted(found, key=lambda one: (one.start_ns, one.end_ns))


def _on_one_cpu(cpu: int, jobs: Iterable[Job], switch_ns: int) -> list[Execution]:
    spans: dict[Job, list[tuple[int, int]]] = {}
    active: list[Job] = []
    now = 0

    def run_until(at_ns: int) -> None:
        """Let whoever started last run, and finish, until then."""
        nonlocal now
        while active:
            job = active[-1]
            until = min(at_ns, job.finish_ns or 0)
            if until > now:
                spans[job].append((now, until))
                now = until
            if (job.finish_ns or 0) > at_ns:
                return
            active.pop()
        now = at_ns

    for job in sorted(jobs, key=lambda one: (one.start_ns or 0, -(one.finish_ns or 0))):
        run_until(job.start_ns or 0)
        now = max(now, job.start_ns or 0)
        spans[job] = []
        active.append(job)
    run_until(1 << 62)
    found = []
    # When the last job seen began that is not known; later ones come first.
    unknown_ns: int | None = None
    for job, own in reversed(spans.items()):
        ran_ns = sum(end - start for start, end in own)
        differs = job.exec_ns is None or abs(ran_ns - job.exec_ns) > switch_ns * len(own)
        if differs or (unknown_ns is not None and unknown_ns < (job.finish_ns or 0)):
            found.append(_whole(job))
            unknown_ns = job.start_ns
        else:
            found += [Execution(job.task_idx, job.job_idx, cpu, start, end, known=True) for start, end in own]
    return found


def _whole(job: Job) -> Execution:
    return Execution(
        job.task_idx, job.job_idx, job.cpu_first or 0, job.start_ns or 0, job.finish_ns or 0, known=False
    )
