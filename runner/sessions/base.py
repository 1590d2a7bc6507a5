"""What every session can do; the machine above knows no more than this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from runner.deadline import Deadline
from runner.disturbance import ClockPair
from runner.errors import RunnerError, UsageError
from runner.events import Event
from runner.model import TaskSet
from runner.specs import Reach


class AbstractSession(ABC):
    """A connection to one host, good for many task sets, one at a time.

    Attributes:
        reach: What it talks to a host through. `Reach.SSH`: the guest runs all the time, but for when there is no work;
            `Reach.MAILBOX`: the guest stands still but while a set runs.

    Threads: everything but `abort` is called by the machine that owns the session. After an error has left any method the
    session is of no further use, unless `regain` brings it back: close it and open another.
    """

    reach: ClassVar[Reach] = Reach.SSH

    @abstractmethod
    def open(self, deadline: Deadline) -> None:
        """Connect and make sure that the other side is what it should be.

        Raises:
            InfrastructureError: when it is not ready by `deadline`, or answers wrongly.
            UsageError, HostError: when no attempt could succeed.
        """

    @property
    def facts(self) -> Mapping[str, str | int | float | None]:
        """What the other side says of itself; columns of the `runs` table. Known once `open` has returned."""
        return {}

    @property
    def where(self) -> str:
        """` at ADDRESS:PORT`, for a log, where an operator may want to reach the other side, too. Known once `open` has returned."""
        return ""

    def configure(self, parameters: tuple[Any, ...]) -> None:
        """Take over the session parameters of a job (`add_job`), before its first task set and whenever they change.

        Raises:
            UsageError: when this kind of session takes none.
        """
        if parameters:
            raise UsageError(
                f"{type(self).__name__} takes no session parameters, add_job() was given {parameters!r}",
                next_step="leave them out, or choose a session that understands them",
            )

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
        """Ask the other side to end the running set; its remaining events still come. Nothing happens if none runs.

        A session through a mailbox cannot be heard before the set is over: that one ends at its own `stop_ns`.
        """

    def clock_pair(self, deadline: Deadline) -> ClockPair | None:
        """The guest's clock and this computer's, read together between task sets; None where that cannot be done.

        Raises:
            InfrastructureError: when the other side failed, or `deadline` passed.
        """
        return None

    def regain(self, deadline: Deadline) -> bool:
        """After an error in `start` or `events`: make the other side stop and answer, on the line that there is.

        Returns:
            Whether the session takes task sets again; if not, it is of no further use.

        Raises:
            InfrastructureError: as False, and why.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; idempotent, never raises, takes a few seconds at most."""

    @abstractmethod
    def abort(self, error: RunnerError) -> None:
        """From any thread: make the call that is under way (and every later one) raise `error` at once."""
