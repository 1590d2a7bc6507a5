"""A task while it is simulated."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import TaskSetError
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.model.arrival import arrival_ns
from runner.units import NS_PER_MS

# sched(7), sched_rr_timeslice_ms: 100 ms by default.
RR_QUANTUM_NS = 100 * NS_PER_MS
DL_LEVEL = -1
NEVER_NS = 1 << 63


def cost_ns(task: Task) -> int:
    """C: CPU time that each job of the task uses.

    Raises:
        TaskSetError: when the task does not tell.
    """
    cost = task.spin_ns if task.workload == "spin" else task.wcet_ns
    if cost is None:
        raise TaskSetError(
            f"task {task.name!r} cannot be simulated: nothing tells how long its workload {task.workload!r} takes",
            where=f"task {task.name!r}.wcet_ns",
            next_step="give it wcet_ns, or run the task set on a guest",
        )
    return cost


@dataclass(slots=True)
class TaskState:
    """A task while it is simulated: what it is, its current job, and where it stands.

    Attributes:
        level: Scheduling class and rank; the lowest runs.
        grant_ns: CPU time the task gets at once before it is throttled or goes to the end of its rank.
        limit_ns: When the overrun policy kills a job, after its release.
        critical_ns: When a job is killed, after its start.
        key: Its place among the ready tasks.
        arrival_ns: When the current job can first run: later than its release by the task's jitter.
        kill_ns: When the current job will be killed.
        place_ns: When it came to its place in its rank; under SCHED_DEADLINE, the begin of its server's current period.
        lead_ns: What is added to that to get the deadline by which EDF orders; 0 outside SCHED_DEADLINE.
        timer: Its entry among the timers while it is awake, if any: when its job is killed, or its budget comes back if that is earlier.
    """

    idx: int
    cost_ns: int
    period_ns: int
    n_jobs: int
    level: int
    lead_ns: int
    grant_ns: int
    limit_ns: int
    critical_ns: int
    release_ns: int
    arrival_ns: int
    task: Task
    live: bool = True
    asleep: bool = True
    throttled: bool = False
    job_idx: int = 0
    start_ns: int | None = None
    remaining_ns: int = 0
    allowance_ns: int = 0
    preemptions: int = 0
    kill_ns: int = NEVER_NS
    place_ns: int = 0
    key: tuple[int, int, int] = (0, 0, 0)
    timer: tuple[int, int] | None = None

    def next_job(self) -> bool:
        """Make the next job the current one; False, and no longer live, when there is none."""
        self.job_idx += 1
        self.release_ns += self.period_ns
        late = self.task.jitter_ns > 0
        self.arrival_ns = arrival_ns(self.task, self.idx, self.job_idx) if late else self.release_ns
        self.start_ns = None
        self.remaining_ns = self.cost_ns
        self.preemptions = 0
        self.kill_ns = NEVER_NS
        self.live = self.job_idx < self.n_jobs
        return self.live


def task_state(idx: int, task: Task, taskset: TaskSet) -> TaskState:
    """A task of a set before the set begins.

    Raises:
        TaskSetError: when its C is not known.
    """
    cost = cost_ns(task)
    limit_ns = {
        OverrunPolicy.CONTINUE: None,
        OverrunPolicy.KILL_AND_SKIP: task.period_ns,
        OverrunPolicy.ABORT_AT_DEADLINE: task.relative_deadline_ns,
    }[taskset.overrun_policy]
    level, grant_ns = task.priority_rank, NEVER_NS
    if task.policy is Policy.DEADLINE:
        level, grant_ns = DL_LEVEL, task.dl_budget_ns or cost
        grant_ns = NEVER_NS if cost <= grant_ns else grant_ns
    elif task.policy is Policy.RR:
        grant_ns = RR_QUANTUM_NS
    elif task.policy is Policy.OTHER:
        level = 1 + max(other.priority_rank for other in taskset.tasks)
    return TaskState(
        idx=idx,
        cost_ns=cost,
        period_ns=task.period_ns or 0,
        n_jobs=task.n_jobs,
        level=level,
        lead_ns=(task.relative_deadline_ns or 0) if task.policy is Policy.DEADLINE else 0,
        grant_ns=grant_ns,
        limit_ns=limit_ns or NEVER_NS,
        critical_ns=task.kill_after_start_ns or NEVER_NS,
        release_ns=task.offset_ns,
        arrival_ns=arrival_ns(task, idx, 0),
        task=task,
        allowance_ns=grant_ns,
        remaining_ns=cost,
    )
