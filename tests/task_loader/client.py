"""A task loader as a child process, spoken to over its pipes: what the tests of the binary share."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.deadline import Deadline

SOURCES = Path(__file__).parents[2] / "host_setup" / "guest"

MS = 1_000_000

#: What a timer or a wake-up may cost on a computer that does other things as well.
SLACK_NS = 150 * MS

JOB_FIELDS = (
    "task",
    "job",
    "release",
    "start",
    "finish",
    "exec",
    "exit",
    "code",
    "preemptions",
    "migrations",
    "cpu_first",
    "cpu_last",
)


def make(target: Path) -> Path:
    """Builds a target of the guest's Makefile for this computer, and returns it."""
    subprocess.run(
        ["make", "-s", "-C", SOURCES, "CC=gcc", f"BUILD={target.parent}", str(target)],
        check=True,
        timeout=120,
    )
    return target


def taskset_line(n_tasks: int, **changes: object) -> str:
    """A `taskset` request with harmless values for whatever `changes` does not name."""
    fields: dict[str, object] = {
        "version": 2,
        "id": "set-1",
        "n_tasks": n_tasks,
        "overrun": "continue",
        "admission_control": 0,
        "start_delay_ns": 0,
        "stop_ns": 2000 * MS,
    }
    return "taskset " + " ".join(f"{key}={value}" for key, value in (fields | changes).items())


def task_line(idx: int, **changes: object) -> str:
    """A `task` request: one job of `hey` under SCHED_OTHER, but for `changes`."""
    fields: dict[str, object] = {
        "idx": idx,
        "policy": "other",
        "priority": 0,
        "period_ns": "-",
        "deadline_ns": "-",
        "offset_ns": 0,
        "n_jobs": 1,
        "kill_after_start_ns": "-",
        "mem_limit_bytes": "-",
        "cpus": "-",
        "dl_runtime_ns": "-",
        "dl_deadline_ns": "-",
        "dl_period_ns": "-",
        "workload": "hey",
        "args": "-",
    }
    return "task " + " ".join(f"{key}={value}" for key, value in (fields | changes).items())


def periodic(idx: int, n_jobs: int, period_ms: int, **changes: object) -> str:
    return task_line(idx, **({"period_ns": period_ms * MS, "n_jobs": n_jobs} | changes))


def executable(idx: int, program: Path, *args: str, **changes: object) -> str:
    quoted = ",".join(
        value.replace("%", "%25").replace(" ", "%20").replace(",", "%2C") for value in (str(program), *args)
    )
    return task_line(idx, **({"workload": "executable", "args": quoted} | changes))


class Job(dict[str, "int | str | None"]):
    """One `job` line, by field name; None where the line has `-`."""

    @classmethod
    def parse(cls, line: str) -> Job:
        verb, *words = line.split(" ")
        assert verb == "job"
        assert len(words) == len(JOB_FIELDS), line
        pairs = zip(JOB_FIELDS, words, strict=True)
        return cls(
            {key: None if word == "-" else word if key == "exit" else int(word) for key, word in pairs}
        )

    def ns(self, field: str) -> int:
        value = self[field]
        assert isinstance(value, int), (field, self)
        return value


class Outcome:
    """What came between a `run` and its `end`."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.jobs = [Job.parse(line) for line in lines if line.startswith("job ")]
        self.end = dict(word.split("=", 1) for word in lines[-1].split(" ")[1:])

    def of_task(self, task: int) -> list[Job]:
        return sorted((job for job in self.jobs if job["task"] == task), key=lambda job: job.ns("job"))

    def exits(self, task: int) -> list[str]:
        return [str(job["exit"]) for job in self.of_task(task)]


class TaskLoader:
    """Owns one `taskloader serve`; leaving the context ends it, and fails when it has to be killed for that."""

    def __init__(self, binary: Path, *, under: Sequence[str] = ()) -> None:
        """`under`: a command that is to start it."""
        command = [*under, str(binary), "serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._buffer = b""

    def __enter__(self) -> Self:
        self.hello = self.line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.close_input()
            self.process.wait(5)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()

    def send(self, data: str | bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data.encode() + b"\n" if isinstance(data, str) else data)
        self.process.stdin.flush()

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close_output(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    def line(self, timeout_s: float = 10.0) -> str:
        assert self.process.stdout is not None
        deadline = Deadline.after(timeout_s)
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self.process.stdout], [], [], deadline.remaining_s)
            assert readable, f"nothing within {timeout_s} s; so far {self._buffer!r}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"the task loader ended: {self.process.wait(5)}"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("ascii")

    def until(self, prefix: str, timeout_s: float = 10.0) -> list[str]:
        lines = [self.line(timeout_s)]
        while not lines[-1].startswith(prefix):
            lines.append(self.line(timeout_s))
        return lines

    def replies_to(self, requests: Iterable[str | bytes]) -> list[str]:
        """What the requests are answered with, until a `ping` sent after them comes back."""
        for request in requests:
            self.send(request)
        self.send("ping token=done")
        return self.until("pong token=done")[:-1]

    def begin(self, tasks: list[str], **taskset: object) -> None:
        self.send("\n".join([taskset_line(len(tasks), **taskset), *tasks, "run"]))
        lines = self.until("start ")
        assert not any(line.startswith("error") for line in lines), lines

    def finish(self, timeout_s: float = 20.0) -> Outcome:
        return Outcome(self.until("end ", timeout_s))

    def run(self, tasks: list[str], **taskset: object) -> Outcome:
        self.begin(tasks, **taskset)
        return self.finish()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def processes_of(program: Path) -> list[int]:
    found = []
    for exe in Path("/proc").glob("[0-9]*/exe"):
        try:
            if exe.readlink() == program:
                found.append(int(exe.parent.name))
        except OSError:
            continue
    return found


def gone(pid: int) -> bool:
    """Whether the process is gone, waiting a moment for it."""
    deadline = Deadline.after(5)
    while Path(f"/proc/{pid}").exists():
        if deadline.passed or "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]:
            return deadline.passed is False
        time.sleep(0.01)
    return True
