"""How far a run is, where somebody looks: a bar in a notebook or on a terminal."""

from __future__ import annotations

import sys
import threading

from tqdm.auto import tqdm

from runner.run_folder.pulse import Pulse


class _Bar(tqdm):  # type: ignore[type-arg] # generic in the stub only
    """tqdm without its helper thread: whoever waits refreshes it."""

    monitor_interval = 0


class Bar:
    """Shows task sets that have ended, of all; draws nothing before there are any."""

    def __init__(self) -> None:
        self._bar: _Bar | None = None

    def show(self, pulse: Pulse) -> None:
        """This is how far it is."""
        if pulse.n_total == 0:  # nothing was submitted yet
            return
        n_done, n_bad = pulse.n_done or 0, pulse.n_bad or 0
        if self._bar is None:
            _Bar.set_lock(threading.RLock())
            self._bar = _Bar(
                desc="task sets", unit="set", initial=n_done + n_bad, total=pulse.n_total, mininterval=0
            )
        if self._bar.total != pulse.n_total:
            self._bar.reset(pulse.n_total)
        self._bar.set_postfix_str(
            f"{n_bad} bad, machines {len(pulse.machines)}/{pulse.n_wanted}", refresh=False
        )
        self._bar.update(n_done + n_bad - self._bar.n)
        self._bar.refresh()

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def close(self) -> None:
        """Leave it standing as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def can_be_drawn() -> bool:
    """Whether there is a notebook, or a terminal, that would show a bar."""
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and hasattr(shell.get_ipython(), "kernel")
    return in_notebook or sys.stderr.isatty()
