"""The workers of a cluster, as a fleet sees them: what `Roster` is for one computer."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping

from runner.cluster.checks import Checks
from runner.cluster.link import Exchange, Hooks, Link
from runner.cluster.shares import Seat, shares
from runner.errors import HostError
from runner.faults.incidents import Incident
from runner.faults.recovery import Recovery
from runner.fleet import MachineState

_log = logging.getLogger("runner.cluster")


class Crew:
    """Deals the machines that are wanted out to the workers that there are, anew whenever one comes or goes.

    Threads: any; hooks are called without a lock of its own.

    Args:
        per_computer: Machines at most on one computer whose workers do not say what they can hold.
        patience_s: How long there may be no worker at all before the run ends with an error.
        checked_share: Of the task sets, that which two workers measure; see `Checks`.
    """

    def __init__(self, *, per_computer: int, patience_s: float = 60.0, checked_share: float = 0.0) -> None:
        self._per_computer = per_computer
        self._patience_s = patience_s
        self.checks = Checks(checked_share)
        self._lock = threading.RLock()
        self._hooks: Hooks | None = None
        self._links: dict[str, Link] = {}
        self._ended: list[Link] = []
        # Of those that are gone.
        self._past: Counter[Recovery] = Counter()
        self._target = 0
        self._paused = self._kill = False
        self._alone_since_s: float | None = time.monotonic()
        self._error: Exception | None = None
        self._waiting: dict[str, tuple[Seat, Exchange]] = {}
        self._over = False

    def begin(self, hooks: Hooks) -> None:
        """Start to work for a fleet; workers may have joined before."""
        with self._lock:
            self._hooks = hooks
            self._alone_since_s = time.monotonic()
            waiting, self._waiting = self._waiting, {}
        for seat, exchange in waiting.values():
            self.joined(seat, exchange)

    # Workers come and go

    def joined(self, seat: Seat, exchange: Exchange) -> None:
        """A worker can be used."""
        with self._lock:
            if self._over:
                return
            if self._hooks is None:
                self._waiting[seat.worker] = (seat, exchange)
                return
            hooks = self._hooks
            link = Link(seat, exchange, hooks, on_end=self._left, checks=self.checks)
            self._links[seat.worker] = link
            self._alone_since_s = None
            link.start()
            self._deal()
        _log.info("worker %s on %s joined", seat.worker, seat.computer)
        hooks.on_change()

    def _left(self, link: Link) -> None:
        """A link's thread is about to end."""
        with self._lock:
            self._links.pop(link.seat.worker, None)
            self._ended = [*(one for one in self._ended if one.is_alive()), link]
            self._past.update(link.recoveries)
            self._error = link.error or self._error
            if not self._links:
                self._alone_since_s = time.monotonic()
            self._deal()
            hooks = self._hooks
        if link.error is not None:
            _log.warning("%s", link.error)
        if hooks is not None:
            hooks.queue.wake()
            hooks.on_change()

    @property
    def n_workers(self) -> int:
        """Workers that can be used."""
        with self._lock:
            return len(self._links)

    # As a fleet asks

    def __len__(self) -> int:
        """Machines that there are to be."""
        return self._target

    @property
    def names(self) -> list[str]:
        """Of the workers that have, or may have, machines or task sets."""
        with self._lock:
            return sorted(name for name, link in self._links.items() if link.at_work)

    @property
    def states(self) -> tuple[MachineState, ...]:
        """What each machine was doing when its worker answered last."""
        with self._lock:
            return tuple(state for _, link in sorted(self._links.items()) for state in link.machines)

    @property
    def recoveries(self) -> Mapping[Recovery, int]:
        """How often each step was taken."""
        with self._lock:
            total = Counter(self._past)
            for link in self._links.values():
                total.update(link.recoveries)
            return total

    @property
    def n_unfit(self) -> int:
        """None: each worker's own fleet knows which of its machines it can count on."""
        return 0

    @property
    def due(self) -> bool:
        """Whether nobody has been there for too long."""
        alone_s = self._alone_since_s
        return alone_s is not None and time.monotonic() - alone_s > self._patience_s

    def recall(self) -> None:
        """Nobody is aside here."""

    def note(self, incident: Incident) -> None:
        """Faults are counted where they happen."""

    def pardon(self) -> None:
        """Forget what failed, and wait anew for workers if there are none."""
        with self._lock:
            self._error = None
            if not self._links:
                self._alone_since_s = time.monotonic()

    def rescale(self, target: int, allowed: int, *, paused: bool = False) -> None:
        """Have at least `target` machines, and not more than `allowed`; a number in between changes nothing."""
        with self._lock:
            self._kill, self._paused = False, paused
            self._target = min(max(self._target, target), allowed)
            self._deal()

    def kill(self) -> None:
        """End all machines at once; what they had goes back uncharged."""
        with self._lock:
            self._kill, self._target = True, 0
            self._deal()

    def _deal(self) -> None:
        seats = [link.seat for _, link in sorted(self._links.items())]
        dealt = shares(self._target, seats, per_computer=self._per_computer)
        self.checks.attend({name for name, n_machines in dealt.items() if n_machines})
        for name, link in self._links.items():
            link.want(dealt[name], paused=self._paused, kill=self._kill)

    def despair(self, wanted: int) -> HostError | None:
        """Why nothing will ever be measured, if so.

        Args:
            wanted: Machines that there should be.
        """
        if not wanted or not self.due:
            return None
        cause = f": {self._error}" if self._error is not None else ""
        return HostError(
            f"no worker of the cluster has been of use for {self._patience_s:.0f} s{cause}",
            where="machines.cluster",
            next_step="look at the workers' own logs, or raise machines.cluster.patience_s",
        )

    @property
    def leaving(self) -> list[Link]:
        """Those that have nothing more to do than to return; asked for at the end: nothing is asked of the others any more."""
        with self._lock:
            self._over = True
            for link in self._links.values():
                link.leave()
            return [*self._links.values(), *self._ended]
