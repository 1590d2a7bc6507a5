"""The task loader's protocol (`docs/task-loader.md`): task sets to lines, lines to events. Pure: no channel, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from runner.errors import ProtocolError, TaskSetError
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
from runner.model import Policy, Task, TaskSet

VERSION = 1
MAX_LINE_BYTES = 4095
# How far ahead the start instant lies: long enough for every task to have settled into its first sleep.
START_DELAY_NS = 100_000_000
_SAFE = "/+:="  # beside letters, digits and ".-_~"
_JOB_FIELDS = 12
_MAX_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Hello:
    """What the task loader says of itself.

    Attributes:
        spin_ps: Picoseconds that one sled of `spin` takes: the calibration.
        cpus: CPUs of the guest.
        kernel: `uname -r`.
        realtime: Whether the kernel is PREEMPT_RT.
    """

    spin_ps: int
    cpus: int
    kernel: str
    realtime: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task loader took the set of that id over."""

    taskset_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The task loader could not make sense of a request, or could not carry it out."""

    code: str
    detail: str


Message = Hello | Accepted | Refusal | Event


def _value(value: int | str | None) -> str:
    return "-" if value is None else str(value)


def _workload(task: Task, uploads: Mapping[str, str]) -> str:
    if task.workload == "executable":
        path = str(task.workload_args["path"])
        argv = task.workload_args.get("argv", ())
        words = [
            uploads[path],
            *([argv] if isinstance(argv, str) else argv if isinstance(argv, tuple) else [str(argv)]),
        ]
        args = ",".join(quote(word, safe=_SAFE).replace("~", "%7E") for word in words)
    elif task.workload == "spin":
        args = _value(task.spin_ns)
    else:
        arg1 = task.workload_args.get("arg1")
        args = _value(arg1 if isinstance(arg1, int) else None)
    return f"workload={task.workload} args={args}"


def _task_line(idx: int, task: Task, priority: int, uploads: Mapping[str, str]) -> str:
    deadline_class = task.policy is Policy.DEADLINE
    cpus = f"{sum(1 << cpu for cpu in task.cpu_affinity):x}" if task.cpu_affinity else None
    return (
        f"task idx={idx} policy={task.policy.value} priority={priority} period_ns={_value(task.period_ns)}"
        f" deadline_ns={_value(task.relative_deadline_ns)} offset_ns={task.offset_ns} n_jobs={task.n_jobs}"
        f" kill_after_start_ns={_value(task.kill_after_start_ns)} mem_limit_bytes={_value(task.mem_limit_bytes)}"
        f" cpus={_value(cpus)} dl_runtime_ns={_value(task.dl_budget_ns if deadline_class else None)}"
        f" dl_deadline_ns={_value(task.relative_deadline_ns if deadline_class else None)}"
        f" dl_period_ns={_value(task.period_ns if deadline_class else None)} {_workload(task, uploads)}"
    )


def encode(taskset: TaskSet, *, uploads: Mapping[str, str] | None = None) -> bytes:
    """The request that starts a task set.

    Args:
        uploads: Path on this computer -> path in the guest, for every executable of the set.

    Raises:
        TaskSetError: when a line would be longer than the task loader takes.
    """
    lines = [
        f"taskset version={VERSION} id={taskset.taskset_id} n_tasks={len(taskset.tasks)}"
        f" overrun={taskset.overrun_policy.value} admission_control={int(taskset.admission_control)}"
        f" start_delay_ns={START_DELAY_NS} stop_ns={taskset.end_ns}"
    ]
    lines += [
        _task_line(i, task, taskset.priority(task), uploads or {}) for i, task in enumerate(taskset.tasks)
    ]
    for task, line in zip(taskset.tasks, lines[1:], strict=True):
        if len(line) > MAX_LINE_BYTES:
            raise TaskSetError(
                f"task {task.name!r} has {len(line)} bytes of arguments, the guest takes {MAX_LINE_BYTES}",
                next_step="shorten workload_args.argv",
            )
    return ("\n".join([*lines, "run"]) + "\n").encode("ascii")


class Decoder:
    """The task loader's replies to one task set, checked for being whole.

    Feed it line by line; `events()` of the session yields what comes back. It accepts what the protocol allows in the order
    that the protocol allows, and nothing else.

    Raises:
        ProtocolError: from `decode`: a malformed line, a message out of order, another set's message, a task or job
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
        if self.ended:
            raise _violation("a message after the end of its task set", line)
        message = decode(line)
        match message:
            case JobEvent(job):
                self._check_task(job.task_idx, line)
                self._count(job, line)
            case StartEvent():
                if self._started:
                    raise _violation("a second start", line)
                self._check_id(line, "start", ("id", "t0_ns"))
                self._started = True
            case RefusedEvent(task_idx=idx):
                self._check_task(idx, line, running=False)
                if idx in self._refused:
                    raise _violation("a second refusal of a task", line)
                self._refused.add(idx)
            case TaskDoneEvent(task_idx=idx):
                self._check_task(idx, line)
                self._done.add(idx)
            case EndEvent():
                self._check_end(line)
                self.ended = True
            case _:
                raise _violation("a message that has no place while a set runs", line)
        return message

    def _check_task(self, task_idx: int, line: str, *, running: bool = True) -> None:
        if task_idx >= len(self._taskset.tasks):
            raise _violation("a task that the set does not have", line)
        if self._started is not running:
            raise _violation(f"{'a task' if running else 'a refusal'} on the wrong side of the start", line)
        if task_idx in self._done:
            raise _violation("a task that was done already", line)

    def _check_id(self, line: str, verb: str, keys: tuple[str, ...]) -> dict[str, str]:
        fields = _fields(line, verb, keys)
        if fields["id"] != self._taskset.taskset_id:
            raise _violation(f"the {verb} of another task set", line)
        return fields

    def _count(self, job: JobRecord, line: str) -> None:
        task = self._taskset.tasks[job.task_idx]
        # A task's jobs come in the order of their releases, none left out.
        if job.job_idx != self._reported[job.task_idx] or job.job_idx >= task.n_jobs:
            raise _violation(f"job {job.job_idx} where job {self._reported[job.task_idx]} was due", line)
        if job.release_ns is not None and job.release_ns != task.release_ns(job.job_idx):
            raise _violation(f"a release at {job.release_ns} ns, due at {task.release_ns(job.job_idx)}", line)
        if (job.exit_type is ExitType.NOT_SCHEDULED) is not (job.task_idx in self._refused):
            raise _violation("a job that contradicts what was said of its task's admission", line)
        self._reported[job.task_idx] += 1

    def _check_end(self, line: str) -> None:
        fields = self._check_id(line, "end", ("id", "t_ns", "reason", "jobs", "lost"))
        if not self._started:
            raise _violation("an end before the start", line)
        if len(self._done) != len(self._taskset.tasks):
            raise _violation(f"an end with {len(self._done)} of {len(self._taskset.tasks)} tasks done", line)
        if _number(fields["lost"], line) != 0:
            raise _violation("jobs were lost in the guest for want of room", line)
        if _number(fields["jobs"], line) != sum(self._reported):
            raise _violation(f"a count of jobs other than the {sum(self._reported)} that arrived", line)


