"""The first task sets of a source: what a rehearsal measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pkgutil import resolve_name
from typing import Any

from runner.errors import UsageError
from runner.model import TaskSet, TaskSetSource


class FirstSets:
    """As the source, but it ends early.

    Args:
        made_by: Full name of the class that makes the source.
        arguments: Of that class.
        n_sets: How many at most.

    Raises:
        UsageError: what it makes is no source.
        Whatever looking the class up and calling it raises.
    """

    def __init__(self, made_by: str, arguments: Mapping[str, Any], n_sets: int) -> None:
        source: TaskSetSource = resolve_name(made_by)(**arguments)
        if not (hasattr(source, "variants") and hasattr(source, "n_variants")):
            raise UsageError(
                f"tasksets._target_ made a {type(source).__name__}, which has no variants() and n_variants",
                where="tasksets._target_",
                next_step="name a TaskSet, or a class that yields task sets (runner.model.TaskSetSource)",
            )
        self._source = source
        self._n_sets = n_sets

    @property
    def n_variants(self) -> int | None:
        """How many there are; None where the source does not say."""
        known = self._source.n_variants
        return None if known is None else min(known, self._n_sets)

    def variants(self) -> Iterator[TaskSet]:
        """The first of them."""
        return islice(self._source.variants(), self._n_sets)
