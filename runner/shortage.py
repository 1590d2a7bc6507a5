"""Which of Python's own errors mean that this computer is short of something, and are no bug therefore."""

from __future__ import annotations

from runner.errors import SHORTAGES, HostShortage


def as_shortage(exc: Exception) -> Exception:
    """For the top of a thread: the `HostShortage` that an error means; any other error as it is."""
    if isinstance(exc, MemoryError):
        what = "there is no memory left for the runner itself"
    elif isinstance(exc, OSError) and exc.errno in SHORTAGES:
        what = f"this computer is short of something: {exc}"
    elif isinstance(exc, RuntimeError) and "can't start new thread" in str(exc):
        what = (
            "no further thread can be started: there is no memory, or the user may have no more (ulimit -u)"
        )
    else:
        return exc
    shortage = HostShortage(what, next_step="make room, or lower machines.count")
    shortage.__cause__ = exc
    return shortage
