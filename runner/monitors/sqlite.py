"""Results in one SQLite file, which can be read while the run goes on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from runner.analysis import CHEAP_TESTS, TESTS
from runner.data.history import n_disagreements
from runner.data.ledger import Ledger
from runner.data.parquet import write_parquet
from runner.data.record import Begun, Entry, Noted, Record, Submitted
from runner.errors import RunnerError, UsageError
from runner.events import Event, JobEvent, Run, RunResult
from runner.faults.incidents import Incident
from runner.monitors.base import AbstractMonitor
from runner.submission import Submission
from runner.text.excerpt import excerpt

_log = logging.getLogger("runner.disagreements")
#: Which analyses are written beside each task set.
_TESTS = {"cheap": CHEAP_TESTS, "all": tuple(TESTS), "none": ()}


class SQLiteMonitor(AbstractMonitor):
    """Keep the ledger: what has become of every task set, with its data in the tables of `runner.data.schema`, in one file.

    Guarantees: the rows of an attempt and what it makes of its set appear at once, whenever a reader looks and however the
    runner ends; whatever was reported is in the file at most `commit_interval_s` later, or sooner, as soon as nothing else waits.
    Only valid attempts (completed, timeout, rejected) have rows in `jobs` and `events` and labels in `runs`; others have their
    outcome and error. A task set that runs several times has its rows once. A valid run that is in the file already stays as it
    is; a second one with the same `run_id` and another job table is an error. While the disk is full or the file locked, the
    monitor is `blocked`: results wait in memory and are written as soon as they can be. After `close()` the file is complete
    without any other beside it, and its tables are there as Parquet, too.

    Args:
        path: The file; added to when it holds data of the same schema. Its folder must exist.
        parquet: The folder for the Parquet files, made if need be; None: none are written.
        commit_interval_s: How long results may wait to be written together.
        max_waiting_jobs: Jobs that may wait in memory while the file cannot be written (2·10^6 are about 1 GiB); attempts
            beyond that are lost, each with an error, and their task sets stay pending.
        analyses: What is written beside each set: `cheap` (LL, HB, RTA, QPA, GFB, BCL, the simulation of what guests run), `all` (also
            the slower ones), `none`.

    Raises:
        UsageError: when `analyses` is none of these.
    """

    required = True

    def __init__(
        self,
        path: str | Path = "results.sqlite",
        commit_interval_s: float = 0.2,
        *,
        parquet: str | Path | None = None,
        max_waiting_jobs: int = 2_000_000,
        analyses: str = "cheap",
    ) -> None:
        if analyses not in _TESTS:
            raise UsageError(
                f"analyses is {excerpt(analyses)}",
                where="analyses",
                next_step=f"choose one of: {', '.join(_TESTS)}",
            )
        self._tests = _TESTS[analyses]
        self.path = Path(path)
        self.parquet = None if parquet is None else Path(parquet)
        self._ledger = Ledger(
            self.path, commit_interval_s=commit_interval_s, max_waiting_jobs=max_waiting_jobs
        )
        # The fleet's number of a submission -> the ledger's, which may hold those of earlier fleets.
        self._numbers: dict[int, int] = {}
        # By machine, too: equal sets that run at the same time share their `run_id`.
        self._events: dict[tuple[str, str], list[Event]] = {}

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            UsageError: when the file is no database, another program's, or of another schema.
            HostError: when it cannot be read or written.
        """
        self._ledger.open()

    def __submission__(self, submission: Submission) -> None:
        number = self._numbers.get(submission.number)
        if number is None:
            number = submission.resumed or self._ledger.n_submissions + 1
            self._numbers[submission.number] = number
            self._ledger.n_submissions = max(self._ledger.n_submissions, number)
        self._put(Submitted(replace(submission, number=number)))

    def __taskset_start__(self, run: Run) -> None:
        self._events[run.machine, run.run_id] = []
        self._put(Begun(self._number(run), run, tests=self._tests))

    def __taskset_event__(self, run: Run, event: Event) -> None:
        if not isinstance(event, JobEvent):
            self._events.setdefault((run.machine, run.run_id), []).append(event)

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        events = tuple(self._events.pop((run.machine, run.run_id), ()))
        self._put(Record(self._number(run), run, result, events, tests=self._tests))

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        self._events.pop((run.machine, run.run_id), None)
        self._put(Record(self._number(run), run, result, tests=self._tests))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self._put(Record(self._number(run), run, None, error=error, tests=self._tests))

    def __incident__(self, incident: Incident) -> None:
        number = None if incident.submission is None else self._numbers.get(incident.submission)
        self._put(Noted(number, incident))

    def idle(self) -> None:
        """Write what waits."""
        try:
            self._ledger.flush()
        finally:
            self.blocked = self._ledger.blocked

    def close(self) -> None:
        """Write what waits, close the file, and write its tables as Parquet.

        Raises:
            HostError: when that was not possible; says how much is missing.
        """
        if not self._ledger.is_open:
            return
        self._ledger.close()
        n_disagreeing = n_disagreements(self.path) if self._tests else 0
        if n_disagreeing:
            _log.warning(
                "analysis, simulation and measurement disagree in %d cases: python -m runner.disagreements %s",
                n_disagreeing,
                self.path,
            )
        if self.parquet is not None:
            write_parquet(self.path, self.parquet)

    def _put(self, entry: Entry) -> None:
        try:
            self._ledger.put(entry)
        finally:
            self.blocked = self._ledger.blocked

    def _number(self, run: Run) -> int:
        """The ledger's number of the run's submission; whoever tells of a run only has submitted it thereby."""
        if run.submission not in self._numbers:
            self.__submission__(Submission(number=run.submission, source=type(run.taskset).__name__))
        return self._numbers[run.submission]
