"""The ideal processor as an oracle: what the simulation does with a set that a guest has run."""

from __future__ import annotations

import time

from runner.analysis import Exactness, Finding, Verdict
from runner.events import ExitType, JobEvent
from runner.model import TaskSet
from runner.simulator import Simulation

#: Sets with more are not simulated beside their measurement: it takes 10 µs a job.
MAX_JOBS = 5_000


def simulated(taskset: TaskSet, *, n_cpus: int = 1) -> Finding | None:
    """Whether a job misses in the same horizon on a processor without overheads; None: that cannot be said, or takes too long.

    A miss is a counterexample; that there is none proves nothing, so the verdict is unknown then. `margin` is the least 1 − R/D of all
    jobs that ended, `horizon_ns` the deadline of the first that missed.
    """
    tasks = taskset.tasks
    told = all(task.spin_ns is not None if task.workload == "spin" else task.wcet_ns for task in tasks)
    on_one = n_cpus == 1 and not any(task.cpu_affinity and task.cpu_affinity != (0,) for task in tasks)
    if not told or not on_one or sum(task.n_jobs for task in tasks) > MAX_JOBS:
        return None
    began_s = time.perf_counter()
    margin, first_ns = None, None
    for event in Simulation(taskset).events():
        if not isinstance(event, JobEvent):
            continue
        job = event.job
        if job.exit_type is ExitType.NOT_SCHEDULED:
            return None
        deadline_ns = tasks[job.task_idx].relative_deadline_ns
        if deadline_ns is None or job.release_ns is None:
            continue
        if job.missed(taskset):
            due_ns = job.release_ns + deadline_ns
            first_ns = due_ns if first_ns is None else min(first_ns, due_ns)
        if job.exit_type is ExitType.EXIT and job.finish_ns is not None:
            slack = 1.0 - (job.finish_ns - job.release_ns) / deadline_ns
            margin = slack if margin is None else min(margin, slack)
    return Finding(
        test="simulation",
        n_cpus=n_cpus,
        verdict=Verdict.UNKNOWN if first_ns is None else Verdict.UNSCHEDULABLE,
        exactness=Exactness.NECESSARY,
        margin=margin,
        horizon_ns=first_ns,
        wall_us=(time.perf_counter() - began_s) * 1e6,
    )
