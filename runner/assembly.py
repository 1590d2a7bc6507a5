"""From a plan's objects to the parts of a run, each checked for being what it should be."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path

from runner.config.making import located
from runner.config.plan import RunPlan
from runner.errors import TaskSetError, UsageError
from runner.hosts.base import AbstractHost
from runner.hosts.board import check_boards
from runner.machines.kinds import boards, genode, qemu, with_screens, without_host
from runner.machines.station import MachineKind
from runner.model import TaskSet, TaskSetSource
from runner.model.task import MAX_CPUS
from runner.monitors.base import AbstractMonitor
from runner.operator.screen import check_screen
from runner.qemu.contradictions import check_spec
from runner.qemu.genode_command import check_genode_spec
from runner.qemu.genode_host import find_genode_qemu
from runner.qemu.probe import find_binary
from runner.sessions.base import AbstractSession
from runner.specs import Console

# Sets are looked at before the first machine starts, but not all of an endless source.
N_CHECKED = 1000


def check(plan: RunPlan) -> tuple[TaskSetSource, tuple[AbstractMonitor, ...], MachineKind]:
    """Make sure that the objects of a plan are what they should be, and fit together.

    Raises:
        UsageError: when they do not; names the config key.
        HostError: when QEMU is missing, or screen where it is asked for.
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
    _check_tasksets(source, _vcpus(plan), punctual=not _is_ideal(plan.open_session.func))
    kind = kind_of(plan)
    _check_session(plan)
    if plan.qemu is not None:
        check_spec(plan.qemu)
        if plan.cluster is None:  # QEMU is needed where the machines are
            find_binary(plan.qemu)
    elif plan.genode is not None:
        check_genode_spec(plan.genode)
        find_genode_qemu(plan.genode)
    elif plan.boards is not None:
        check_boards(plan.boards, limit=plan.limit)
    else:
        kind.open_session(None).close()
    if plan.console is Console.SCREEN:
        check_screen()
    return source, tuple(monitors), kind


def _vcpus(plan: RunPlan) -> int:
    """How many processors a machine has, as far as is told."""
    spec = plan.qemu or plan.genode or plan.boards
    return 1 if spec is None else spec.vcpus or MAX_CPUS


def _has_host(plan: RunPlan) -> bool:
    return (plan.qemu or plan.genode or plan.boards) is not None


def _check_tasksets(source: TaskSetSource, vcpus: int, *, punctual: bool) -> None:
    n_variants = source.n_variants
    if n_variants is None or n_variants > N_CHECKED:
        return
    for taskset in source.variants():
        if punctual:
            _refuse_jitter(taskset)
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


def _refuse_jitter(taskset: TaskSet) -> None:
    try:
        taskset.refuse_jitter()
    except TaskSetError as exc:
        raise UsageError(exc.what, where=exc.where, next_step=exc.next_step) from exc


def _check_session(plan: RunPlan) -> None:
    made_by = plan.open_session.func
    if isinstance(made_by, type) and not issubclass(made_by, AbstractSession):
        raise _no_session(made_by)
    try:
        inspect.signature(made_by).bind(*(("host",) if _has_host(plan) else ()), **plan.open_session.keywords)
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


def kind_of(plan: RunPlan, image: Path | None = None) -> MachineKind:
    """What the machines of a plan are made of; also on a worker of a cluster.

    Args:
        image: Where the guests' image is on this computer, if it came from another.
    """
    made_by = plan.open_session.func

    def open_session(host: AbstractHost | None) -> AbstractSession:
        try:
            session = plan.open_session() if host is None else plan.open_session(host)
        except UsageError as exc:
            raise located(exc, "machines.session") from exc
        if not isinstance(session, AbstractSession):
            raise _no_session(type(session))
        return session

    if plan.boards is not None:
        return boards(plan.boards, open_session, policy=plan.policy, reset=plan.reset)
    if plan.genode is not None:
        kind = genode(plan.genode, open_session, policy=plan.policy, reset=plan.reset)
    elif plan.qemu is not None:
        spec = plan.qemu if image is None else replace(plan.qemu, image=image)
        kind = qemu(spec, open_session, policy=plan.policy, reset=plan.reset, limits=plan.limits)
    else:
        return without_host(open_session, policy=plan.policy, ideal=_is_ideal(made_by))
    return with_screens(kind) if plan.console is Console.SCREEN else kind
