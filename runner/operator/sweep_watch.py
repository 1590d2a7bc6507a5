"""How far a sweep is: one meter over all of its runs, whichever process each is in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.exit_codes import ExitCode
from runner.files.durable import read_json
from runner.operator.meter import Meter
from runner.paths import RunPaths

INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class SweptRun:
    """One run of a sweep.

    Attributes:
        number: From 0.
        title: For people: which of how many, and what is different in it.
        folder: Its run folder.
        n_sets: How many task sets it has; None where nobody knows yet.
        code: What it ended with when the sweep began, if it had nothing left to do; otherwise None.
    """

    number: int
    title: str
    folder: Path
    n_sets: int | None = None
    code: ExitCode | None = None


@dataclass(frozen=True)
class Tally:
    """Task sets of a run, or of several: pure. `n_total` is None where it is not known."""

    n_total: int | None = 0
    n_done: int = 0
    n_bad: int = 0

    def __add__(self, other: Tally) -> Tally:
        known = self.n_total is not None and other.n_total is not None
        return Tally(
            (self.n_total or 0) + (other.n_total or 0) if known else None,
            self.n_done + other.n_done,
            self.n_bad + other.n_bad,
        )


def tally_of(folder: Path, n_sets: int | None) -> Tally:
    """What the status file of a run folder says; nothing is done where there is none yet."""
    try:
        counts: dict[str, Any] = read_json(RunPaths(folder).status)["tasksets"]
        total = counts["total"] if counts["total"] is not None else n_sets
        return Tally(total, int(counts["done"]), int(counts["bad"]))
    except (OSError, ValueError, LookupError, TypeError):
        return Tally(n_sets)


class SweepWatch:
    """Watches the runs of a sweep from a thread of its own, and shows how far they are; a context manager.

    Threads: any, but the owner's for `with`. `on_look` is called about twice a second.

    Args:
        runs: All of them.
        meter: Where it is shown; None: nowhere.
        on_look: Looks for what there is to be told (`began`, `ended`).
    """

    def __init__(
        self, runs: list[SweptRun], meter: Meter | None, on_look: Callable[[], None] = lambda: None
    ) -> None:
        self._runs = runs
        self._meter = meter
        self._on_look = on_look
        self._lock = threading.RLock()
        self._codes = {run.number: run.code for run in runs if run.code is not None}
        self._tallies = {
            run.number: Tally(run.n_sets) if run.code is None else tally_of(run.folder, run.n_sets)
            for run in runs
        }
        self._at_work: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sweep")

    def began(self, number: int) -> None:
        """A run is at work; its title is told."""
        with self._lock:
            if number in self._at_work or number in self._codes:
                return
            self._at_work.add(number)
            self.say(self._runs[number].title)

    def ended(self, number: int, code: ExitCode) -> None:
        """A run is over."""
        with self._lock:
            self._at_work.discard(number)
            self._codes[number] = code
            self._tallies[number] = tally_of(self._runs[number].folder, self._runs[number].n_sets)

    @property
    def codes(self) -> list[ExitCode]:
        """Of the runs that are over."""
        with self._lock:
            return list(self._codes.values())

    @property
    def waiting(self) -> list[SweptRun]:
        """Runs that are not over."""
        with self._lock:
            return [run for run in self._runs if run.number not in self._codes]

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._lock:
            (self._meter or Meter("")).say(line)

    def __enter__(self) -> Self:
        self._show()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._on_look()
        self._show()
        if self._meter is not None:
            self._meter.close()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._on_look()
            self._show()

    def _show(self) -> None:
        with self._lock:
            for number in self._at_work:
                self._tallies[number] = tally_of(self._runs[number].folder, self._runs[number].n_sets)
            if self._meter is None:
                return
            whole = sum(self._tallies.values(), Tally())
            counts = Counter(code in (ExitCode.OK, ExitCode.BAD_TASKSETS) for code in self._codes.values())
            runs = f"runs {counts[True]}/{len(self._runs)}, {len(self._at_work)} at work"
            failed = f", {counts[False]} failed" if counts[False] else ""
            tail = f"{whole.n_done} done, {whole.n_bad} bad, {runs}{failed}"
            self._meter.show(whole.n_done + whole.n_bad, whole.n_total, tail)
