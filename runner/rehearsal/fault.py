"""What a fault is to a rehearsal: when it happens, how it is made to happen, and by what one sees that it was noticed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from runner.exit_codes import ExitCode
from runner.rehearsal.link import Call
from runner.rehearsal.setup import Reached, Setup

if TYPE_CHECKING:
    from runner.rehearsal.scene import Scene

#: How a run ends that has measured everything.
DONE = frozenset({ExitCode.OK, ExitCode.BAD_TASKSETS})
#: Returned by `inject`: no answer comes until the fault is healed.
WAIT = "wait"


@dataclass
class Injection:
    """A fault in one run.

    Attributes:
        fault: Which.
        at: When as many of the sets were handed over.
        seed: For whatever of it is left to chance.
        injected_s: When it happened, on the monotonic clock; None: not yet.
        noticed_s: When it was noticed; None: not yet.
        place: Where, for people.
        call: What the run had said just before.
        log_start_byte: Where the run's log ended then.
        healed: Whether it is over.
        begun: Whether it is under way, if it has not happened yet.
    """

    fault: Fault
    at: int
    seed: int
    injected_s: float | None = None
    noticed_s: float | None = None
    healed: bool = False
    begun: bool = False
    place: str = ""
    call: Call | None = None
    log_start_byte: int = 0
    #: Whatever the fault has to remember until it is healed.
    held: list[Any] = field(default_factory=list)

    @property
    def took_s(self) -> float | None:
        """How long it took until it was noticed."""
        if self.injected_s is None or self.noticed_s is None:
            return None
        return self.noticed_s - self.injected_s

    @property
    def open(self) -> bool:
        """Whether it has happened, and nobody has noticed it yet."""
        return self.injected_s is not None and self.noticed_s is None and not self.healed

    def begin(self, call: Call, place: str, log_start_byte: int, at_s: float | None = None) -> None:
        """It happens now, or has happened at `at_s`."""
        self.injected_s = time.monotonic() if at_s is None else at_s
        self.call, self.place, self.log_start_byte = call, place, log_start_byte


@dataclass(frozen=True)
class Fault(ABC):
    """A kind of fault. Frozen: what is known of one that happens is its `Injection`.

    Attributes:
        name: As it is given to `--faults`.
        what: What happens.
        source: Why it must be noticed within its deadline.
        moments: The calls of a run upon which it can happen.
        exits: How a run may end in which it happened, when not with all sets measured.
        n_after: How many sets must come after the one at which it happens, for it to show.
        holds: Whether no further set is handed over until it was noticed, so that a run of a few sets is not over before.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    source: ClassVar[str]
    moments: ClassVar[frozenset[str]] = frozenset({"start"})
    exits: ClassVar[frozenset[int]] = frozenset()
    n_after: ClassVar[int] = 1
    holds: ClassVar[bool] = False

    @abstractmethod
    def applies_to(self, setup: Setup) -> str:
        """Why it cannot happen to runs of this config; empty: it can."""

    @abstractmethod
    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        """Within how many seconds it must be noticed; None: it must not show at all."""

    @abstractmethod
    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        """Have it happen. Returns what the run is answered; None where it cannot happen just now, but at a later call."""

    @abstractmethod
    def noticed(self, scene: Scene, injection: Injection) -> bool:
        """Whether the run shows that it has noticed."""

    def heal(self, scene: Scene, injection: Injection) -> None:  # noqa: B027 - most end by themselves
        """Put an end to it, where it does not end by itself."""

    def environment(self, setup: Setup, folder: Path) -> Mapping[str, str]:
        """What the run's environment has to have for it; `folder` is the rehearsal's own."""
        return {}

    def wrapped(self, command: Sequence[str], run_folder: Path) -> list[str]:
        """What the run's command has to be for it."""
        return list(command)

    def before(self, scene: Scene, injection: Injection) -> None:  # noqa: B027 - most happen later
        """Called before the run's process is started."""


_OTHER = "into this session nothing can be injected: only into those by mailbox, by SSH, and the simulation"


def needs_guests(setup: Setup) -> str:
    """Why a fault of an emulator cannot happen."""
    if setup.reached is Reached.OTHER:
        return _OTHER
    return "" if setup.has_guests else f"no QEMU runs ({setup.reached.value})"


def needs_seam(setup: Setup) -> str:
    """Why a fault between session and guest cannot happen."""
    return _OTHER if setup.reached is Reached.OTHER else ""
