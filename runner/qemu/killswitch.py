"""One pull ends whatever a machine is doing, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from runner.errors import MachineKilled


class KillSwitch:
    """Stays pulled once it was; the actions attached at that moment are called, each once, by whoever pulls.

    Threads: every method is for any thread.
    """

    def __init__(self, name: str) -> None:
        """
        Args:
            name: The machine's name, for messages.
        """
        self._name = name
        self._pulled = Event()
        self._lock = Lock()
        self._actions: list[Callable[[], None]] = []

    @property
    def pulled(self) -> bool:
        """Whether `pull` was called."""
        return self._pulled.is_set()

    def pull(self) -> None:
        """Call the attached actions, and let `check` raise from now on; again does nothing."""
        with self._lock:
            self._pulled.set()
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def check(self) -> None:
        """Go on if it was not pulled.

        Raises:
            MachineKilled: it was.
        """
        if self.pulled:
            raise MachineKilled(f"{self._name} was killed by the operator")

    def sleep(self, duration_s: float) -> None:
        """Sleep that long, unless it is pulled.

        Raises:
            MachineKilled: it was.
        """
        self._pulled.wait(duration_s)
        self.check()

    @contextmanager
    def attached(self, action: Callable[[], None]) -> Iterator[None]:
        """Have `action`, which must return quickly, called by `pull` while the block runs.

        Raises:
            MachineKilled: it was pulled before; the block does not run.
        """
        with self._lock:
            self.check()
            self._actions.append(action)
        try:
            yield
        finally:
            with self._lock:
                if action in self._actions:
                    self._actions.remove(action)
