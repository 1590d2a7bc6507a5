"""Which of this computer's CPUs an emulator lives on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Cpus:
    """The CPUs that the runner may use, shared out evenly.

    Threads: every method is for any thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_tenants: Counter[int] = Counter()

    @contextmanager
    def share(self) -> Iterator[int]:
        """The CPU that has the fewest tenants, one more while the block runs."""
        with self._lock:
            cpu = min(sorted(os.sched_getaffinity(0)), key=self._n_tenants.__getitem__)
            self._n_tenants[cpu] += 1
        try:
            yield cpu
        finally:
            with self._lock:
                self._n_tenants[cpu] -= 1


#: This computer's, of which there is one.
CPUS = Cpus()
