"""The config's schemas, and the one way from a composed config to the frozen plan of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from runner.errors import RunnerError, UsageError
from runner.model.task import member_of
from runner.specs import Clock, MachinePolicy, QemuSpec

CONF_FOLDER = Path(__file__).resolve().parent.parent / "conf"


@dataclass
class UUniFastConf:
    """`tasksets=uunifast`; see `runner.tasksets.uunifast.UUniFastTaskSets`."""

    _target_: str = "runner.tasksets.uunifast.UUniFastTaskSets"
    n_tasks: int = MISSING
    utilizations: list[float] = MISSING
    sets_per_utilization: int = MISSING
    periods: list[str] = MISSING
    hyperperiods: float = 3.0
    seed: int = 0
    policy: str = "fifo"
    overrun_policy: str = "continue"
    admission_control: bool = True
    dl_margin: float = 0.02


@dataclass
class ExplicitConf:
    """`tasksets=explicit`; see `runner.tasksets.explicit.ExplicitTaskSets`."""

    _target_: str = "runner.tasksets.explicit.ExplicitTaskSets"
    tasksets: list[Any] = MISSING


@dataclass
class LoggingConf:
    """A line per attempt in the run's log."""

    _target_: str = "runner.monitors.logging.LoggingMonitor"
    level: str = "INFO"


@dataclass
class StdoutConf:
    """A line per attempt on standard output."""

    _target_: str = "runner.monitors.stdout.StdoutMonitor"


@dataclass
class ProgressConf:
    """A progress bar."""

    _target_: str = "runner.monitors.progress.ProgressMonitor"
    interval_s: float = 5.0


@dataclass
class SQLiteConf:
    """The data set."""

    _target_: str = "runner.monitors.sqlite.SQLiteMonitor"
    path: str = "${run_folder}/results.sqlite"
    commit_interval_s: float = 0.2


@dataclass
class SummaryConf:
    """The table at the end."""

    _target_: str = "runner.monitors.summary.SummaryMonitor"


@dataclass
class QemuConf:
    """How guests are built and booted; see `runner.specs.QemuSpec`."""

    arch: str = QemuSpec.arch
    clock: str = QemuSpec.clock.value
    icount_shift: int = QemuSpec.icount_shift
    vcpus: int = QemuSpec.vcpus
    memory_mib: int = QemuSpec.memory_mib
    image: str | None = None
    qemu_binary: str | None = None
    ssh_port: int | None = None
    snapshot: bool = QemuSpec.snapshot
    boot_timeout_s: float = QemuSpec.boot_timeout_s
    start_timeout_s: float = QemuSpec.start_timeout_s


@dataclass
class PolicyConf:
    """How patient machines are; see `runner.specs.MachinePolicy`."""

    max_tries: int = MachinePolicy.max_tries
    max_start_failures: int = MachinePolicy.max_start_failures
    start_timeout_s: float = MachinePolicy.start_timeout_s
    request_timeout_s: float = MachinePolicy.request_timeout_s
    taskset_timeout_s: float = MachinePolicy.taskset_timeout_s
    taskset_timeout_factor: float = MachinePolicy.taskset_timeout_factor


@dataclass
class MachinesConf:
    """The fleet: how many machines, and what they are made of.

    Attributes:
        count: Machines at the start.
        limit: What the control file cannot go beyond.
        host: `qemu`, or `none` where the session needs no guest.
        session: `_target_` names the session's class; it is called with the host, if there is one, and these arguments.
        qemu: For `host: qemu`.
        policy: How patient they are.
    """

    count: int = 1
    limit: int = 7
    host: str = "qemu"
    session: dict[str, Any] = field(default_factory=lambda: {"_target_": "runner.sessions.ssh.SshSession"})
    qemu: QemuConf = field(default_factory=QemuConf)
    policy: PolicyConf = field(default_factory=PolicyConf)


@dataclass
class RunnerConf:
    """The whole config."""

    tasksets: Any = MISSING
    monitors: dict[str, Any] = field(default_factory=dict)
    machines: MachinesConf = field(default_factory=MachinesConf)
    run_folder: str = "${hydra:runtime.output_dir}"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a config asks for, checked as far as values go; the objects are still to be checked for being what they should be.

    Attributes:
        tasksets: The source of task sets.
        monitors: By name.
        open_session: Called with the host, or with nothing where there is none.
        qemu: How guests are built; None where the session needs no guest.
        policy: How patient machines are.
        count: Machines at the start.
        limit: What nobody can go beyond.
        seed: Of the task sets, where they have one.
    """

    tasksets: object
    monitors: dict[str, object]
    open_session: partial[object]
    qemu: QemuSpec | None
    policy: MachinePolicy
    count: int
    limit: int
    seed: int | None


def register_schemas() -> None:
    """Make the schemas known to Hydra under the names that the files in `conf/` refer to."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=RunnerConf)
    store.store(group="tasksets", name="base_uunifast", node=UUniFastConf)
    store.store(group="tasksets", name="base_explicit", node=ExplicitConf)
    monitors = {
        "logging": LoggingConf,
        "stdout": StdoutConf,
        "progress": ProgressConf,
        "sqlite": SQLiteConf,
        "summary": SummaryConf,
    }
    for name, schema in monitors.items():
        store.store(group="monitors", name=f"base_{name}", node={name: schema})
    store.store(group="machines", name="base_machines", node=MachinesConf)


