"""A sample of the task sets, each measured by two workers, whose job tables have to be equal."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from runner.cluster.messages import Report
from runner.cluster.reports import result_of
from runner.cluster.wire import events
from runner.errors import HostError, MachineKilled
from runner.events import REPEATABLE, Run
from runner.faults.evidence import EvidenceStore, command_again
from runner.queue.lease import Lease

#: Results that may wait for a second worker; no further sets are handed out meanwhile.
MAX_HELD = 256
#: How often a second measurement may fail before the first is taken as it is.
MAX_TRIES = 3
# How many identities of task sets there are: 16 hex digits.
_N_IDS = 1 << 64
_log = logging.getLogger("runner.cluster")


class WorkersDisagree(HostError):
    """Two workers measured different job tables where a measurement is to be the same everywhere."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A result that waits until another worker has measured the same.

    Attributes:
        lease: What was measured; stays out until then.
        run, report: What the first worker says.
        worker: Who that is.
        settle: Hands the result to queue and monitors.
        n_failed: Attempts of others that came to nothing.
    """

    lease: Lease
    run: Run
    report: Report
    worker: str
    settle: Callable[[], None]
    n_failed: int = 0


class Checks:
    """Which sets are measured twice, and what waits for that.

    A set is of the sample, or is not, by its content: in each run the same, whoever measures it. It counts as done when both
    workers have the same table; its result is the first worker's. Where no other worker has machines, it is taken as it is once
    nothing else is left to do, or too many wait; that is said once.

    Memory: `MAX_HELD` results beside those that are under way. Threads: any.

    Args:
        share: Of the sets, 0 … 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._held: deque[Held] = deque()
        self._present: frozenset[str] = frozenset()
        self._told = self._disagreed = False
        #: Sets that two workers agreed on, and those of the sample that only one has measured.
        self.n_checked = self.n_unchecked = 0

    def attend(self, workers: Collection[str]) -> None:
        """Those that have machines, and so can measure."""
        with self._lock:
            self._present = frozenset(workers)

    @property
    def full(self) -> bool:
        """Whether nothing new should be handed out."""
        return len(self._held) >= MAX_HELD

    def leave(self, worker: str) -> None:
        """One of them cannot any more."""
        with self._lock:
            self._present = self._present - {worker}

    def wants(self, lease: Lease, report: Report) -> bool:
        """Whether another worker is to measure the same before this result counts."""
        if not self._share or lease.repetition != 1 or not _is_valid(report):
            return False
        return int(lease.taskset.taskset_id, 16) < self._share * _N_IDS

    def hold(self, held: Held) -> None:
        """Keep a result until then."""
        with self._lock:
            self._held.append(held)

    def dropped(self) -> list[Lease]:
        """What waited, and is worth nothing any more, for two workers have disagreed. The leases are still out."""
        if not self._disagreed:
            return []
        with self._lock:
            held, self._held = self._held, deque()
        return [one.lease for one in held]

    def take(self, worker: str) -> Held | None:
        """What this worker is to measure, too."""
        if not self._held or self._disagreed:
            return None
        with self._lock:
            found = next((one for one in self._held if one.worker != worker), None)
            if found is not None:
                self._held.remove(found)
            return found

    def give_back(self, held: Held, *, failed: bool = False) -> None:
        """The second measurement was not made.

        Args:
            failed: Whether it was tried; not so where its worker was lost, or its machines were killed.
        """
        held = replace(held, n_failed=held.n_failed + failed)
        if held.n_failed < MAX_TRIES:
            with self._lock:
                self._held.append(held)
        else:
            self._settle_alone(held, f"the second measurement failed {MAX_TRIES} times")

    def settle_alone(self, *, hungry: bool) -> None:
        """Take over the results that nobody else is there to check.

        Args:
            hungry: Whether nothing else is left to be measured.
        """
        if not self._held or self._disagreed:
            return
        with self._lock:
            if not (hungry or self.full or not self._present):
                return
            alone = [one for one in self._held if not self._present - {one.worker}]
            for one in alone:
                self._held.remove(one)
        for one in alone:
            self._settle_alone(one, "no other worker has machines")

    def _settle_alone(self, held: Held, why: str) -> None:
        with self._lock:
            self.n_unchecked += 1
            told, self._told = self._told, True
        if not told:
            _log.warning(
                "task set %s was not measured by a second worker, as machines.cluster.checked_share asks: %s;"
                " this is not said again",
                held.lease.taskset.taskset_id,
                why,
            )
        held.settle()

    def compare(
        self, held: Held, run: Run, report: Report, evidence: EvidenceStore | None
    ) -> WorkersDisagree | None:
        """What the second worker says: the set is done if it is the same.

        Returns the error that is to end the run if it is not. The lease is still out then.
        """
        if not _is_valid(report):
            self.give_back(held, failed=not isinstance(report.error, MachineKilled))
            return None
        first, second = result_of(held.report), result_of(report)
        if first.table_sha256 != second.table_sha256 or first.outcome is not second.outcome:
            self._disagreed = True
            return _disagreement(held, run, report, evidence)
        with self._lock:
            self.n_checked += 1
        held.settle()
        return None


def _is_valid(report: Report) -> bool:
    return report.error is None and report.result.validity in REPEATABLE


def _disagreement(held: Held, run: Run, report: Report, evidence: EvidenceStore | None) -> WorkersDisagree:
    taskset = held.lease.taskset
    what = (
        f"task set {taskset.name!r} ({taskset.taskset_id}), place {run.set_idx} of submission {run.submission}:"
        f" workers {held.run.machine} and {run.machine} measured different job tables"
    )
    first, second = result_of(held.report), result_of(report)
    pairs = zip(sorted(map(str, first.jobs)), sorted(map(str, second.jobs)), strict=False)
    differing = next((pair for pair in pairs if pair[0] != pair[1]), ("fewer jobs", "more jobs"))
    shown = "\n".join(
        f"{one.machine}: {' '.join(f'{key}={value}' for key, value in _computer(one))}\n"
        f"  {result.outcome.value}, SHA-256 {result.table_sha256}, identity {one.identity}\n  {job}"
        for one, result, job in zip((held.run, run), (first, second), differing, strict=True)
    )
    error = WorkersDisagree(what, where="machines.cluster.checked_share", evidence=shown)
    happened = [*events(held.report.events), *events(report.events)]
    kept = None if evidence is None else evidence.keep(run, error, events=happened)
    again = "resume the run" if kept is None else f"{command_again(kept)} machines.cluster.checked_share=1"
    return WorkersDisagree(
        what,
        where=error.where,
        evidence=shown,
        log_path=kept,
        next_step=f"{again}, with this run's overrides for its machines, measures it on two workers again; the set is still to be"
        " done here: resume the run without the worker that is wrong",
    )


def _computer(run: Run) -> list[tuple[str, object]]:
    """What is known of where it ran."""
    keys = ("host_id", "host_cpu", "host_kernel", "qemu_version", "guest_image_sha256")
    return [(key, run.facts[key]) for key in keys if run.facts.get(key) is not None]
