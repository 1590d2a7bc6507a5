"""What an operator can ask of a fleet."""

from __future__ import annotations

from abc import ABC, abstractmethod

from runner.errors import UsageError
from runner.fleet import RunState


class Steerable(ABC):
    """Rescale, pause, drain, kill. Every method may be called from any thread."""

    @abstractmethod
    def _steer(self, method: str, max_machine: int | None, state: RunState | None) -> None:
        """Take over what the operator wants, asked for by that method; None changes nothing."""

    def set_max_machine_value(self, max_machine: int) -> None:
        """Rescale: more machines start at once; surplus ones finish their task set first.

        Raises:
            UsageError: when the number is out of range; nothing is changed then.
        """
        self._steer("set_max_machine_value", max_machine, None)

    def steer(self, max_machine: int, state: RunState) -> None:
        """Rescale and change the state in one step, as the control file asks for it.

        Raises:
            UsageError: when the number is out of range; nothing is changed then.
        """
        self._steer("steer", max_machine, state)

    def pause(self) -> None:
        """Start no further task set; those that run finish, the machines stay."""
        self._steer("pause", None, RunState.PAUSE)

    def resume(self) -> None:
        """Go on after `pause`, `shut_down_all_machines` or `kill_all_machines`."""
        self._steer("resume", None, RunState.RUN)

    def shut_down_all_machines(self) -> None:
        """Let every machine finish its task set and close; `resume()` starts machines again. Returns at once."""
        self._steer("shut_down_all_machines", None, RunState.DRAIN)

    def kill_all_machines(self) -> None:
        """End every machine now; their task sets go back to the queue. Returns at once; `resume()` starts over."""
        self._steer("kill_all_machines", None, RunState.KILL)


def checked(n: int, limit: int) -> int:
    """The number of machines, if it is one that there may be.

    Raises:
        UsageError: it is not.
    """
    if not 0 <= n <= limit:
        raise UsageError(
            f"{n} machines are asked for, the limit is {limit}",
            where="machines.count",
            next_step=f"choose 0 … {limit}, or raise machines.limit",
        )
    return n
