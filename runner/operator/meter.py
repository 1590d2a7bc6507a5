"""How far something is, drawn where its user looks: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

from tqdm import tqdm


class _Bar(tqdm):  # type: ignore[type-arg] # generic in the stub only
    """tqdm without its helper thread (whoever shows refreshes often enough) and without a lock between processes."""

    monitor_interval = 0


class Meter:
    """Shows a count, its total, the rate and the time left.

    On a terminal a bar; otherwise a line at the start, at most every `interval_s` seconds, and at the end. Without a total
    there is no estimate. Threads: one at a time.

    Args:
        what: Is counted: `task sets`.
        interval_s: Least time between two lines where there is no terminal.
        stream: Where to write instead of the standard error.
    """

    def __init__(self, what: str, interval_s: float = 5.0, stream: TextIO | None = None) -> None:
        self._what = what
        self._interval_s = interval_s
        self._stream = stream
        self._bar: _Bar | None = None
        self._shown: tuple[int, int | None, str] | None = None
        self._first = (0, 0.0)
        self._line_due_s = 0.0
        self._printed: tuple[int, int | None, str] | None = None

    def show(self, n: int, total: int | None, tail: str) -> None:
        """This is how far it is now; `tail` says more."""
        if self._shown is None:
            self._first = (n, time.monotonic())
        self._shown = (n, total, tail)
        stream = self._stream or sys.stderr
        if _has_columns(stream):
            self._draw(n, total, tail, stream)
        elif time.monotonic() >= self._line_due_s:
            self._print(n, total, tail, stream)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        print(line if self._bar is None else f"\r\x1b[K{line}", file=self._stream or sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._shown is not None and self._shown != self._printed:
            self._print(*self._shown, self._stream or sys.stderr)

    def _draw(self, n: int, total: int | None, tail: str, stream: TextIO) -> None:
        if self._bar is None:
            _Bar.set_lock(threading.RLock())
            self._bar = _Bar(
                desc=self._what,
                unit="set",
                initial=n,
                total=total,
                file=stream,
                dynamic_ncols=True,
                mininterval=0,
                smoothing=0.1,
            )
        self._bar.total = total
        self._bar.set_postfix_str(tail, refresh=False)
        if not self._bar.update(n - self._bar.n):
            self._bar.refresh()

    def _print(self, n: int, total: int | None, tail: str, stream: TextIO) -> None:
        gained, elapsed_s = n - self._first[0], time.monotonic() - self._first[1]
        rate = gained / elapsed_s if gained and elapsed_s > 0 else None
        line = f"{self._what}: {n}{'' if total is None else f'/{total}'}, {tail}"
        if rate is not None:
            line += f", {rate:.3g}/s"
        if rate is not None and total is not None and total > n:
            line += f", {_Bar.format_interval((total - n) / rate)} left"
        self._line_due_s = time.monotonic() + self._interval_s
        self._printed = (n, total, tail)
        print(line, file=stream, flush=True)


def _has_columns(stream: TextIO) -> bool:
    # A terminal that does not know its size (0 columns: containers, `ssh -tt`) would get an empty bar.
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
