"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

from tqdm import tqdm

from runner.fleet import FleetState, Phase, RunState
from runner.monitors.base import AbstractMonitor

_GONE = frozenset({Phase.CLOSED, Phase.FAILED, Phase.ASIDE})


class _Bar(tqdm):  # type: ignore[type-arg] # generic in the stub only
    """tqdm without its helper thread (the dispatcher refreshes often enough) and without a lock between processes."""

    monitor_interval = 0


class ProgressMonitor(AbstractMonitor):
    """Show task sets done, bad and in all, machines that there are and should be, the rate, and the time left.

    On a terminal a bar; otherwise a line at the start, at most every `interval_s` seconds, and at the end. The number of
    task sets may be unknown; there is no estimate then.

    Args:
        interval_s: Least time between two lines where there is no terminal.
        stream: Where to write instead of the standard error.
    """

    def __init__(self, interval_s: float = 5.0, stream: TextIO | None = None) -> None:
        self._interval_s = interval_s
        self._stream = stream
        self._bar: _Bar | None = None
        self._state: FleetState | None = None
        self._first = (0, 0.0)
        self._line_due_s = 0.0
        self._printed: FleetState | None = None

    def __fleet_change__(self, state: FleetState) -> None:
        if self._state is None:
            self._first = (_ended(state), time.monotonic())
        self._state = state
        stream = self._stream or sys.stderr
        if _has_columns(stream):
            self._draw(state, stream)
        elif time.monotonic() >= self._line_due_s:
            self._print(state, stream)

    def close(self) -> None:
        """Show the last state and leave it standing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._state is not None and self._state is not self._printed:
            self._print(self._state, self._stream or sys.stderr)

    def _draw(self, state: FleetState, stream: TextIO) -> None:
        if self._bar is None:
            _Bar.set_lock(threading.RLock())
            self._bar = _Bar(
                desc="task sets",
                unit="set",
                initial=_ended(state),
                total=state.n_total,
                file=stream,
                dynamic_ncols=True,
                mininterval=0,
                smoothing=0.1,
            )
        self._bar.total = state.n_total
        self._bar.set_postfix_str(_postfix(state), refresh=False)
        if not self._bar.update(_ended(state) - self._bar.n):
            self._bar.refresh()

    def _print(self, state: FleetState, stream: TextIO) -> None:
        ended, elapsed_s = _ended(state) - self._first[0], time.monotonic() - self._first[1]
        rate = ended / elapsed_s if ended and elapsed_s > 0 else None
        total = "" if state.n_total is None else f"/{state.n_total}"
        line = f"task sets: {_ended(state)}{total}, {_postfix(state)}"
        if rate is not None:
            line += f", {rate:.3g}/s"
        if rate is not None and state.n_total is not None and state.n_total > _ended(state):
            line += f", {_Bar.format_interval((state.n_total - _ended(state)) / rate)} left"
        self._line_due_s = time.monotonic() + self._interval_s
        self._printed = state
        print(line, file=stream, flush=True)


def _has_columns(stream: TextIO) -> bool:
    # A terminal that does not know its size (0 columns: containers, `ssh -tt`) would get an empty bar.
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0


def _ended(state: FleetState) -> int:
    return state.n_done + state.n_bad


def _postfix(state: FleetState) -> str:
    present = sum(machine.phase not in _GONE for machine in state.machines)
    text = f"{state.n_done} done, {state.n_bad} bad, machines {present}/{state.desired_machines}"
    # At the end of every run the machines are killed; that is of interest only if task sets are left.
    complete = state.n_total is not None and _ended(state) >= state.n_total
    return text if complete or state.state is RunState.RUN else f"{text}, {state.state.value}"