def to_plan(config: DictConfig) -> RunPlan:
    """The frozen plan of a composed config.

    Raises:
        UsageError: when a value is missing, or values contradict each other; names the key in full.
        OmegaConfBaseException: when a value refers to a key that is not there.
    """
    _refuse_unknown(config, "")
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"{missing[0]} has no value", where=missing[0], next_step=f"set it: {missing[0]}=…")
    machines = config.machines
    _check_counts(machines.count, machines.limit)
    if machines.host not in ("qemu", "none"):
        raise UsageError(f"machines.host is {machines.host!r}", next_step="choose qemu or none")
    seed = config.tasksets.get("seed")
    return RunPlan(
        tasksets=_made(config.tasksets, "tasksets"),
        monitors={str(name): _made(node, f"monitors.{name}") for name, node in config.monitors.items()},
        open_session=_made(machines.session, "machines.session", call=False),
        qemu=_qemu(machines.qemu) if machines.host == "qemu" else None,
        policy=_policy(machines.policy),
        count=machines.count,
        limit=machines.limit,
        seed=seed if isinstance(seed, int) else None,
    )


def _refuse_unknown(node: DictConfig, prefix: str) -> None:
    schema = OmegaConf.get_type(node)  # Hydra lets `+key=value` add anything anywhere
    for key in map(str, node):
        if is_dataclass(schema) and key not in schema.__dataclass_fields__:
            raise UsageError(
                f"there is no key {prefix}{key}",
                where=f"{prefix}{key}",
                next_step="leave the + before it out, to be told the nearest key that there is",
            )
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(child := node[key], DictConfig):
            _refuse_unknown(child, f"{prefix}{key}.")


def _check_counts(count: int, limit: int) -> None:
    if limit < 1:
        raise UsageError(f"machines.limit is {limit}", where="machines.limit", next_step="set at least 1")
    if not 0 <= count <= limit:
        raise UsageError(
            f"machines.count is {count}, the limit is {limit}",
            where="machines.count",
            next_step=f"choose 0 … {limit}, or raise machines.limit",
        )


def _qemu(config: DictConfig) -> QemuSpec:
    values = {str(key): value for key, value in config.items()}
    for key in ("boot_timeout_s", "start_timeout_s"):
        _require_positive(values[key], f"machines.qemu.{key}")
    if values["ssh_port"] is not None and not 1 <= values["ssh_port"] <= 65535:
        raise UsageError(
            f"machines.qemu.ssh_port is {values['ssh_port']}, no TCP port",
            where="machines.qemu.ssh_port",
            next_step="choose 1 … 65535, or null for ports that are free",
        )
    values["clock"] = member_of(Clock, values["clock"], "machines.qemu.clock")
    values["image"] = Path(values["image"]).absolute() if values["image"] is not None else None
    return QemuSpec(**values)


def _policy(config: DictConfig) -> MachinePolicy:
    values = {str(key): value for key, value in config.items()}
    for key, value in values.items():
        _require_positive(value, f"machines.policy.{key}")
    return MachinePolicy(**values)


def _require_positive(value: float, key: str) -> None:
    if value <= 0:
        raise UsageError(f"{key} is {value}, must be more than 0", where=key, next_step=f"set {key}=…")


def _made(node: Any, key: str, *, call: bool = True) -> Any:  # noqa: ANN401 - what `_target_` names
    """The object that a node's `_target_` names, with errors that name the node."""
    if not isinstance(node, DictConfig) or not node.get("_target_"):
        raise UsageError(
            f"{key} does not say what to make",
            where=f"{key}._target_",
            next_step="name a class: _target_: my_module.MyClass",
        )
    try:
        return instantiate(node, _convert_="all", _partial_=not call)
    except InstantiationException as exc:
        cause = exc.__cause__
        if isinstance(cause, RunnerError):
            raise located(cause, key) from exc
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        what = next(iter(str(cause or exc).splitlines()), "")
        raise UsageError(
            f"{node['_target_']} cannot be made: {type(cause or exc).__name__}: {what}",
            where=key,
            next_step="check the name in _target_ (is its module on PYTHONPATH?) and the arguments beside it",
        ) from exc


def located(error: RunnerError, key: str) -> RunnerError:
    """The same error, with the full name of its key."""
    where = error.where if error.where.startswith(key) else f"{key}.{error.where}".rstrip(".")
    relative = error.where != where and error.what.startswith(f"{error.where} ")
    what = f"{key}.{error.what}" if relative else error.what
    next_step = error.next_step or f"python -m runner --cfg job --package {key} shows what is set"
    return type(error)(what, where=where, next_step=next_step, evidence=error.evidence)
