"""The order in which a task loader may speak of one task set, and what of it must agree. Pure: no channel, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
from runner.model import TaskSet
from runner.task_loader import wire
from runner.task_loader.wire import violation


class Decoder:
    """What the task loader says of one task set after its acceptance, checked for being whole.

    Feed it everything in the order in which it came, as lines (`decode`), messages (`accept`) or all jobs of a task at once
    (`accept_jobs`); what it returns are the set's events. It takes what the protocol allows in the order that the protocol allows, and
    nothing else.

    Raises:
        ProtocolError: from each of the three: a malformed line, a message out of order, another set's message, a task or job
            that does not exist, a job or task reported twice or not at all, or a count at the end that does not agree.
    """

    def __init__(self, taskset: TaskSet) -> None:
        self._taskset = taskset
        self._reported = [0] * len(taskset.tasks)
        self._refused: set[int] = set()
        self._done: set[int] = set()
        self._started = False
        self.ended = False

    def decode(self, line: str) -> Event:
        """One line as an event."""
        return self.accept(wire.decode(line), line)

    def accept(self, message: wire.Message, line: str) -> Event:
        """One message as an event; `line` is what it was decoded from, for the evidence."""
        if self.ended:
            raise violation("a message after the end of its task set", line)
        match message:
            case JobEvent(job):
                self._check_task(job.task_idx, line)
                self._check_job(job, self._reported[job.task_idx], line)
                self._reported[job.task_idx] += 1
                return message
            case RefusedEvent(task_idx=idx):
                self._check_task(idx, line, running=False)
                if idx in self._refused:
                    raise violation("a second refusal of a task", line)
                self._refused.add(idx)
                return message
            case TaskDoneEvent(task_idx=idx):
                self._check_task(idx, line)
                self._done.add(idx)
                return message
            case wire.Started(taskset_id, t0_ns):
                if self._started:
                    raise violation("a second start", line)
                self._check_id(taskset_id, "start", line)
                self._started = True
                return StartEvent(t0_ns)
            case wire.Ended():
                self._check_end(message, line)
                self.ended = True
                return EndEvent(message.t_ns, message.stopped)
        raise violation("a message that has no place while a set runs", line)

    def accept_jobs(self, task_idx: int, jobs: Iterable[JobRecord]) -> Iterator[JobEvent]:
        """As `accept`, for jobs that are all of that task: what is the same for all is asked once."""
        self._check_task(task_idx, f"jobs of task {task_idx}")
        task, refused = self._taskset.tasks[task_idx], task_idx in self._refused
        due_idx, n_jobs = self._reported[task_idx], task.n_jobs
        due_ns, step_ns = task.release_ns(due_idx), task.period_ns or 0
        for job in jobs:
            usual = job.job_idx == due_idx < n_jobs and job.release_ns == due_ns
            if not usual or (job.exit_type is ExitType.NOT_SCHEDULED) is not refused:
                self._check_job(job, due_idx, repr(job))
            due_idx += 1
            due_ns += step_ns
            yield JobEvent(job)
        self._reported[task_idx] = due_idx

    def _check_task(self, task_idx: int, line: str, *, running: bool = True) -> None:
        if task_idx >= len(self._taskset.tasks):
            raise violation("a task that the set does not have", line)
        if self._started is not running:
            raise violation(f"{'a task' if running else 'a refusal'} on the wrong side of the start", line)
        if task_idx in self._done:
            raise violation("a task that was done already", line)

    def _check_id(self, taskset_id: str, verb: str, line: str) -> None:
        if taskset_id != self._taskset.taskset_id:
            raise violation(f"the {verb} of another task set", line)

    def _check_job(self, job: JobRecord, due_idx: int, line: str) -> None:
        task = self._taskset.tasks[job.task_idx]
        # A task's jobs come in the order of their releases, none left out.
        if job.job_idx != due_idx or due_idx >= task.n_jobs:
            raise violation(f"job {job.job_idx} where job {due_idx} was due", line)
        if job.release_ns is not None and job.release_ns != task.release_ns(due_idx):
            raise violation(f"a release at {job.release_ns} ns, due at {task.release_ns(due_idx)}", line)
        if (job.exit_type is ExitType.NOT_SCHEDULED) is not (job.task_idx in self._refused):
            raise violation("a job that contradicts what was said of its task's admission", line)

    def _check_end(self, end: wire.Ended, line: str) -> None:
        self._check_id(end.taskset_id, "end", line)
        if not self._started:
            raise violation("an end before the start", line)
        if len(self._done) != len(self._taskset.tasks):
            raise violation(f"an end with {len(self._done)} of {len(self._taskset.tasks)} tasks done", line)
        if end.n_lost != 0:
            raise violation("jobs were lost in the guest for want of room", line)
        if end.n_jobs != sum(self._reported):
            raise violation(f"a count of jobs other than the {sum(self._reported)} that arrived", line)
