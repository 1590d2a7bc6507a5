"""What every session can do; the machine above knows no more than this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from runner.deadline import Deadline
from runner.errors import RunnerError
from runner.events import Event
from runner.model import TaskSet


class AbstractSession(ABC):
    """A connection to one host, good for many task sets, one at a time.

    Threads: everything but `abort` is called by the machine that owns the session. After an error has left any method the
    session is of no further use: close it and open another.
    """

    @abstractmethod
    def open(self, deadline: Deadline) -> None:
        """Connect and make sure that the other side is what it should be.

        Raises:
            InfrastructureError: when it is not ready by `deadline`, or answers wrongly.
            UsageError, HostError: when no attempt could succeed.
        """

    @abstractmethod
    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Hand a concrete task set over and have it accepted; it begins to run at once.

        Raises:
            TaskSetError: when this task set can never run here; the session stays usable.
            InfrastructureError: when the other side failed, or `deadline` passed.
        """

    @abstractmethod
    def events(self, deadline: Deadline) -> Iterator[Event]:
        """Yield what happens, as it comes: one `StartEvent` (after any `RefusedEvent`), the jobs, and last one `EndEvent`.

        Guarantees: when an `EndEvent` was yielded, nothing of the set is missing; otherwise an error is raised.

        Raises:
            InfrastructureError: when the stream broke, was damaged, or was not complete by `deadline`.
        """

    @abstractmethod
    def stop(self, deadline: Deadline) -> None:
        """Ask the other side to end the running set; its remaining events still come. Nothing happens if none runs."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; idempotent, never raises, takes a few seconds at most."""

    @abstractmethod
    def abort(self, error: RunnerError) -> None:
        """From any thread: make the call that is under way (and every later one) raise `error` at once."""
