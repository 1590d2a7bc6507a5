"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from typing import TextIO

from runner.fleet import FleetState, Phase, RunState
from runner.monitors.base import AbstractMonitor
from runner.operator.meter import Meter

_GONE = frozenset({Phase.CLOSED, Phase.FAILED, Phase.ASIDE})


class ProgressMonitor(AbstractMonitor):
    """Show task sets done, bad and in all, machines that there are and should be, the rate, and the time left.

    On a terminal a bar; otherwise a line at the start, at most every `interval_s` seconds, and at the end. The number of
    task sets may be unknown; there is no estimate then. The runs of a sweep are shown by one bar, which is not this one.

    Args:
        interval_s: Least time between two lines where there is no terminal.
        stream: Where to write instead of the standard error.
    """

    def __init__(self, interval_s: float = 5.0, stream: TextIO | None = None) -> None:
        self.interval_s = interval_s
        self._meter = Meter("task sets", interval_s, stream)

    def __fleet_change__(self, state: FleetState) -> None:
        self._meter.show(_ended(state), state.n_total, _tail(state))

    def close(self) -> None:
        """Show the last state and leave it standing."""
        self._meter.close()


def _ended(state: FleetState) -> int:
    return state.n_done + state.n_bad


def _tail(state: FleetState) -> str:
    present = sum(machine.phase not in _GONE for machine in state.machines)
    text = f"{state.n_done} done, {state.n_bad} bad, machines {present}/{state.desired_machines}"
    # At the end of every run the machines are killed; that is of interest only if task sets are left.
    complete = state.n_total is not None and _ended(state) >= state.n_total
    return text if complete or state.state is RunState.RUN else f"{text}, {state.state.value}"
