"""The task loader's protocol (`docs/task-loader.md`): task sets to lines, lines to messages. Pure: no channel, no clock.

Which messages may follow which is the business of `runner.task_loader.decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from runner.errors import InfrastructureError, ProtocolError, RunnerError, TaskSetError
from runner.events import ExitType, JobEvent, JobRecord, RefusedEvent, TaskDoneEvent
from runner.model import Policy, Task, TaskSet
from runner.text.excerpt import printable_line

VERSION = 2
MAX_LINE_BYTES = 4095
# How far ahead the start instant lies: long enough for every task to have settled into its first sleep.
START_DELAY_NS = 100_000_000
_SAFE = "/+:="  # beside letters, digits and ".-_~"
_JOB_FIELDS = 12
_MAX_NUMBER = (1 << 63) - 1
#: Codes of `error` that speak of the task set, and that another guest would answer with, too.
_TASKSET_CODES = frozenset({"bad_value", "capacity", "range", "unsupported"})
#: Codes that speak of the guest's means.
_GUEST_CODES = frozenset({"set_up", "throttling"})


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


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the ping of that token: the guest's monotonic clock read `t_ns`."""

    token: str
    t_ns: int


@dataclass(frozen=True, slots=True)
class Started:
    """The set of that id starts at `t0_ns` of the guest's monotonic clock."""

    taskset_id: str
    t0_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The set of that id is over, with so many jobs reported, and so many lost for want of room in the guest."""

    taskset_id: str
    t_ns: int
    stopped: bool
    n_jobs: int
    n_lost: int


Message = Hello | Accepted | Refusal | Pong | Started | Ended | RefusedEvent | JobEvent | TaskDoneEvent


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
        TaskSetError: when a line would be longer than the task loader takes, or a task has release jitter, which it knows nothing of.
    """
    taskset.refuse_jitter()
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


def ping(token: str) -> bytes:
    """The request for the guest's clock; the token (1–64 characters of `A-Za-z0-9_-`) comes back with it."""
    return f"ping token={token}\n".encode("ascii")


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
                raise violation(
                    f"protocol version {fields['version']}, not {VERSION}: image and runner differ", line
                )
            if fields["realtime"] not in ("0", "1"):
                raise violation("neither realtime=0 nor realtime=1", line)
            return Hello(
                _number(fields["spin_ps"], line),
                _number(fields["cpus"], line),
                printable_line(unquote(fields["kernel"])),
                fields["realtime"] == "1",
            )
        case "accepted":
            return Accepted(_fields(line, verb, ("id",))["id"])
        case "refused":
            fields = _fields(line, verb, ("task", "errno", "name"))
            return RefusedEvent(_count(fields["task"], line), _number(fields["errno"], line), fields["name"])
        case "start":
            fields = _fields(line, verb, ("id", "t0_ns"))
            return Started(fields["id"], _number(fields["t0_ns"], line))
        case "end":
            fields = _fields(line, verb, ("id", "t_ns", "reason", "jobs", "lost"))
            if fields["reason"] not in ("completed", "stopped"):
                raise violation("an unknown reason", line)
            t_ns, jobs, lost = (_number(fields[key], line) for key in ("t_ns", "jobs", "lost"))
            return Ended(fields["id"], t_ns, fields["reason"] == "stopped", jobs, lost)
        case "pong":
            fields = _fields(line, verb, ("token", "t_ns"))
            return Pong(fields["token"], _number(fields["t_ns"], line))
        case "error":
            fields = _fields(line, verb, ("code", "detail"))
            return Refusal(fields["code"], printable_line(unquote(fields["detail"])))
    raise violation("no message of the protocol", line)


def _job(line: str) -> JobRecord:
    words = line.split(" ")
    if len(words) != _JOB_FIELDS + 1:
        raise violation(f"{len(words) - 1} fields instead of {_JOB_FIELDS}", line)
    try:
        exit_type = ExitType(words[7])
    except ValueError:
        raise violation("an unknown exit type", line) from None
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
            raise violation(f"{word!r} is no key=value, or stands twice", line)
        fields[key] = value
    if tuple(fields) != keys and set(fields) != set(keys):
        raise violation(f"{verb} has the keys {', '.join(keys)}", line)
    return fields


def _number(text: str, line: str) -> int:
    # The length first: no way to make the runner chew on a huge number.
    fits = len(text) <= 20 and text.isascii() and text.removeprefix("-").isdigit()
    if not fits or abs(int(text)) > _MAX_NUMBER:
        raise violation(f"{text[:40]!r}, which is no number of 64 bits", line)
    return int(text)


def _count(text: str, line: str) -> int:
    number = _number(text, line)
    if number < 0:
        raise violation(f"{number} where nothing negative can be", line)
    return number


def violation(what: str, line: str) -> ProtocolError:
    """The error that says what the task loader should not have sent."""
    return ProtocolError(f"the task loader sent {what}", evidence=line[:200])


def refused(host: str, taskset: TaskSet, refusal: Refusal) -> RunnerError:
    """Whose fault it is that the task loader of a host answered with an error: the set's, the guest's, or the protocol's."""
    detail = " ".join(refusal.detail.split())  # one line, whatever the guest made of it: it goes into logs
    said = f"task set {taskset.name!r} ({taskset.taskset_id}): {refusal.code}: {detail}"
    if refusal.code in _TASKSET_CODES:
        return TaskSetError(f"the task loader refused {said}")
    if refusal.code in _GUEST_CODES:
        return InfrastructureError(f"{host}: the guest could not set up {said}")
    return ProtocolError(f"{host}: the task loader did not understand {said}")


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
        raise violation("a line that was cut off", _text(rest))


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(
            f"the task loader sent a line of more than {MAX_LINE_BYTES} bytes", evidence=repr(line[:80])
        )
    # Not even a tab: what is quoted in a log or on a terminal must not speak to it.
    if line.isascii() and (text := line.decode("ascii")).isprintable():
        return text
    raise ProtocolError("the task loader sent bytes that are no text", evidence=repr(line[:80]))
