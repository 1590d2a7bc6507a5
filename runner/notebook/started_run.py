"""A run that was started from Python: its results as they come, its figures, and the operator's hand on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runner.data.reading import DataSet, load
from runner.data.reuse import RESULTS_NAME
from runner.deadline import Deadline
from runner.errors import UsageError
from runner.exit_codes import ExitCode
from runner.files.durable import replace_text
from runner.fleet import RunState
from runner.notebook.bar import Bar, can_be_drawn
from runner.notebook.process import RunProcess
from runner.notebook.results import Result, ResultReader
from runner.operator import control
from runner.operator.control_watcher import read_control
from runner.paths import RunPaths
from runner.run_folder.pulse import Pulse, read_pulse
from runner.steering import checked

if TYPE_CHECKING:
    from runner.notebook.figures import Figure

# Another process writes, and SQLite tells nobody: the data set is looked at.
POLL_S = 0.05
_BAR_S = 0.2
STEER_TIMEOUT_S = 10.0
# The runner follows what is saved after it has begun to watch, which it may not have yet.
_SAVE_AGAIN_S = 1.0
_PROGRESS = "task sets: "


class StartedRun:
    """A run in a process of its own, and the same as the command line's: config, ledger, monitors, report, run folder.

    `for result in run` yields each measurement once, from the first on, and waits for the next until the run has ended; every
    loop begins anew. `async for` does the same. A slow loop holds up no machine, and nothing waits in memory for it: results
    are read from the data set, which the monitor `sqlite` writes.

    Leaving a `with` block ends the run as Ctrl-C does: what runs is finished; interrupted meanwhile, it is killed. A run that was
    stopped can be resumed. Without `with` it goes on until it is done or stopped, as long as this process and this object last.
    Threads: any, each with loops of its own.

    Attributes:
        folder: The run folder.
    """

    def __init__(self, process: RunProcess) -> None:
        placed = process.placed
        if placed is None:
            raise UsageError("StartedRun() is made by runner.start()", next_step="call that")
        self.folder = placed.folder
        self._limit = placed.limit
        self._process = process
        self._paths = RunPaths(placed.folder)
        self._bar = Bar() if can_be_drawn() else None
        self._bar_due_s = 0.0

    # What it yields

    def __iter__(self) -> Iterator[Result]:
        """Each measurement, as it comes.

        Raises:
            RunnerError: at the end, what ended the run, if that was an error.
            UsageError: the run keeps no data set.
        """
        reader = ResultReader(self._results)
        while True:
            ended = self._process.ended  # asked first: what was written until then is read
            page = reader.page()
            yield from page
            if not page:
                if ended:
                    break
                self._look(POLL_S)
        self._finish(self._results)

    async def __aiter__(self) -> AsyncIterator[Result]:
        """As `for`, but others may work meanwhile."""
        reader = ResultReader(self._results)
        while True:
            ended = self._process.ended
            page = reader.page()
            for result in page:
                yield result
            if not page:
                if ended:
                    break
                self._look(0)
                await asyncio.sleep(POLL_S)
        self._finish(self._results)

    def wait(self, timeout_s: float | None = None) -> ExitCode | None:
        """Wait for its end, and return how it ended; None when `timeout_s` ran out before.

        Raises:
            RunnerError: what ended the run, if that was an error.
        """
        deadline = None if timeout_s is None else Deadline.after(timeout_s)
        while not self._process.ended:
            if deadline is not None and deadline.passed:
                return None
            self._look(POLL_S if deadline is None else deadline.at_most(POLL_S).remaining_s)
        self._finish()
        return self.code

    @property
    def code(self) -> ExitCode | None:
        """How it ended, as the command line's exit code; None while it runs, or where a signal ended its process."""
        self._process.look(0)
        return next((one for one in ExitCode if one == self._process.code), None)

    @property
    def data(self) -> DataSet:
        """The data so far, as `runner.load(run.folder)`.

        Raises:
            UsageError: there are none.
        """
        return load(self.folder)

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Name -> each figure of the report, of the data so far."""
        from runner.notebook.figures import figures_of  # late import: matplotlib takes half a second

        return figures_of(self.folder)

    def figure(self, name: str) -> Figure:
        """One of them: `acceptance`, `responses`, `distribution`, `misses`, `tardiness`, `latency`, `labels`, `machines`.

        Raises:
            UsageError: there is no such figure, or no data set.
        """
        figures = self.figures
        if name not in figures:
            raise UsageError(f"there is no figure {name!r}", next_step=f"choose one of: {', '.join(figures)}")
        return figures[name]

    # The operator's hand

    def rescale(self, machines: int) -> None:
        """So many machines from now on; returns when the run has taken it over.

        Raises:
            UsageError: there may not be so many, or the run has ended.
        """
        self._steer(machines=checked(machines, self._limit))

    def pause(self) -> None:
        """Start no further task set; those that run finish, the machines stay."""
        self._steer(state=RunState.PAUSE)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._steer(state=RunState.RUN)

    def stop(self, *, kill: bool = False) -> None:
        """End the run, and wait for that: task sets that run are finished, or killed. Does nothing once it has ended.

        Interrupted meanwhile, it kills.
        """
        try:
            if kill:
                self._process.kill()
            self._process.interrupt()
            while not self._process.ended:
                self._look(POLL_S)
        except KeyboardInterrupt:
            self._process.kill()
            raise
        finally:
            self._show()

    def _steer(self, *, machines: int | None = None, state: RunState | None = None) -> None:
        """As the operator does: through the control file."""
        wanted = control.parse(read_control(self._paths.control), self._limit)
        wanted = replace(
            wanted,
            machines=wanted.machines if machines is None else machines,
            state=wanted.state if state is None else state,
        )
        text = control.render(wanted, self._limit)
        deadline, saved_s = Deadline.after(STEER_TIMEOUT_S), 0.0
        while not self._follows(wanted):
            self._process.look(0)
            if self._process.ended or deadline.passed:
                how = "it has ended" if self._process.ended else f"not within {STEER_TIMEOUT_S:.0f} s"
                raise UsageError(
                    f"the run in {self.folder} did not take over {wanted.machines} machines, {wanted.state.value}: {how}",
                    next_step=f"runner.start(resume={str(self.folder)!r}) goes on with a run that has ended",
                )
            if time.monotonic() >= saved_s:
                replace_text(self._paths.control, text)
                text, saved_s = f"{text}\n", time.monotonic() + _SAVE_AGAIN_S
            self._look(POLL_S)

    def _follows(self, wanted: control.Control) -> bool:
        pulse = read_pulse(self._paths)
        return not self._process.ended and (pulse.n_wanted, pulse.state) == (
            wanted.machines,
            wanted.state.value,
        )

    # Looking at it

    @property
    def _results(self) -> Path:
        return self.folder / RESULTS_NAME

    def _look(self, wait_s: float) -> None:
        """Wait a little for what it tells; show how far it is, and what it has printed."""
        self._process.look(wait_s)
        self._show()

    def _show(self) -> None:
        while lines := self._process.printed():
            for line in lines:
                if self._bar is None:
                    print(line, flush=True)
                elif not line.startswith(_PROGRESS):  # the bar says it
                    self._bar.say(line)
        if self._bar is not None and (self._process.ended or time.monotonic() >= self._bar_due_s):
            self._bar_due_s = time.monotonic() + _BAR_S
            self._bar.show(self._pulse)
            if self._process.ended:
                self._bar.close()
                self._bar = None

    @property
    def _pulse(self) -> Pulse:
        return read_pulse(self._paths)

    def _finish(self, needed: Path | None = None) -> None:
        self._show()
        self._process.refuse_if_failed()
        if needed is not None and not needed.exists() and self.code is not ExitCode.STOPPED:
            raise UsageError(
                f"{self.folder} keeps no data set, so there are no results to go through",
                where="monitors",
                next_step="run it with the monitor sqlite",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._finish()

    def __repr__(self) -> str:
        return f"<run in {self.folder}: {self._state()}>"

    def _state(self) -> str:
        self._process.look(0)
        pulse = self._pulse
        total = "" if pulse.n_total is None else f" of {pulse.n_total}"
        how = pulse.ended or "ended" if self._process.ended else pulse.held or pulse.state or "begins"
        return f"{how}, {pulse.n_done or 0} done and {pulse.n_bad or 0} bad{total}"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: how far it is, and the report's figures of the data so far."""
        figures = self.figures.values() if self._results.exists() else ()
        return f"<p><code>{escape(str(self.folder))}</code>: {escape(self._state())}</p>" + "".join(
            figure._repr_html_() for figure in figures if figure.charts
        )
