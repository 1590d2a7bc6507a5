"""The task sets of a source, one at a time: those of an adaptive one as verdicts allow."""

from __future__ import annotations

from collections.abc import Iterator

from runner.model import TaskSet, TaskSetSource
from runner.model.adaptive import AdaptiveSource, Rounds, Verdict


class Supply:
    """Draws from a source, and tells an adaptive one what became of its sets.

    Guarantees: a round is followed by the next when each of its sets has its verdict; the order in which they came does not count.
    Memory: a word per set of the present round, of an adaptive source; nothing otherwise.
    Threads: one at a time; its queue sees to that.

    Attributes:
        wants_verdicts: Whether the source is an adaptive one.
        n_drawn: Sets drawn so far.
        ended: Whether the source has no more.
    """

    def __init__(self, source: TaskSetSource) -> None:
        self.wants_verdicts = isinstance(source, AdaptiveSource)
        self.n_drawn = 0
        self.ended = False
        self._rounds: Rounds | None = source.rounds() if isinstance(source, AdaptiveSource) else None
        self._sets: Iterator[TaskSet] | None = None if self._rounds is not None else source.variants()
        # Of the present round: place of its first set, and the verdicts, with a place for each that was drawn.
        self._first_idx = 0
        self._verdicts: list[Verdict] = []
        self._n_open = 0
        self._begun = False

    def next(self) -> TaskSet | None:
        """The next set; None if there is none, or (unless `ended`) none until more verdicts are known.

        Raises:
            Exception: whatever the source raises.
        """
        while not self.ended:
            if self._sets is None and not self._begin_round():
                return None
            taskset = None if self._sets is None else next(self._sets, None)
            if taskset is not None:
                self.n_drawn += 1
                if self._rounds is not None:
                    self._verdicts.append(None)
                    self._n_open += 1
                return taskset
            self._sets = None
            self.ended = self._rounds is None
        return None

    def _begin_round(self) -> bool:
        if self._rounds is None or self._n_open:
            return False
        verdicts, self._verdicts, self._first_idx = self._verdicts, [], self.n_drawn
        try:
            # A generator that has not begun takes nothing.
            self._sets = iter(self._rounds.send(verdicts) if self._begun else next(self._rounds))
        except StopIteration:
            self.ended = True
            return False
        finally:
            self._begun = True
        return True

    def tell(self, set_idx: int, verdict: Verdict) -> None:
        """What became of a set that was drawn; once each, for sets of the present round."""
        if self._rounds is not None:
            self._verdicts[set_idx - self._first_idx] = verdict
            self._n_open -= 1
