"""What came back to a queue and waits to be tried again: which of it is next, and from when on. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

from runner.errors import Fault, RunnerError, fault_of
from runner.faults.tries import Tries

T = TypeVar("T")


@dataclass(frozen=True)
class Retry(Generic[T]):
    """A measurement that is to be tried again.

    Attributes:
        of: What it is a measurement of.
        repetition, attempt: Of the next try.
        tries: What it has been through.
        due_s: From when on, on the monotonic clock.
        gives_way: Whether something else should be measured before it, which tells sick guests from a set that ruins its guests.
    """

    of: T
    repetition: int
    attempt: int
    tries: Tries
    due_s: float = 0.0
    gives_way: bool = False

    def after(self, error: RunnerError, now_s: float) -> Self:
        """The same, as it has to wait after this error."""
        match fault_of(error):
            case Fault.HOST:
                return replace(self, due_s=now_s + self.tries.pause_s)
            case fault:
                return replace(self, gives_way=fault is not None)


class Retries(Generic[T]):
    """Measurements that came back, in that order. For one thread at a time.

    Guarantees: none is given out before it is due, nor, while there is anything else, one that gives way before something was measured.
    """

    def __init__(self) -> None:
        self._waiting: list[Retry[T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, retry: Retry[T]) -> None:
        """One more, behind the others."""
        self._waiting.append(retry)

    def drop(self, of: T) -> None:
        """Forget all of one set."""
        self._waiting = [one for one in self._waiting if one.of is not of]

    def next(self, now_s: float) -> Retry[T] | None:
        """Take out the first that is due and need not give way."""
        return self._take(lambda one: one.due_s <= now_s and not one.gives_way)

    def next_of_all(self, now_s: float) -> Retry[T] | None:
        """Take out the first that is due, for there is nothing that it could give way to."""
        return self._take(lambda one: one.due_s <= now_s)

    def release(self) -> None:
        """Something else was measured: those that gave way have done so."""
        self._waiting = [replace(one, gives_way=False) for one in self._waiting]

    def pause_s(self, now_s: float) -> float | None:
        """Seconds until the first is due; None: there is none."""
        return min((max(0.0, one.due_s - now_s) for one in self._waiting), default=None)

    def _take(self, fits: Callable[[Retry[T]], bool]) -> Retry[T] | None:
        for idx, one in enumerate(self._waiting):
            if fits(one):
                return self._waiting.pop(idx)
        return None
