"""When a machine that fails is put aside, for how long, and when there is no hope left. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from runner.errors import Fault, HostError, RunnerError
from runner.faults.recovery import Ladder
from runner.specs import MachinePolicy

#: As long as nothing at all was measured, every machine is put aside at most so often in a row.
FIRST_ROUNDS = 3


@dataclass(frozen=True)
class Standing:
    """How far a machine is trusted; outlives the machine's thread.

    Guarantees: a success restores all trust. `max_failures` failures in a row put it aside, a shortage of this computer's at once; it
    comes back on probation, when a single failure puts it aside again, for twice as long, up to `aside_max_s`.

    Attributes:
        n_failures: In a row, since it last came back.
        n_asides: How often in a row it was put aside.
        until_s: When it may come back, on the monotonic clock; None: it is not aside.
        ladder: How far its recovery has gone.
    """

    n_failures: int = 0
    n_asides: int = 0
    until_s: float | None = None
    ladder: Ladder = field(default_factory=Ladder)

    def failed(self, now_s: float, policy: MachinePolicy, *, short: bool = False) -> Standing:
        """After a failure that was not a task set's doing.

        Args:
            short: Whether this computer is short of something, so that to try again at once is in vain.
        """
        n_failures = self.n_failures + 1
        if not short and self.n_asides == 0 and n_failures < policy.max_failures:
            return replace(self, n_failures=n_failures)
        aside_s = min(policy.aside_max_s, policy.aside_s * 2.0 ** min(self.n_asides, 60))
        return replace(self, n_failures=0, n_asides=self.n_asides + 1, until_s=now_s + aside_s)

    def back(self) -> Standing:
        """On probation."""
        return replace(self, until_s=None)

    @property
    def aside(self) -> bool:
        """Whether it was put aside and did not come back yet."""
        return self.until_s is not None


def hopeless(standings: Iterable[Standing], policy: MachinePolicy, *, succeeded: bool) -> bool:
    """Whether no machine is worth waiting for: each is aside, and was so often in a row.

    Args:
        standings: Of all the machines that are wanted.
        succeeded: Whether any machine has measured anything.
    """
    rounds = policy.max_asides if succeeded else min(FIRST_ROUNDS, policy.max_asides)
    return all(one.aside and one.n_asides >= rounds for one in standings)


class Failures:
    """What has failed so far, by kind, for whoever asks why the run ended."""

    def __init__(self) -> None:
        self._counts: dict[Fault, int] = {}
        self._last: dict[Fault, str] = {}

    def add(self, fault: Fault, what: str) -> None:
        """One more."""
        self._counts[fault] = self._counts.get(fault, 0) + 1
        self._last[fault] = what

    def verdict(self, error: Exception) -> HostError:
        """Why no machine can work.

        Args:
            error: The last one.
        """
        told = error if isinstance(error, RunnerError) else None
        kinds = [
            f"{count} x {fault.value}, last: {self._last[fault]}" for fault, count in self._counts.items()
        ]
        return HostError(
            "no machine can work here: each was put aside again and again, and measured nothing in between;"
            f" {'; '.join(kinds) or error}",
            where=told.where if told else "",
            evidence=told.evidence if told else "",
            log_path=told.log_path if told else None,
            next_step=(told.next_step if told else "")
            or "look into machines/*/machine.log of the run folder, and see what this computer lacks: python -m host_setup check",
        )
