"""From a profile's events to those that every session yields: starts and ends of a task's jobs belong together in their order."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from runner.errors import ProtocolError
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
from runner.genode.profiles import ProfileEvent, ProfileEventType
from runner.model import TaskSet
from runner.units import NS_PER_MS


class Matcher:
    """What one task set's profiles say, event by event.

    Guarantees: what the protocol does not tell (releases, CPU time, skipped releases) is None, or not there; times are those of the
    task loader's own clock, in whole milliseconds, for it does not say when the set began. Of a task come at most `n_jobs` jobs.
    """

    def __init__(self, taskset: TaskSet) -> None:
        self._taskset = taskset
        self._n_jobs = [0] * len(taskset.tasks)
        self._start_ns: dict[int, int] = {}
        self._refused: set[int] = set()
        self._left = set(range(len(taskset.tasks)))
        self._began = False
        self._last_ns = 0

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return not self._left

    @property
    def n_running(self) -> int:
        """Jobs that have begun, and not ended yet."""
        return len(self._start_ns)

    def take(self, profile: Iterable[ProfileEvent]) -> Iterator[Event]:
        """What a profile says.

        Raises:
            ProtocolError: that cannot be: a task that there is not, an end without a start, too many jobs.
        """
        for event in profile:
            yield from self._take(event)

    def end(self) -> Iterator[Event]:
        """The end of the set; jobs of which no end came were ended with it, nobody knows when."""
        yield from self._begin()
        for task_idx in sorted(self._start_ns):
            yield self._job(task_idx, ExitType.EXIT_EXTERNAL, self._start_ns[task_idx], None)
        self._start_ns.clear()
        yield EndEvent(self._last_ns, stopped=not self.done)

    def _take(self, event: ProfileEvent) -> Iterator[Event]:
        task_idx, t_ns = event.task_id, event.t_ms * NS_PER_MS
        if task_idx >= len(self._taskset.tasks):
            raise ProtocolError(f"a profile speaks of task {task_idx}; there are {len(self._taskset.tasks)}")
        self._last_ns = max(self._last_ns, t_ns)
        if event.kind is ProfileEventType.NOT_SCHEDULED:
            yield from self._refuse(task_idx, t_ns)
            return
        if task_idx in self._refused and event.kind is ProfileEventType.JOBS_DONE:
            return  # it is known to be
        if task_idx not in self._left:
            raise ProtocolError(f"task {task_idx} has {event.kind} after it was done")
        yield from self._begin()
        if event.kind is ProfileEventType.START:
            self._start(task_idx, t_ns)
        elif event.kind is ProfileEventType.JOBS_DONE:
            if task_idx in self._start_ns:
                raise ProtocolError(
                    f"task {task_idx} is done while its job {self._n_jobs[task_idx] - 1} runs"
                )
            self._left.discard(task_idx)
            yield TaskDoneEvent(task_idx, t_ns)
        else:
            start_ns = self._start_ns.pop(task_idx, None)
            if start_ns is None or t_ns < start_ns:
                raise ProtocolError(f"a job of task {task_idx} has {event.kind} before its start")
            yield self._job(task_idx, ExitType(event.kind.value), start_ns, t_ns)

    def _begin(self) -> Iterator[Event]:
        if not self._began:
            self._began = True
            yield StartEvent(0)

    def _start(self, task_idx: int, t_ns: int) -> None:
        if task_idx in self._start_ns:
            raise ProtocolError(f"a job of task {task_idx} starts while the one before runs")
        self._count(task_idx)
        self._start_ns[task_idx] = t_ns

    def _refuse(self, task_idx: int, t_ns: int) -> Iterator[Event]:
        """A job that admission control refused. The original may say nothing more of its task, so that one counts as done."""
        if task_idx not in self._left and task_idx not in self._refused:
            raise ProtocolError(f"task {task_idx} is refused after it was done")
        if task_idx in self._start_ns:
            raise ProtocolError(f"task {task_idx} is refused while its job runs")
        self._count(task_idx)
        if task_idx not in self._refused:
            self._refused.add(task_idx)
            yield RefusedEvent(task_idx, errno.EBUSY, "EBUSY")
        yield from self._begin()
        yield self._job(task_idx, ExitType.NOT_SCHEDULED, None, None)
        if task_idx in self._left:
            self._left.discard(task_idx)
            yield TaskDoneEvent(task_idx, t_ns)

    def _count(self, task_idx: int) -> None:
        if self._n_jobs[task_idx] == self._taskset.tasks[task_idx].n_jobs:
            raise ProtocolError(f"task {task_idx} has more jobs than it should: {self._n_jobs[task_idx] + 1}")
        self._n_jobs[task_idx] += 1

    def _job(
        self, task_idx: int, exit_type: ExitType, start_ns: int | None, finish_ns: int | None
    ) -> JobEvent:
        return JobEvent(
            JobRecord(
                task_idx=task_idx,
                job_idx=self._n_jobs[task_idx] - 1,
                release_ns=None,
                start_ns=start_ns,
                finish_ns=finish_ns,
                exec_ns=None,
                exit_type=exit_type,
                exit_code=0 if exit_type is ExitType.EXIT else None,
            )
        )
