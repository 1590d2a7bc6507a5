"""The event-driven simulation of one processor."""

from __future__ import annotations

import errno
from bisect import insort
from collections.abc import Iterator

from runner.errors import TaskSetError
from runner.events import (
    EndEvent,
    Event,
    ExitType,
    JobEvent,
    JobRecord,
    RefusedEvent,
    StartEvent,
    TaskDoneEvent,
)
from runner.model import OverrunPolicy, TaskSet
from runner.simulator.admission import admitted
from runner.simulator.state import DL_LEVEL, NEVER_NS, TaskState, task_state

NOBODY = -1


class Simulation:
    """One run of a concrete task set; `events()` may be taken once.

    Guarantees: the events depend on nothing but the task set; memory depends on its tasks, not on its jobs.

    Raises:
        TaskSetError: when a task's C is not known, or its `cpu_affinity` leaves out the one processor, CPU 0.
    """

    def __init__(self, taskset: TaskSet) -> None:
        for task in taskset.tasks:
            if task.cpu_affinity and task.cpu_affinity != (0,):
                raise TaskSetError(
                    f"task {task.name!r} cannot be simulated: it may run on CPUs {task.cpu_affinity}, and the simulation has only CPU 0",
                    where=f"task {task.name!r}.cpu_affinity",
                    next_step="leave cpu_affinity empty, or run the task set on a guest",
                )
        self._taskset = taskset
        self._tasks = [task_state(idx, task, taskset) for idx, task in enumerate(taskset.tasks)]
        self._end_ns = taskset.end_ns
        self._ready: list[tuple[int, int, int]] = []
        self._timers: list[tuple[int, int]] = []
        self._n_live = len(self._tasks)
        self._stopping = False

    def stop(self) -> None:
        """End the set at the instant of the last event that was taken; the remaining events still come. From any thread."""
        self._stopping = True

    def events(self) -> Iterator[Event]:
        """What happens, in the order of time: any `RefusedEvent`, the `StartEvent`, jobs and done tasks, the `EndEvent`."""
        yield from self._begin_set()
        tasks, ready, timers = self._tasks, self._ready, self._timers
        # The end of the set is a timer too, after all others of its instant: so there is always a next one.
        end = (self._end_ns, len(tasks))
        insort(timers, end)
        running, now = NOBODY, 0
        while self._n_live:
            while timers[0] < (now, end[1]):
                task = tasks[timers.pop(0)[1]]
                task.timer = None
                if task.asleep:
                    self._wake(task)
                else:
                    running = NOBODY if running == task.idx else running
                    yield from self._interrupt(task, now)
            if now >= end[0] or self._stopping or not self._n_live:
                break
            if not ready:
                now = timers[0][0]
                continue
            task = tasks[ready[0][2]]
            if task.idx != running:
                if running != NOBODY:
                    tasks[running].preemptions += 1
                running = task.idx
                if task.start_ns is None:
                    self._begin(task, now)
            span_ns = min(task.remaining_ns, task.allowance_ns, timers[0][0] - now)
            now += span_ns
            task.allowance_ns -= span_ns
            task.remaining_ns -= span_ns
            if not task.remaining_ns:
                running = NOBODY
                del ready[0]
                yield _job(task, now, ExitType.EXIT)
                if not self._advance(task, now):
                    yield self._done(task, now)
            elif not task.allowance_ns and self._exhaust(task, now):
                running = NOBODY
        yield from self._end_set(now)

    def _begin_set(self) -> Iterator[Event]:
        """Refuse what the kernel would refuse; everything else sleeps until its first release."""
        refused = [t for t, fits in zip(self._tasks, admitted(self._taskset), strict=True) if not fits]
        for task in refused:
            yield RefusedEvent(task.idx, errno.EBUSY, "EBUSY")
        yield StartEvent(t0_guest_ns=0)
        for task in refused:
            yield JobEvent(JobRecord(task.idx, 0, None, None, None, None, ExitType.NOT_SCHEDULED))
            yield self._done(task, 0)
        for task in self._tasks:
            if task.live:
                self._sleep(task)

    def _end_set(self, now: int) -> Iterator[Event]:
        """Kill whatever was released before `now` and is not finished."""
        stopped = self._n_live > 0
        for task in [task for task in self._tasks if task.live]:
            while task.live and task.release_ns < now:
                yield _job(task, now, ExitType.EXIT_EXTERNAL)
                task.next_job()
            yield self._done(task, now)
        yield EndEvent(now, stopped)

    def _done(self, task: TaskState, now: int) -> TaskDoneEvent:
        task.live = False
        self._n_live -= 1
        return TaskDoneEvent(task.idx, now)

    def _sleep(self, task: TaskState) -> None:
        """Until its next job arrives."""
        task.asleep = True
        insort(self._timers, (task.arrival_ns, task.idx))

    def _wake(self, task: TaskState) -> None:
        """Its job arrives. A SCHED_DEADLINE server begins anew: its last period ended at this release, or before."""
        task.asleep = False
        task.place_ns = task.release_ns if task.level == DL_LEVEL else task.arrival_ns
        if task.level == DL_LEVEL or not task.allowance_ns:
            task.allowance_ns = task.grant_ns
        self._enter(task)

    def _enter(self, task: TaskState) -> None:
        """Take its place among the ready tasks, with the overrun policy watching the current job."""
        task.key = (task.level, task.place_ns + task.lead_ns, task.idx)
        insort(self._ready, task.key)
        if task.limit_ns < NEVER_NS:
            task.kill_ns = min(task.kill_ns, task.release_ns + task.limit_ns)
        if task.kill_ns < NEVER_NS:
            self._set_timer(task, task.kill_ns)

    def _begin(self, task: TaskState, now: int) -> None:
        """The current job gets the processor for the first time."""
        task.start_ns = now
        if now + task.critical_ns < task.kill_ns:
            task.kill_ns = now + task.critical_ns
            self._set_timer(task, task.kill_ns)

    def _advance(self, task: TaskState, now: int) -> bool:
        """Go to the next job: asleep until it arrives, or at once if that is past. False: there is none."""
        if task.timer is not None:
            self._timers.remove(task.timer)
            task.timer = None
        if not task.next_job():
            return False
        if task.arrival_ns >= now:
            self._sleep(task)
            return True
        if task.level == DL_LEVEL and task.grant_ns == NEVER_NS:
            task.place_ns = task.release_ns
        self._enter(task)
        if not task.allowance_ns:
            self._exhaust(task, now)
        return True

    def _exhaust(self, task: TaskState, now: int) -> bool:
        """A task has used what it was granted. True: it is throttled."""
        self._ready.remove(task.key)
        if task.level != DL_LEVEL:
            task.allowance_ns = task.grant_ns
            task.place_ns = now
            self._enter(task)
            return False
        refill_ns = task.place_ns + task.period_ns
        if refill_ns <= now:
            self._refill(task)
            return False
        task.throttled = True
        task.preemptions += task.start_ns is not None and now < min(task.kill_ns, self._end_ns)
        self._set_timer(task, min(refill_ns, task.kill_ns))
        return True

    def _refill(self, task: TaskState) -> None:
        """The next period of its SCHED_DEADLINE server begins."""
        task.throttled = False
        task.allowance_ns = task.grant_ns
        task.place_ns += task.period_ns
        self._enter(task)

    def _interrupt(self, task: TaskState, now: int) -> Iterator[Event]:
        """Refill its budget if it is too early for the job to be killed; else kill it, and skip this release if the policy says so."""
        if now < task.kill_ns:
            self._refill(task)
            return
        if not task.throttled:
            self._ready.remove(task.key)
        task.throttled = False
        critical = task.start_ns is not None and now == task.start_ns + task.critical_ns
        skip = not critical and self._taskset.overrun_policy is OverrunPolicy.KILL_AND_SKIP
        limit_exit = ExitType.EXIT_PERIOD if skip else ExitType.EXIT_DEADLINE
        yield _job(task, now, ExitType.EXIT_CRITICAL if critical else limit_exit)
        if skip and task.job_idx + 1 < task.n_jobs:
            task.next_job()
            skipped = (task.idx, task.job_idx, task.release_ns)
            yield JobEvent(JobRecord(*skipped, None, None, None, ExitType.SKIPPED))
        if not self._advance(task, now):
            yield self._done(task, now)

    def _set_timer(self, task: TaskState, at_ns: int) -> None:
        if task.timer is not None:
            self._timers.remove(task.timer)
        task.timer = (at_ns, task.idx)
        insort(self._timers, task.timer)


def _job(task: TaskState, now: int, exit_type: ExitType) -> JobEvent:
    """The current job of a task, over at `now`."""
    cpu = None if task.start_ns is None else 0
    return JobEvent(
        JobRecord(
            task.idx,
            task.job_idx,
            task.release_ns,
            task.start_ns,
            now,
            task.cost_ns - task.remaining_ns,
            exit_type,
            0 if exit_type is ExitType.EXIT else None,
            task.preemptions,
            0,
            cpu,
            cpu,
        )
    )