def decode(line: str) -> Message:
    """One line of the task loader.

    Raises:
        ProtocolError: when it is not of the protocol.
    """
    verb, _, _ = line.partition(" ")
    match verb:
        case "job":
            return JobEvent(_job(line))
        case "task_done":
            fields = _fields(line, verb, ("task", "t_ns"))
            return TaskDoneEvent(_count(fields["task"], line), _number(fields["t_ns"], line))
        case "hello":
            fields = _fields(line, verb, ("version", "spin_ps", "cpus", "kernel", "realtime"))
            if fields["version"] != str(VERSION):
                raise _violation(
                    f"protocol version {fields['version']}, not {VERSION}: image and runner differ", line
                )
            if fields["realtime"] not in ("0", "1"):
                raise _violation("neither realtime=0 nor realtime=1", line)
            return Hello(
                _number(fields["spin_ps"], line),
                _number(fields["cpus"], line),
                unquote(fields["kernel"]),
                fields["realtime"] == "1",
            )
        case "accepted":
            return Accepted(_fields(line, verb, ("id",))["id"])
        case "refused":
            fields = _fields(line, verb, ("task", "errno", "name"))
            return RefusedEvent(_count(fields["task"], line), _number(fields["errno"], line), fields["name"])
        case "start":
            return StartEvent(_number(_fields(line, verb, ("id", "t0_ns"))["t0_ns"], line))
        case "end":
            fields = _fields(line, verb, ("id", "t_ns", "reason", "jobs", "lost"))
            if fields["reason"] not in ("completed", "stopped"):
                raise _violation("an unknown reason", line)
            return EndEvent(_number(fields["t_ns"], line), fields["reason"] == "stopped")
        case "error":
            fields = _fields(line, verb, ("code", "detail"))
            return Refusal(fields["code"], unquote(fields["detail"]))
    raise _violation("no message of the protocol", line)


