"""What is fed, and what may come of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import ClassVar

from runner.errors import RunnerError


class Kind(ABC):
    """One reader of the program's, fed with mutated bytes. Made in the worker process that feeds it.

    Args:
        scratch: An empty folder of its own.
    """

    #: As `--kind` names it.
    name: ClassVar[str]
    #: How many of 1,000 inputs are of this kind.
    share: ClassVar[int]
    #: What the reader may answer beside acceptance.
    refusals: ClassVar[tuple[type[Exception], ...]] = (RunnerError,)
    #: CPU time that one input may take; ten times as long by the clock, for the computer may be busy.
    limit_s: ClassVar[float] = 20.0
    #: Memory that the worker may take beyond what it has when it begins to feed.
    memory_mib: ClassVar[int] = 256

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @abstractmethod
    def make(self, chance: Random) -> bytes:
        """One input."""

    @abstractmethod
    def feed(self, data: bytes) -> str:
        """Give it to the program; how it was accepted, in a word or two.

        Raises:
            One of `refusals`: the program refused it.
            AssertionError: it did neither.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what the constructor opened."""
