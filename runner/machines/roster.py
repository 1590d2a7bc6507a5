"""Who is in the fleet: the machines at work, and those that were put aside for a while."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from runner.errors import HostError
from runner.faults.incidents import Incident
from runner.faults.quarantine import Failures, Standing, hopeless
from runner.faults.recovery import Recovery
from runner.fleet import MachineState, Phase
from runner.machines.machine import Machine
from runner.specs import MachinePolicy


class Roster:
    """The machines of a fleet by name, from `qemu1` on. A name that was put aside is used again when its time has come.

    Threads: for one at a time: the fleet's lock is held at each call.

    Args:
        limit: Machines at most.
        make: Makes a machine, not yet started, of a name and the standing of whoever had it before.
    """

    def __init__(self, limit: int, policy: MachinePolicy, make: Callable[[str, Standing], Machine]) -> None:
        self._names = [f"qemu{number}" for number in range(1, limit + 1)]
        self._policy = policy
        self._make = make
        self._machines: dict[str, Machine] = {}
        self._standings: dict[str, Standing] = {}
        self._leaving: list[Machine] = []
        self._pardoned: set[Machine] = set()
        self._succeeded = False
        self._failures = Failures()
        self._error: Exception | None = None
        #: How often each step was taken.
        self.recoveries: Counter[Recovery] = Counter()

    def __len__(self) -> int:
        """Machines that there are."""
        return len(self._machines)

    @property
    def names(self) -> list[str]:
        """Of the machines that there are."""
        return sorted(self._machines)

    @property
    def states(self) -> tuple[MachineState, ...]:
        """What each is doing, those that are aside included."""
        states = {name: machine.state for name, machine in self._machines.items()}
        for name, standing in self._aside().items():
            states.setdefault(name, MachineState(name, Phase.ASIDE, until=_until(standing)))
        # One on its way out has the phase already.
        for name, machine in self._machines.items():
            if states[name].phase is Phase.ASIDE:
                states[name] = replace(states[name], until=_until(machine.standing))
        return tuple(state for _, state in sorted(states.items()))

    @property
    def n_unfit(self) -> int:
        """Machines that cannot be counted on: aside, or on their way there."""
        failed = {name for name, machine in self._machines.items() if machine.error is not None}
        return len(failed | set(self._aside()))

    @property
    def due(self) -> bool:
        """Whether the time of somebody who is aside has come."""
        now_s = time.monotonic()
        return any(one.until_s is not None and one.until_s <= now_s for one in self._aside().values())

    def _aside(self) -> dict[str, Standing]:
        return {
            name: standing
            for name, standing in self._standings.items()
            if standing.aside and name not in self._machines
        }

    def recall(self) -> None:
        """Let come back, on probation, those whose time has come."""
        for name, standing in self._aside().items():
            if standing.until_s is not None and standing.until_s <= time.monotonic():
                self._standings[name] = standing.back()

    def pardon(self) -> None:
        """Forget all failures: the operator wants another try."""
        self._standings.clear()
        # Those that have failed and are on their way out would be put aside only then.
        self._pardoned = {machine for machine in self._machines.values() if machine.error is not None}
        self._failures = Failures()
        self._error = None

    def rescale(self, target: int, allowed: int, *, paused: bool = False) -> None:
        """Start machines until `target` stay, and close those beyond `allowed`; a number in between changes nothing.

        Args:
            paused: Whether the queue is held: the machines see that there.
        """
        staying = [name for name in self.names if not self._machines[name].closing]
        for name in staying[allowed:]:
            self._machines[name].close()
        for name in self.names:
            if len(staying) >= target:
                return
            machine = self._machines[name]
            if machine.closing and machine.reopen():
                staying.append(name)
        free = [name for name in self._names if name not in self._machines and name not in self._aside()]
        for name in free[: target - len(staying)]:
            machine = self._make(name, self._standings.get(name, Standing()))
            machine.start()
            self._machines[name] = machine  # it cannot have ended yet: that takes the lock

    def kill(self) -> None:
        """End all at once; those that are aside have nothing that could be ended."""
        for machine in self._machines.values():
            machine.kill()

    def note(self, incident: Incident) -> None:
        """A fault, and what is done about it."""
        self._failures.add(incident.fault, incident.what)
        if incident.recovery is not None:
            self.recoveries[incident.recovery] += 1

    def ended(self, machine: Machine) -> bool:
        """A machine is gone. Whether what ended it is the end of all: a bug, or what no waiting helps against."""
        del self._machines[machine.name]
        self._leaving = [*(one for one in self._leaving if one.is_alive()), machine]
        self._succeeded = self._succeeded or machine.state.n_done > 0
        self._standings[machine.name] = Standing() if machine in self._pardoned else machine.standing
        self._pardoned.discard(machine)
        self._error = machine.error or self._error
        return machine.error is not None and machine.state.phase is not Phase.ASIDE

    def despair(self, wanted: int) -> HostError | None:
        """Why no machine will ever work again, if so.

        Args:
            wanted: How many there should be.
        """
        staying = any(not machine.closing for machine in self._machines.values())
        standings = [self._standings.get(name, Standing()) for name in self._names[:wanted]]
        if self._error is None or staying or not standings:
            return None
        succeeded = self._succeeded or any(machine.state.n_done for machine in self._machines.values())
        if not hopeless(standings, self._policy, succeeded=succeeded):
            return None
        return self._failures.verdict(self._error)

    @property
    def leaving(self) -> list[Machine]:
        """Those that have nothing more to do than to return."""
        return self._leaving


def _until(standing: Standing) -> datetime:
    """When a machine that is aside is tried again, by the clock on the wall."""
    now_s = time.monotonic()
    left_s = (standing.until_s or now_s) - now_s
    return (datetime.now(UTC) + timedelta(seconds=left_s)).replace(microsecond=0)
