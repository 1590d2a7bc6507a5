"""What the monitors have in common that write the tables of the data somewhere else than into the ledger."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence

from runner.data.batch import Batch
from runner.errors import HostError, RunnerError
from runner.events import Event, JobEvent, Run, RunResult
from runner.monitors.base import AbstractMonitor

RETRY_S = 1.0


class StoreUnavailable(Exception):
    """What is to be written cannot be for now, and may be later: it waits in memory."""


class BatchingMonitor(AbstractMonitor):
    """Collect what attempts yield, and write it a few at a time.

    Guarantees: what was reported is written at most `flush_interval_s` later, or sooner, as soon as nothing else waits. While the store
    is unavailable the monitor is `blocked`: results wait in memory, no further set is started, and all is written as soon as it can be.

    Args:
        required: Whether the run is to end with an error where this fails.
        flush_interval_s: How long results may wait to be written together.
        max_waiting_rows: Rows that may wait in memory while the store is unavailable; attempts beyond are lost to it, with an error.
    """

    def __init__(
        self, *, required: bool = False, flush_interval_s: float = 1.0, max_waiting_rows: int = 2_000_000
    ) -> None:
        self.required = required
        self._flush_interval_s = flush_interval_s
        self._max_waiting_rows = max_waiting_rows
        self._waiting: list[Batch] = []
        self._n_waiting_rows = 0
        self._due_s = 0.0
        self._is_open = False
        # By machine, too: equal sets that run at the same time share their `run_id`.
        self._events: dict[tuple[str, str], list[Event]] = {}

    @property
    def is_due(self) -> bool:
        """Whether what waits has waited long enough."""
        return time.monotonic() >= self._due_s

    @property
    def n_waiting_rows(self) -> int:
        """Rows that wait."""
        return self._n_waiting_rows

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it writes to, fit to be shown."""

    @abstractmethod
    def open_store(self) -> None:
        """Make ready to write.

        Raises:
            StoreUnavailable, RunnerError: when that is not possible.
        """

    @abstractmethod
    def write(self, batches: Sequence[Batch]) -> None:
        """Write all of them or none; what is there already stays.

        Raises:
            StoreUnavailable: not now.
            RunnerError: these do not fit.
        """

    @abstractmethod
    def close_store(self) -> None:
        """Let go of it."""

    def open(self) -> None:
        """Open the store.

        Raises:
            HostError: when it is unavailable.
        """
        try:
            self.open_store()
        except StoreUnavailable as exc:
            raise HostError(
                f"{self.place} cannot be opened: {exc}",
                next_step="see whether it is there, and who may write to it; or leave this monitor out",
            ) from exc
        self._is_open = True

    def __taskset_start__(self, run: Run) -> None:
        self._events[run.machine, run.run_id] = []

    def __taskset_event__(self, run: Run, event: Event) -> None:
        if not isinstance(event, JobEvent):
            self._events.setdefault((run.machine, run.run_id), []).append(event)

    def __taskset_finish__(self, run: Run, result: RunResult) -> None:
        self._put(Batch.of(run, result, tuple(self._events.pop((run.machine, run.run_id), ()))))

    def __taskset_stop__(self, run: Run, result: RunResult) -> None:
        self._events.pop((run.machine, run.run_id), None)
        self._put(Batch.of(run, result))

    def __taskset_bad__(self, run: Run, error: RunnerError) -> None:
        self._put(Batch.of(run, None))

    def idle(self) -> None:
        """Write what waits."""
        if self._waiting and self._is_open and (self.is_due or not self.blocked):
            self._flush()

    def close(self) -> None:
        """Write what waits, and close the store.

        Raises:
            HostError: when that was not possible; says how much is missing.
        """
        if not self._is_open:
            return
        try:
            self._due_s = 0.0
            self.idle()
            if self._waiting:
                raise self._lost()
        finally:
            self._is_open = False
            self.close_store()

    def _put(self, batch: Batch) -> None:
        if self.blocked and self._n_waiting_rows + batch.n_rows > self._max_waiting_rows:
            raise self._lost(1)
        if not self._waiting:
            self._due_s = time.monotonic() + self._flush_interval_s
        self._waiting.append(batch)
        self._n_waiting_rows += batch.n_rows
        if self.is_due:
            self._flush()

    def _flush(self) -> None:
        try:
            self.write(self._waiting)
        except StoreUnavailable as exc:
            self._due_s = time.monotonic() + RETRY_S
            self.blocked = f"{self.place} cannot be written: {exc}; results wait in memory"
            return
        except RunnerError:
            if len(self._waiting) > 1:
                self._write_singly()
                return
            self._forget()
            raise
        self._forget()

    def _write_singly(self) -> None:
        """One at a time, so that one which does not fit costs no other."""
        first: RunnerError | None = None
        while self._waiting:
            try:
                self.write(self._waiting[:1])
            except StoreUnavailable:
                break  # the next try says so
            except RunnerError as exc:
                first = first or exc
            self._n_waiting_rows -= self._waiting.pop(0).n_rows
        if not self._waiting:
            self._forget()
        if first is not None:
            raise first

    def _forget(self) -> None:
        self._waiting, self._n_waiting_rows, self.blocked = [], 0, ""

    def _lost(self, n_more: int = 0) -> HostError:
        return HostError(
            f"{self.blocked or f'{self.place} cannot be written'}: {len(self._waiting) + n_more} attempts are not in it",
            next_step="the run's own results.sqlite has them, if there is a monitor sqlite",
        )