def _job(line: str) -> JobRecord:
    words = line.split(" ")
    if len(words) != _JOB_FIELDS + 1:
        raise _violation(f"{len(words) - 1} fields instead of {_JOB_FIELDS}", line)
    try:
        exit_type = ExitType(words[7])
    except ValueError:
        raise _violation("an unknown exit type", line) from None
    task_idx, job_idx = _count(words[1], line), _count(words[2], line)
    release_ns, start_ns, finish_ns, exit_code = (
        None if word == "-" else _number(word, line) for word in (*words[3:6], words[8])
    )
    exec_ns, *counts = (None if word == "-" else _count(word, line) for word in (words[6], *words[9:]))
    return JobRecord(
        task_idx, job_idx, release_ns, start_ns, finish_ns, exec_ns, exit_type, exit_code, *counts
    )


def _fields(line: str, verb: str, keys: tuple[str, ...]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for word in line.split(" ")[1:]:
        key, equals, value = word.partition("=")
        if not equals or key in fields:
            raise _violation(f"{word!r} is no key=value, or stands twice", line)
        fields[key] = value
    if tuple(fields) != keys and set(fields) != set(keys):
        raise _violation(f"{verb} has the keys {', '.join(keys)}", line)
    return fields


def _number(text: str, line: str) -> int:
    # The length first: no way to make the runner chew on a huge number.
    fits = len(text) <= 20 and text.isascii() and text.removeprefix("-").isdigit()
    if not fits or abs(int(text)) > _MAX_NUMBER:
        raise _violation(f"{text[:40]!r}, which is no number of 64 bits", line)
    return int(text)


def _count(text: str, line: str) -> int:
    number = _number(text, line)
    if number < 0:
        raise _violation(f"{number} where nothing negative can be", line)
    return number


def _violation(what: str, line: str) -> ProtocolError:
    return ProtocolError(f"the task loader sent {what}", evidence=line[:200])


def lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """Cut a stream of bytes into lines, whatever its chunks are.

    Raises:
        ProtocolError: for a line longer than `MAX_LINE_BYTES`, or bytes that are not ASCII.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield _text(line)
        if len(rest) > MAX_LINE_BYTES:  # do not wait for its end: it may never come
            _text(rest)
    if rest:
        raise _violation("a line that was cut off", _text(rest))


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(
            f"the task loader sent a line of more than {MAX_LINE_BYTES} bytes", evidence=repr(line[:80])
        )
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the task loader sent bytes that are no text", evidence=repr(line[:80])) from None
