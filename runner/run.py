"""One run, from its plan to its exit code: everything is put together here, and taken apart again."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from runner import control
from runner.config import RunPlan, located
from runner.control_watcher import ControlWatcher
from runner.distributor import Distributor
from runner.durable import replace_text
from runner.errors import HostError, RunnerError, UsageError
from runner.exit_codes import ExitCode
from runner.fleet import FleetState, RunState
from runner.hosts import AbstractHost
from runner.kinds import qemu, without_host
from runner.manifest import manifest
from runner.model import TaskSetSource
from runner.monitors.base import AbstractMonitor
from runner.paths import RunPaths
from runner.qemu.command import check_spec
from runner.qemu.probe import find_binary
from runner.reuse import EarlierRun
from runner.sessions.base import AbstractSession
from runner.signals import OperatorSignals
from runner.station import MachineKind
from runner.status import StatusWriter

# Sets are looked at before the first machine starts, but not all of an endless source.
N_CHECKED = 1000
_log = logging.getLogger("runner.run")


def execute(plan: RunPlan, folder: Path, *, overrides: Sequence[str] = ()) -> ExitCode:
    """Carry a run out, until every task set is done or bad, or the operator ends it.

    Guarantees: whatever happens, no machine, thread or temporary file of the run is left when it returns or raises.

    Args:
        plan: What to do.
        folder: The run folder; exists and holds no other run.
        overrides: What was given on the command line, for the manifest.

    Raises:
        UsageError: the plan cannot be meant; nothing was started.
        HostError: this computer cannot run it.
    """
    paths = RunPaths(folder)
    source, monitors, kind = check(plan)
    if paths.manifest.exists():
        raise UsageError(
            f"{folder} holds another run",
            where="hydra.run.dir",
            next_step="choose another run folder, or start again: the default is named for date and time",
        )
    with _earlier(plan.reuse) if plan.reuse is not None else nullcontext() as reuse:
        try:
            replace_text(paths.manifest, json.dumps(manifest(plan, overrides=overrides), indent=1) + "\n")
            wanted = control.Control(plan.count, RunState.RUN)
            replace_text(paths.control, control.render(wanted, plan.limit))
            return _Run(plan, paths, source, monitors, kind, reuse=reuse).execute()
        except OSError as exc:
            raise host_error(exc, str(folder)) from exc


def _earlier(path: Path) -> EarlierRun:
    try:
        return EarlierRun(path)
    except RunnerError as exc:
        raise located(exc, "reuse") from exc


def check(plan: RunPlan) -> tuple[TaskSetSource, tuple[AbstractMonitor, ...], MachineKind]:
    """Make sure that the objects of a plan are what they should be, and fit together.

    Raises:
        UsageError: when they do not; names the config key.
        HostError: when QEMU is missing.
    """
    source = plan.tasksets
    if not (hasattr(source, "variants") and hasattr(source, "n_variants")):
        raise UsageError(
            f"tasksets._target_ made a {type(source).__name__}, which has no variants() and n_variants",
            where="tasksets._target_",
            next_step="name a TaskSet, or a class that yields task sets (runner.model.TaskSetSource)",
        )
    monitors: list[AbstractMonitor] = []
    for name, monitor in plan.monitors.items():
        if not isinstance(monitor, AbstractMonitor):
            raise UsageError(
                f"monitors.{name}._target_ made a {type(monitor).__name__}, which is no monitor",
                where=f"monitors.{name}._target_",
                next_step="derive the class from runner.monitors.base.AbstractMonitor",
            )
        monitors.append(monitor)
    _check_tasksets(source, plan.qemu.vcpus if plan.qemu is not None else 1)
    kind = _kind(plan)
    _check_session(plan)
    if plan.qemu is None:
        kind.open_session(None).close()
    else:
        check_spec(plan.qemu)
        find_binary(plan.qemu)
    return source, tuple(monitors), kind


def _check_tasksets(source: TaskSetSource, vcpus: int) -> None:
    n_variants = source.n_variants
    if n_variants is None or n_variants > N_CHECKED:
        return
    for taskset in source.variants():
        for task in taskset.tasks:
            at = f"task set {taskset.name!r}, task {task.name!r}"
            if task.cpu_affinity and task.cpu_affinity[-1] >= vcpus:
                raise UsageError(
                    f"{at}: cpu_affinity names CPU {task.cpu_affinity[-1]}, the machines have {vcpus}",
                    where="machines.qemu.vcpus",
                    next_step="correct cpu_affinity, or use machines=host_clock machines.qemu.vcpus=…",
                )
            path = task.workload_args.get("path")
            if task.workload == "executable" and not os.access(str(path), os.R_OK):
                raise UsageError(
                    f"{at}: the executable {path} cannot be read",
                    where="workload_args.path",
                    next_step="correct the path; it is read on this computer and uploaded to the guests",
                )


def _check_session(plan: RunPlan) -> None:
    made_by = plan.open_session.func
    if isinstance(made_by, type) and not issubclass(made_by, AbstractSession):
        raise _no_session(made_by)
    try:
        inspect.signature(made_by).bind(
            *(() if plan.qemu is None else ("host",)), **plan.open_session.keywords
        )
    except TypeError as exc:
        raise UsageError(
            f"machines.session: {made_by.__name__}: {exc}",
            where="machines.session",
            next_step="correct its arguments; it is called with the host, unless machines.host is none",
        ) from exc


def _is_ideal(made_by: object) -> bool:
    """Whether it makes sessions that compute what the ideal scheduler does; a class that inherits from such a one has to say so, too."""
    return isinstance(made_by, type) and bool(vars(made_by).get("ideal"))


def _no_session(kind: type) -> UsageError:
    return UsageError(
        f"machines.session._target_ makes a {kind.__name__}, which is no session",
        where="machines.session._target_",
        next_step="derive the class from runner.sessions.base.AbstractSession",
    )


def _kind(plan: RunPlan) -> MachineKind:
    made_by = plan.open_session.func

    def open_session(host: AbstractHost | None) -> AbstractSession:
        try:
            session = plan.open_session() if host is None else plan.open_session(host)
        except UsageError as exc:
            raise located(exc, "machines.session") from exc
        if not isinstance(session, AbstractSession):
            raise _no_session(type(session))
        return session

    if plan.qemu is None:
        return without_host(open_session, policy=plan.policy, ideal=_is_ideal(made_by))
    return qemu(plan.qemu, open_session, policy=plan.policy, reset=plan.reset, limits=plan.limits)


class _Run:
    """The parts of a run while it lasts."""

    def __init__(
        self,
        plan: RunPlan,
        paths: RunPaths,
        source: TaskSetSource,
        monitors: tuple[AbstractMonitor, ...],
        kind: MachineKind,
        *,
        reuse: EarlierRun | None,
    ) -> None:
        self._plan = plan
        self._source = source
        self._monitors = monitors
        self._paths = paths
        self._distributor = Distributor(
            plan.count,
            machine_limit=plan.limit,
            kind=kind,
            repeat=plan.repeat,
            reuse=reuse,
            folder=paths.folder,
            on_change=self._changed,
        )
        self._status = StatusWriter(paths.status, self._distributor.get_distributor_state)

    def _changed(self) -> None:
        self._status.touch()

    def execute(self) -> ExitCode:
        """Run to the end."""
        with ExitStack() as stack:
            stack.enter_context(self._status)
            stack.callback(self._distributor.close)
            stack.enter_context(OperatorSignals(drain=self._drain, kill=self._kill))
            self._distributor.add_job(self._source, self._monitors)
            stack.enter_context(ControlWatcher(self._paths.control, self._take_control))
            try:
                self._distributor.wait()
                final = self._distributor.get_distributor_state()
                self._distributor.close()
                # What a monitor could not write at the very end counts, too.
                self._distributor.wait(timeout_s=0)
            except Exception as exc:
                self._status.end(f"failed: {(str(exc) or repr(exc)).splitlines()[0]}")
                raise
            code = _exit_code(final)
            self._status.end(_ENDED[code])
            _log.info("%s: %d done, %d bad, of %s", _ENDED[code], final.n_done, final.n_bad, final.n_total)
            return code

    def _drain(self) -> None:
        _log.warning("stopping: machines finish their task sets (Ctrl-C again kills them)")
        self._status.control(control.Control(self._distributor.get_max_machine_value(), RunState.DRAIN))
        self._distributor.shut_down_all_machines()

    def _kill(self) -> None:
        _log.warning("killing all machines")
        self._status.control(control.Control(self._distributor.get_max_machine_value(), RunState.KILL))
        self._distributor.kill_all_machines()

    def _take_control(self, text: str) -> None:
        """Follow the control file; content that is not valid changes nothing."""
        try:
            wanted = control.parse(text, self._plan.limit)
        except UsageError as exc:
            _log.error("%s, %s; nothing was changed", exc.what, exc.where)
            self._status.control(None, f"{exc.what}, {exc.where}")
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


def host_error(exc: OSError, where: str) -> HostError:
    """What the operating system refused, most likely in the run folder."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return HostError(
        f"the disk of the run folder is full: {exc.strerror}"
        if full
        else f"the run folder cannot be used: {exc}",
        where=where,
        next_step="make room, or choose another place: hydra.run.dir=/path/with/room"
        if full
        else "choose another place: hydra.run.dir=/path",
    )
