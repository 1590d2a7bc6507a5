"""A slow simulation that looks at every task in every tick: the reference that the event-driven one is compared with.

It knows jobs only, no timers, queues or states of tasks, so that the two can hardly share a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.events import EndEvent, ExitType, JobRecord
from runner.model import OverrunPolicy, Policy, Task, TaskSet


@dataclass
class _Job:
    task: Task
    task_idx: int
    idx: int
    release: int
    #: When the task last stopped sleeping: its place in its rank.
    woke: int = 0
    start: int | None = None
    used: int = 0
    preemptions: int = 0
    finish: int | None = None
    exit_type: ExitType | None = None

    @property
    def deadline(self) -> int | None:
        relative = self.task.relative_deadline_ns
        return None if relative is None else self.release + relative

    def end(self, now: int, exit_type: ExitType) -> None:
        self.finish, self.exit_type = now, exit_type

    def record(self) -> JobRecord:
        assert self.exit_type is not None
        if self.exit_type is ExitType.SKIPPED:
            return JobRecord(self.task_idx, self.idx, self.release, None, None, None, self.exit_type)
        cpu = None if self.start is None else 0
        code = 0 if self.exit_type is ExitType.EXIT else None
        return JobRecord(
            self.task_idx,
            self.idx,
            self.release,
            self.start,
            self.finish,
            self.used,
            self.exit_type,
            code,
            self.preemptions,
            0,
            cpu,
            cpu,
        )


@dataclass
class _Server:
    """The SCHED_DEADLINE server of a task whose C exceeds its budget."""

    begin: int
    left: int


class TickSimulator:
    """Runs a set whose times are all multiples of `tick_ns`."""

    def __init__(self, taskset: TaskSet, tick_ns: int) -> None:
        self.taskset = taskset
        self.tick = tick_ns
        self.jobs = [
            [_Job(task, idx, k, task.release_ns(k)) for k in range(task.n_jobs)]
            for idx, task in enumerate(taskset.tasks)
        ]
        self.servers: dict[int, _Server] = {}

    def run(self) -> tuple[list[JobRecord], EndEvent]:
        """Job records by task and job, and the end."""
        now = 0
        ran: _Job | None = None
        while True:
            for jobs in self.jobs:
                self._kill(jobs, now)
            if all(job.exit_type for jobs in self.jobs for job in jobs) or now >= self.taskset.end_ns:
                break
            for idx in range(len(self.jobs)):
                self._wake(idx, now)
            job = self._choose(now)
            if ran is not None and ran is not job and ran.exit_type is None:
                ran.preemptions += 1
            ran = job
            now += self.tick
            if job is not None:
                self._execute(job, now)
        for jobs in self.jobs:
            for job in jobs:
                if job.exit_type is None and job.release < now:
                    job.end(now, ExitType.EXIT_EXTERNAL)
        records = [job.record() for jobs in self.jobs for job in jobs if job.exit_type]
        stopped = any(job.exit_type in (None, ExitType.EXIT_EXTERNAL) for jobs in self.jobs for job in jobs)
        last = max((j.finish or j.release for jobs in self.jobs for j in jobs if j.exit_type), default=0)
        return records, EndEvent(self.taskset.end_ns if stopped else last, stopped=stopped)

    def _current(self, idx: int, now: int) -> _Job | None:
        job = next((job for job in self.jobs[idx] if job.exit_type is None), None)
        return job if job is not None and job.release <= now else None

    def _kill(self, jobs: list[_Job], now: int) -> None:
        for position, job in enumerate(jobs):
            if job.exit_type is not None or job.release > now:
                continue
            task, policy = job.task, self.taskset.overrun_policy
            critical = task.kill_after_start_ns
            if critical is not None and job.start is not None and now == job.start + critical:
                job.end(now, ExitType.EXIT_CRITICAL)
            elif (
                policy is OverrunPolicy.KILL_AND_SKIP
                and task.period_ns
                and now == job.release + task.period_ns
            ):
                job.end(now, ExitType.EXIT_PERIOD)
                for skipped in jobs[position + 1 : position + 2]:
                    skipped.end(now, ExitType.SKIPPED)
            elif policy is OverrunPolicy.ABORT_AT_DEADLINE and now == job.deadline:
                job.end(now, ExitType.EXIT_DEADLINE)

    def _wake(self, idx: int, now: int) -> None:
        job = self._current(idx, now)
        if job is None:
            return
        if job.release == now:
            before = self.jobs[idx][job.idx - 1] if job.idx else None
            if before is None or before.exit_type is not None:
                job.woke = now
                self.servers[idx] = _Server(now, job.task.dl_budget_ns or 0)
        elif job.idx and job.start is None and job.used == 0 and job.woke == 0:
            job.woke = self.jobs[idx][job.idx - 1].woke
        server = self.servers[idx]
        if _throttles(job.task) and server.left == 0 and now >= server.begin + (job.task.period_ns or 0):
            server.begin += job.task.period_ns or 0
            server.left = job.task.dl_budget_ns or 0

    def _choose(self, now: int) -> _Job | None:
        candidates: list[tuple[int, int, int, _Job]] = []
        for idx in range(len(self.jobs)):
            job = self._current(idx, now)
            if job is None:
                continue
            task, server = job.task, self.servers[idx]
            if task.policy is Policy.DEADLINE:
                if _throttles(task) and server.left == 0:
                    continue
                begin = server.begin if _throttles(task) else job.release
                candidates.append((0, begin + (task.relative_deadline_ns or 0), idx, job))
            elif task.policy is Policy.FIFO:
                candidates.append((1 + task.priority_rank, job.woke, idx, job))
            else:
                candidates.append((1000, job.woke, idx, job))
        return min(candidates, key=lambda candidate: candidate[:3])[3] if candidates else None

    def _execute(self, job: _Job, now: int) -> None:
        if job.start is None:
            job.start = now - self.tick
        job.used += self.tick
        self.servers[job.task_idx].left -= self.tick
        if job.used == job.task.spin_ns:
            job.end(now, ExitType.EXIT)


def _throttles(task: Task) -> bool:
    return task.policy is Policy.DEADLINE and (task.spin_ns or 0) > (task.dl_budget_ns or 0)
