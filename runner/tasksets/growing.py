"""Sets that grow: every task alone first, then only combinations of sets that succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby

from runner.model import MAX_TASKS, OverrunPolicy, Provenance, Task, TaskSet
from runner.model.adaptive import Rounds, Verdict, uninformed
from runner.tasksets.explicit import read_tasks
from runner.tasksets.priorities import Priorities, ranked
from runner.tasksets.request import count, require
from runner.tasksets.written import member

#: Places of tasks in the pool, ascending.
Members = tuple[int, ...]


class GrowingTaskSets:
    """Sets of 1, 2, … tasks of a pool, each only if all of its subsets with one task less succeeded.

    A round measures all sets of one size. A set has succeeded if no job missed in any of its measurements; one that was given up,
    or is open, has not. Nothing is guessed of sets that are left out: that a set with a failed subset fails, too, is what one
    expects of sustainable scheduling, not what was measured.

    Guarantees: an `AdaptiveSource`. Memory: the sets of one size that succeeded, as numbers.

    Args:
        tasks: The pool, as in `ExplicitTaskSets`; a task with several values stands for one task per combination.
        max_tasks: The largest sets.
        priority: Who is more urgent in each set: `rm`, `dm`, `opa`, or `explicit`.
        overrun_policy, admission_control: Of every set.

    Raises:
        UsageError: names the key.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[object],
        max_tasks: int = MAX_TASKS,
        priority: str = Priorities.RM.value,
        overrun_policy: OverrunPolicy | str = OverrunPolicy.CONTINUE,
        admission_control: bool = True,
    ) -> None:
        self._pool = read_tasks(tasks, "tasks")
        require(bool(self._pool), "tasks", "is empty", "write down at least one task")
        self._max_tasks = count(max_tasks, "max_tasks", 1, MAX_TASKS)
        self._priorities = member(Priorities)(priority, "priority")
        self._overrun_policy = member(OverrunPolicy)(overrun_policy, "overrun_policy")
        self._admission_control = admission_control
        for idx in range(len(self._pool)):  # whatever is wrong with a task alone
            self._taskset((idx,))

    @property
    def n_variants(self) -> None:
        """Not known: it hangs on the results."""
        return None

    def variants(self) -> Iterator[TaskSet]:
        """Every task alone, for none is known to have succeeded."""
        return uninformed(self.rounds())

    def rounds(self) -> Rounds:
        """All sets of one size, then all of the next that may still succeed."""
        succeeded: list[Members] = [()]
        for n_members in range(1, min(self._max_tasks, len(self._pool)) + 1):
            verdicts = yield (self._taskset(one) for one in self._grown(succeeded, n_members))
            # Once more, as they came: only what succeeded is kept.
            succeeded = _where(verdicts, self._grown(succeeded, n_members))
            if not succeeded:
                return

    def _grown(self, succeeded: list[Members], n_members: int) -> Iterable[Members]:
        if n_members == 1:
            return ((idx,) for idx in range(len(self._pool)))
        return grown(succeeded)

    def _taskset(self, members: Members) -> TaskSet:
        tasks: tuple[Task, ...] = tuple(self._pool[idx] for idx in members)
        return TaskSet(
            ranked(tasks, self._priorities),
            name="grown-" + "-".join(map(str, members))
            if len(members) <= 20
            else f"grown-{len(members)}-tasks",
            overrun_policy=self._overrun_policy,
            admission_control=self._admission_control,
            provenance=Provenance(generator="growing", params={"tasks": list(members)}),
        )


def grown(succeeded: Sequence[Members]) -> Iterator[Members]:
    """Sets with one member more, all of whose subsets with one member less are among these, which are in ascending order."""
    known = set(succeeded)
    for start, group in groupby(succeeded, key=lambda members: members[:-1]):
        for one, other in combinations([members[-1] for members in group], 2):
            candidate = (*start, one, other)
            if all(candidate[:out] + candidate[out + 1 :] in known for out in range(len(start))):
                yield candidate


def _where(verdicts: Sequence[Verdict], members: Iterable[Members]) -> list[Members]:
    return [one for verdict, one in zip(verdicts, members, strict=True) if verdict]
