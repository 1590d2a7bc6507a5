"""Whether this computer lets the run go on, and with how many machines: looked at about once a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path

from runner.admission.capacity import Admission, Needs, Reserves, decide, port_taken, refuse
from runner.admission.holds import Holds, Notices
from runner.admission.readings import holder_of, read_host, taken_port
from runner.admission.seats import Seats
from runner.errors import HostShortage
from runner.shortage import as_shortage

INTERVAL_S = 1.0
#: How long nothing but shortages may come of starting machines before that is an error, unless something holds the run.
SHORT_S = 60.0
_log = logging.getLogger("runner.gate")


class Gate:
    """Watches memory, disk, descriptors and monitors, and says what follows: how many machines, and what holds the queue.

    Guarantees: what is short is noticed within two seconds, a monitor that is stuck within `STUCK_S` and two seconds;
    each condition is said once when it begins and once when it ends (see `Notices`).
    Threads: every method is for any thread, but `enter` and `close` for the owner's. `on_look` is called without a lock.

    Args:
        needs: Of a machine.
        folder: The run folder.
        machines: Those that there are.
        on_look: Called about once a second; at once, and with True, when `admission` or `held` has changed.
    """

    def __init__(
        self,
        needs: Needs,
        reserves: Reserves,
        folder: Path,
        machines: Sized,
        on_look: Callable[[bool], None],
    ) -> None:
        self._needs = needs
        self._reserves = reserves
        self._folder = folder
        self._troubles: Callable[[], Mapping[str, str]] = dict
        self._machines = machines
        self._on_look = on_look
        self._lock = threading.Lock()
        self._admission = Admission()
        self._holds = Holds()
        self._refused = ""
        self._refused_since_s: float | None = None
        self._unread = ""
        self._notices = Notices()
        self._seats = Seats(reserves.computer_limit) if reserves.computer_limit is not None else None
        self._claimed = 0
        self._wanted = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gate")

    def open(self, wanted: int, troubles: Callable[[], Mapping[str, str]]) -> None:
        """Look for the first time, and begin to watch.

        Args:
            wanted: How many machines the run begins with.
            troubles: Which monitors do not keep up, and why.

        Raises:
            HostError: this computer can never bear one such machine, or the disk is smaller than the reserve.
            HostShortage: a port that one of the first machines needs is taken.
        """
        self._wanted, self._troubles = wanted, troubles
        refuse(read_host(self._folder), self._needs, self._reserves)
        if self._needs.first_port is not None:
            first = self._needs.first_port
            taken = taken_port(range(first, first + wanted))
            if taken is not None:
                raise port_taken(taken, taken - first + 1, holder_of(taken))
        with self._lock:
            self._look_at_host()
        self._say()
        self._thread.start()

    def close(self) -> None:
        """Stop watching; again does nothing."""
        self._ended.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._seats is not None:
            self._seats.hold(0)

    def want(self, n_machines: int) -> None:
        """How many machines the operator wants from now on: that there may be fewer is worth a line."""
        self._wanted = n_machines

    def claim(self, n_machines: int) -> None:
        """Take seats for so many machines, where this computer has a limit for all runs; those beyond are given back."""
        if self._seats is None:
            return
        allowed = self._admission.n_machines
        wanted = n_machines if allowed is None else min(n_machines, allowed)
        self._claimed = max(wanted, len(self._machines))
        self._seats.hold(self._claimed)

    @property
    def held(self) -> str:
        """Why no further task set may be started; empty if it may."""
        with self._lock:
            return self._holds.text

    def at_most(self, n_machines: int) -> int:
        """As many of these machines as there may be; while anything holds or could not be had, no more than there are."""
        allowed = self._admission.n_machines
        n_machines = n_machines if allowed is None else min(n_machines, allowed)
        if self._seats is not None:
            n_machines = min(n_machines, self._seats.held)
        return min(n_machines, len(self._machines)) if self._refused or self.held else n_machines

    @property
    def shortage(self) -> str:
        """Why there are fewer machines than are wanted; empty if there may be as many."""
        allowed = self._admission.n_machines
        if self._refused or (allowed is not None and allowed < self._wanted):
            return self._refused or self._admission.why
        if self._seats is not None and self._seats.held < self._claimed:
            return (
                f"other runs have the rest of the {self._seats.limit} machines that this computer may have"
                " (machines.admission.computer_limit)"
            )
        return ""

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of a machine: where it fails for want of something, the next look has it tried again."""
        try:
            yield
        except Exception as exc:
            if not self.short(as_shortage(exc)):
                raise

    def short(self, error: Exception | None) -> bool:
        """Whether a machine could not be had for want of something; no other is started then before the next look.

        False also where that has been so for a minute, and nothing that will pass holds the run.
        """
        if not isinstance(error, HostShortage):
            return False
        now_s = time.monotonic()
        if self._refused_since_s is None or self.held:
            self._refused_since_s = now_s
        self._refused = error.what
        return now_s - self._refused_since_s <= SHORT_S

    def look_at_monitors(self) -> None:
        """Take note of what the monitors say now."""
        with self._lock:
            before = self._holds.text
            self._holds.set_all("monitor", self._troubles())
            changed = self._holds.text != before
        if changed:
            self._on_look(True)
        self._say()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            try:
                self._look()
                self._unread = ""
            except Exception as exc:  # noqa: BLE001 - the thread's top: what was decided last stays, and it looks again
                self._unread = str(exc) or repr(exc)
            self._say()

    def _look(self) -> None:
        self.look_at_monitors()
        with self._lock:
            changed = self._look_at_host()
        if self._seats is not None and (n_held := self._seats.held) < self._claimed:
            changed = self._seats.hold(self._claimed) > n_held or changed
        refused, self._refused = self._refused, ""
        if not refused and self._machines:
            self._refused_since_s = None
        self._on_look(changed or bool(refused))

    def _look_at_host(self) -> bool:
        """Read and decide; whether another decision came out."""
        before = self._admission
        readings = read_host(self._folder, n_machines=len(self._machines))
        now = decide(readings, self._needs, self._reserves, before)
        if now.n_machines == before.n_machines and bool(now.held) is bool(before.held):
            return False  # with the figures of when it was decided: they sway all the time
        self._admission = now
        self._holds.set("disk", now.held)
        return True

    def _say(self) -> None:
        """Log what begins and what ends."""
        with self._lock:
            # What could not be had while something holds is no news.
            shortage = "" if self._holds.text else self.shortage
            reasons = {**self._holds.reasons, "machines": shortage, "gate": self._unread}
            lines = self._notices.due(reasons, time.monotonic())
            free = not self._holds.text
        for source, reason in lines:
            match source:
                case "machines" if reason:
                    _log.warning(
                        "fewer machines than wanted, %d at most: %s", self.at_most(self._wanted), reason
                    )
                case "machines":
                    _log.warning("there may be as many machines as wanted again: %d", self._wanted)
                case "gate" if reason:
                    _log.warning(
                        "what this computer has left cannot be read, the last figures hold: %s", reason
                    )
                case "gate":
                    _log.warning("what this computer has left can be read again")
                case _ if reason:
                    _log.warning("held, no further task set is started: %s", reason)
                case _:
                    _log.warning(
                        "no longer held by the %s%s", source, "; task sets are started" if free else ""
                    )
