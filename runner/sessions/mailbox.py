"""The session through shared memory: a question before the guest runs, an answer when it has rung, nothing in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from runner import mailbox
from runner.deadline import Deadline
from runner.errors import Fault, GuestDied, RunnerError, TaskSetError, UsageError
from runner.events import Event
from runner.hosts.base import AbstractHost
from runner.model import TaskSet
from runner.sessions.base import AbstractSession
from runner.specs import Reach
from runner.task_loader import wire


class MailboxSession(AbstractSession):
    """Task sets through a guest's mailbox.

    Guarantees: between the start of a set and its end nothing reaches the guest from outside, so what it reports is a
    function of the guest's state and the set. The executables of the user's travel with the set that needs them.

    Args:
        host: A started host with a mailbox; it is paused whenever no set runs.
    """

    reach: ClassVar[Reach] = Reach.MAILBOX

    def __init__(self, host: AbstractHost) -> None:
        self._host = host
        self._hello: wire.Hello | None = None
        self._sequence = 0
        self._running: TaskSet | None = None
        self._reason: RunnerError | None = None

    @property
    def facts(self) -> Mapping[str, str | int | float | None]:
        """Kernel and calibration, as the task loader told them when the snapshot was made."""
        if self._hello is None:
            return {}
        return {
            "kernel_release": self._hello.kernel,
            "preempt_model": "PREEMPT_RT" if self._hello.realtime else "other",
            "spin_ps": self._hello.spin_ps,
        }

    def open(self, deadline: Deadline) -> None:
        """Read what the task loader said of itself."""
        self._check()
        self._hello = mailbox.read_hello(self._host.mailbox)

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Put the set into the mailbox; whether the guest takes it shows when it has rung."""
        self._check()
        if self._hello is None:
            raise UsageError(f"{self._host.name}: the session is not open", next_step="call open() first")
        if self._running is not None:
            raise UsageError(
                f"{self._host.name}: a task set was started before the last one ended",
                next_step="read events() to the end, or close the session",
            )
        files = _files(taskset)
        mailbox.write_request(self._host.mailbox, taskset, sequence=self._sequence + 1, files=files)
        self._sequence += 1  # not for a set that was refused: the guest never heard of that one
        self._running = taskset

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """Let the guest run until it rings, and yield what it reports."""
        self._check()
        if self._running is None:
            raise UsageError(f"{self._host.name}: no task set was started", next_step="call start() first")
        return self._answered(self._running, deadline)

    def _answered(self, taskset: TaskSet, deadline: Deadline) -> Iterator[Event]:
        try:
            self._host.run_until_bell(deadline)
            self._check()
            yield from mailbox.read_reply(
                self._host.mailbox, taskset, sequence=self._sequence, host=self._host.name
            )
        except mailbox.NoReply as exc:
            raise GuestDied(
                f"{self._host.name}: the guest gave up: its kernel panicked, or its task loader ended",
                evidence=self._host.evidence(),
                fault=Fault.TASKSET,
            ) from exc
        except RunnerError as exc:
            if self._reason is not None:
                raise self._reason from exc
            raise
        finally:
            self._running = None

    def stop(self, deadline: Deadline) -> None:
        """Nothing: the guest hears nothing while it runs, and ends the set at its `stop_ns`."""
        self._check()

    def close(self) -> None:
        """Nothing is open here: the memory is the host's."""
        self._hello = None

    def abort(self, error: RunnerError) -> None:
        """End the guest: whoever waits for its bell then raises `error`."""
        self._reason = self._reason or error
        self._host.kill()

    def _check(self) -> None:
        if self._reason is not None:
            raise self._reason


def _files(taskset: TaskSet) -> dict[str, bytes]:
    """Path -> content of every executable of the set."""
    contents = {}
    for path in {str(task.workload_args["path"]) for task in taskset.tasks if task.workload == "executable"}:
        try:
            contents[path] = Path(path).read_bytes()
        except (OSError, ValueError) as exc:  # ValueError: a path with a null byte
            raise TaskSetError(
                f"the workload executable {path} cannot be read: {exc}",
                next_step="correct workload_args.path",
            ) from exc
    return contents
