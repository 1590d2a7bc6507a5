"""Sources whose next task sets follow from what became of the sets before."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from runner.model.taskset import TaskSet, TaskSetSource

#: Whether no job of a set missed; None where that is open: given up, or a job failed.
Verdict = bool | None
#: Task sets that do not depend on each other; then the verdict on each, in the same order; and so on.
Rounds = Generator[Iterable[TaskSet], Sequence[Verdict], None]


@runtime_checkable
class AdaptiveSource(TaskSetSource, Protocol):
    """A source that is told verdicts.

    What `rounds()` yields must follow from the verdicts that it was sent, and from nothing else: no clock, no random number that
    is not seeded. As a round is sent its verdicts as a whole, and in the order of its sets, the sets are then the same however many
    machines measure them, and the same again when a run is resumed. `variants()` yields what comes if no verdict is ever known.
    """

    def rounds(self) -> Rounds:
        """Yield the sets of a round, lazily if they are many; the verdicts on all of them are sent back. Ends when nothing is left.

        Called by whichever machine wants the next set, while it holds the queue, as `variants()`.
        """
        ...


def uninformed(rounds: Rounds) -> Iterator[TaskSet]:
    """The sets that come if no verdict is ever known: `variants()` of an adaptive source."""
    try:
        sets = next(rounds)
        while True:
            n_sets = 0
            for taskset in sets:
                n_sets += 1
                yield taskset
            sets = rounds.send([None] * n_sets)
    except StopIteration:
        return
