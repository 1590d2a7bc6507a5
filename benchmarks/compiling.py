"""What loops that are compiled cost before they run: CPU time of a new process that calls them for the first time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import NamedTuple

_SCRIPT = """
import time
import numpy
began_s = time.process_time()
import numba
imported_s = time.process_time()
from benchmarks.{program} import call_once
read_s = time.process_time()
call_once()
print(imported_s - began_s, time.process_time() - read_s)
"""


class FirstCall(NamedTuple):
    """Seconds of CPU time.

    Attributes:
        import_s: Of Numba, in each process that uses it.
        compiled_s: Until each loop has run once, compiled anew.
        loaded_s: The same where an earlier process has compiled them.
    """

    import_s: float
    compiled_s: float
    loaded_s: float

    def told(self, sets_ours_s: float, sets_peer_s: float, n_sets: int) -> str:
        """What the ratio comes to where one process does that many sets, its first calls counted in."""
        once = sets_peer_s / (sets_ours_s + self.import_s + self.compiled_s)
        later = sets_peer_s / (sets_ours_s + self.import_s + self.loaded_s)
        return (
            f"import of Numba {self.import_s:.2f} s, first calls {self.compiled_s:.2f} s compiled, {self.loaded_s:.2f} s from the cache;"
            f" in one process with {n_sets} sets: {once:.1f} times as fast the first time, {later:.1f} times later"
        )


def first_call(program: str) -> FirstCall:
    """Of `call_once` of a program of this package; the cache is one of its own, empty at first."""
    with tempfile.TemporaryDirectory(prefix="rtfleet-benchmark-") as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        (_, compiled_s), (import_s, loaded_s) = (
            map(float, _run(_SCRIPT.format(program=program), environment).split()) for _ in range(2)
        )
    return FirstCall(import_s, compiled_s, loaded_s)


def _run(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout
