"""One run, from its plan to its exit code: everything is put together here, and taken apart again."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from runner.assembly import check
from runner.cluster.crew import Crew
from runner.config.making import located
from runner.config.plan import RunPlan
from runner.config.record import RunRecord
from runner.data.history import reading
from runner.data.progress import Progress, read_progress
from runner.data.reuse import EarlierRun
from runner.distributor import Distributor
from runner.errors import RunnerError, UsageError, host_error
from runner.exit_codes import ExitCode
from runner.expectations import Expectations, table
from runner.fleet import FleetState, RunState
from runner.machines.station import MachineKind
from runner.model import TaskSetSource
from runner.monitors.base import AbstractMonitor
from runner.monitors.sqlite import SQLiteMonitor
from runner.monitors.summary import SummaryMonitor
from runner.operator import control
from runner.operator.control import Control
from runner.operator.control_watcher import ControlWatcher
from runner.operator.signals import OperatorSignals
from runner.operator.status import StatusWriter
from runner.paths import RunPaths
from runner.report.after_run import report_after
from runner.report.expected import compared
from runner.run_folder.files import Resumption, RunFiles
from runner.run_folder.manifest import manifest
from runner.text.secrets import masked, masked_values
from runner.workers import workers

# What the disk says to who writes to a file that is open: it names none.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_log = logging.getLogger("runner.run")


def execute(
    plan: RunPlan,
    folder: Path,
    record: RunRecord,
    *,
    resumption: Resumption | None = None,
    mask: Callable[[str], str] = masked,
) -> ExitCode:
    """Carry a run out, until every task set is done or bad, or the operator ends it.

    Guarantees: whatever happens, no machine, thread or temporary file of the run is left when it returns or raises; and
    when nothing but the process ends, the run can be resumed.

    Args:
        plan: What to do.
        folder: The run folder; exists, and nobody else works in it.
        record: The config that the plan comes from, for the folder.
        resumption: How an earlier runner has left it; None: it holds no run.
        mask: Takes the secrets out of what is written down.

    Raises:
        UsageError: the plan cannot be meant, or the run cannot be resumed; nothing was started.
        HostError: this computer cannot run it.
    """
    paths = RunPaths(folder)
    source, monitors, kind = check(plan)
    if resumption is None and (paths.manifest.exists() or paths.record.exists()):
        raise UsageError(
            f"{folder} holds another run",
            where="hydra.run.dir",
            next_step=f"resume={folder} goes on with it; or choose another run folder: the default is named for date and time",
        )
    with ExitStack() as stack:
        try:
            reuse = _earlier(plan.reuse, stack)
            facts = masked_values(manifest(plan, overrides=record.overrides), mask)
            files = RunFiles(paths, record, facts)
            wanted = Control(plan.count, RunState.RUN)
            progress = None
            if resumption is None:
                files.begin(wanted, plan.limit)
            else:
                if paths.manifest.exists():
                    progress = _progress(paths, monitors)
                wanted = files.go_on(resumption, wanted, plan.limit)
            # First of all: from here on a signal ends the run in order, and raises nothing anywhere.
            with OperatorSignals() as signals:
                with workers(plan, paths) as crew:
                    run = _Run(plan, paths, kind, wanted=wanted, reuse=reuse, mask=mask, crew=crew)
                    code = run.execute(signals, source, monitors, progress)
                files.end(code)
                if plan.expected:
                    _compare(plan.expected, monitors)
                if plan.report:
                    _report(paths, monitors)
        except OSError as exc:
            if exc.filename is None and exc.errno not in _DISK_ERRORS:  # somebody's network
                raise
            raise host_error(exc, str(folder)) from exc
    return code


def _earlier(path: Path | None, stack: ExitStack) -> EarlierRun | None:
    if path is None:
        return None
    try:
        return stack.enter_context(EarlierRun(path))
    except RunnerError as exc:
        raise located(exc, "reuse") from exc


def _progress(paths: RunPaths, monitors: tuple[AbstractMonitor, ...]) -> Progress | None:
    """How far the earlier runner came; None: it measured nothing."""
    data_set = next((one for one in monitors if isinstance(one, SQLiteMonitor)), None)
    if data_set is None:
        raise UsageError(
            f"{paths.folder} keeps no data set, so nobody knows what was measured",
            where="monitors",
            next_step="start a new run; with the monitor sqlite it could be resumed",
        )
    progress = read_progress(data_set.path)
    if progress is not None:
        for summary in (one for one in monitors if isinstance(one, SummaryMonitor)):
            for past in progress.past():
                summary.add_past(past)
    done = "nothing is known" if progress is None else f"{progress.n_done} done, {progress.n_bad} bad"
    _log.info("resumed: %s", done)
    return progress


def _report(paths: RunPaths, monitors: tuple[AbstractMonitor, ...]) -> None:
    """While signals are still taken: whoever is impatient interrupts the report alone."""
    data_set = next((one for one in monitors if isinstance(one, SQLiteMonitor)), None)
    if data_set is not None and data_set.path.exists():
        report_after(paths, data_set.path)


def _compare(expected: Expectations, monitors: tuple[AbstractMonitor, ...]) -> None:
    """Print what was expected beside what came out: a finding about what was measured, so it changes no exit code."""
    data_set = next((one for one in monitors if isinstance(one, SQLiteMonitor)), None)
    if data_set is None or not data_set.path.exists():
        _log.warning(
            "nothing is compared with what was expected: there is no data set, which the monitor sqlite makes"
        )
        return
    with reading(data_set.path) as database:
        lines = compared(expected, database)
    print(table(lines), flush=True)
    n_failed = sum(not one.holds for one in lines)
    if n_failed:
        _log.warning("%d of %d figures are not as expected", n_failed, len(lines))


class _Run:
    """The parts of a run while it lasts."""

    def __init__(
        self,
        plan: RunPlan,
        paths: RunPaths,
        kind: MachineKind,
        *,
        wanted: Control,
        reuse: EarlierRun | None,
        mask: Callable[[str], str],
        crew: Crew | None = None,
    ) -> None:
        self._limit = plan.limit
        self._wanted = wanted
        self._paths = paths
        self._mask = mask
        self._distributor = Distributor(
            wanted.machines,
            machine_limit=plan.limit,
            kind=kind,
            repeat=plan.repeat,
            reuse=reuse,
            folder=paths.folder,
            # Each computer of a cluster has a limit of its own.
            reserves=plan.reserves if crew is None else replace(plan.reserves, computer_limit=None),
            crew=crew,
            on_change=self._changed,
        )
        self._status = StatusWriter(paths.status, self._distributor.get_distributor_state)

    def _changed(self) -> None:
        self._status.touch()

    def execute(
        self,
        signals: OperatorSignals,
        source: TaskSetSource,
        monitors: tuple[AbstractMonitor, ...],
        progress: Progress | None,
    ) -> ExitCode:
        """Run to the end."""
        with ExitStack() as stack:
            stack.enter_context(self._status)
            stack.callback(self._distributor.close)
            if self._wanted.state is RunState.PAUSE:
                self._distributor.pause()
            self._status.control(self._wanted)
            # Before any machine: what was pressed until now is followed at once.
            signals.follow(drain=self._drain, kill=self._kill)
            self._distributor.add_job(source, monitors, progress=progress)
            stack.enter_context(ControlWatcher(self._paths.control, self._take_control))
            try:
                self._distributor.wait()
                final = self._distributor.get_distributor_state()
                self._distributor.close()
                # What a monitor could not write at the very end counts, too.
                self._distributor.wait(timeout_s=0)
            except Exception as exc:
                self._status.end(self._mask(f"failed: {(str(exc) or repr(exc)).splitlines()[0]}"))
                raise
            code = _exit_code(final)
            self._status.end(_ENDED[code])
            _log.info("%s: %d done, %d bad, of %s", _ENDED[code], final.n_done, final.n_bad, final.n_total)
            return code

    def _drain(self) -> None:
        if self._distributor.closed:  # the end has come first
            return
        _log.warning("stopping: machines finish their task sets (Ctrl-C again kills them)")
        self._status.control(Control(self._distributor.get_max_machine_value(), RunState.DRAIN))
        self._distributor.shut_down_all_machines()

    def _kill(self) -> None:
        if self._distributor.closed:
            return
        _log.warning("killing all machines")
        self._status.control(Control(self._distributor.get_max_machine_value(), RunState.KILL))
        self._distributor.kill_all_machines()

    def _take_control(self, text: str) -> None:
        """Follow the control file; content that is not valid changes nothing."""
        try:
            wanted = control.parse(text, self._limit)
        except UsageError as exc:
            _log.error("%s, %s; nothing was changed", exc.what, exc.where)
            self._status.control(None, self._mask(f"{exc.what}, {exc.where}"))
            return
        self._status.control(wanted)
        _log.info("control file: machines %d, state %s", wanted.machines, wanted.state.value)
        if not self._distributor.closed:  # a save in the last instant comes too late
            self._distributor.steer(wanted.machines, wanted.state)


_ENDED = {
    ExitCode.OK: "every task set is done",
    ExitCode.BAD_TASKSETS: "ended, some task sets are bad",
    ExitCode.STOPPED: "stopped by the operator",
}


def _exit_code(final: FleetState) -> ExitCode:
    if final.n_total is None or final.n_done + final.n_bad < final.n_total:
        return ExitCode.STOPPED
    return ExitCode.BAD_TASKSETS if final.n_bad else ExitCode.OK
