"""The one way from a composed config to the frozen plan of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from runner import config_schemas
from runner.admission import Reserves
from runner.deadline import MAX_BUDGET_S
from runner.disturbance import DisturbanceLimits
from runner.errors import RunnerError, UsageError
from runner.excerpt import excerpt
from runner.model.refusal import member_of
from runner.network import plan_bridge
from runner.specs import (
    BoardSpec,
    Clock,
    Console,
    GenodeSpec,
    MachinePolicy,
    NetworkKind,
    NetworkSpec,
    QemuSpec,
    Reach,
    Reset,
)

CONF_FOLDER = Path(__file__).resolve().parent.parent / "conf"
MAX_REPEAT = 1000
MAX_MACHINES = 1000
_HOSTS = ("qemu", "genode_pbxa9", "genode_board", "none")
#: Key of each section -> the schema whose keys it has, also where it refers to something else; None: any.
SECTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "monitors": None,
        "machines": config_schemas.MachinesConf,
        "machines.qemu": config_schemas.QemuConf,
        "machines.genode": config_schemas.GenodeConf,
        "machines.board": config_schemas.BoardConf,
        "machines.policy": config_schemas.PolicyConf,
        "machines.disturbance": config_schemas.DisturbanceConf,
        "machines.admission": config_schemas.AdmissionConf,
    }
)
# What would change how Hydra makes an object; nobody needs it here.
_HYDRA_KEYS = frozenset({"_args_", "_convert_", "_partial_", "_recursive_"})


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a config asks for, checked as far as values go; the objects are still to be checked for being what they should be.

    Attributes:
        tasksets: The source of task sets.
        repeat: How often each is measured.
        reuse: Run folder or data set of an earlier run, to take results from.
        monitors: By name.
        open_session: Called with the host, or with nothing where there is none.
        qemu: How guests are built; None where the session needs no guest.
        genode: How Genode's guests are built; `boards`: which boards there are. One of the three, or none.
        reset: When a guest goes back to its booted snapshot.
        console: How consoles can be attached to.
        policy: How patient machines are.
        limits: What a measurement on the host's clock may suffer.
        reserves: What is left to everybody else on this computer.
        count: Machines at the start.
        limit: What nobody can go beyond.
        seed: Of the task sets, where they have one.
    """

    tasksets: object
    monitors: dict[str, object]
    open_session: partial[object]
    qemu: QemuSpec | None
    reset: Reset
    policy: MachinePolicy
    limits: DisturbanceLimits
    count: int
    limit: int
    seed: int | None
    genode: GenodeSpec | None = None
    boards: BoardSpec | None = None
    repeat: int = 1
    reuse: Path | None = None
    reserves: Reserves = field(default_factory=Reserves)
    console: Console = Console.PTY


def to_plan(config: DictConfig) -> RunPlan:
    """The frozen plan of a composed config.

    Raises:
        UsageError: when a value is missing, or values contradict each other; names the key in full.
        OmegaConfBaseException: when a value refers to a key that is not there.
    """
    _refuse_unknown(config, "")
    _check_sections(config)
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(f"{missing[0]} has no value", where=missing[0], next_step=f"set it: {missing[0]}=…")
    machines = config.machines
    _check_counts(machines.count, machines.limit)
    if not 1 <= config.repeat <= MAX_REPEAT:
        raise UsageError(
            f"repeat is {excerpt(config.repeat)}",
            where="repeat",
            next_step=f"choose 1 … {MAX_REPEAT} measurements of each set",
        )
    if machines.host not in _HOSTS:
        raise UsageError(
            f"machines.host is {excerpt(machines.host)}", next_step=f"choose one of: {', '.join(_HOSTS)}"
        )
    tasksets = _made(config.tasksets, "tasksets")
    seed = config.tasksets.get("seed")
    open_session = _made(machines.session, "machines.session", call=False)
    # A session that says nothing, or is made by a function, has the guest's network to talk through.
    reach = getattr(open_session.func, "reach", Reach.SSH)
    return RunPlan(
        tasksets=tasksets,
        monitors={str(name): _made(node, f"monitors.{name}") for name, node in config.monitors.items()},
        open_session=open_session,
        qemu=_qemu(machines.qemu, reach, to_network(machines)) if machines.host == "qemu" else None,
        genode=_genode(machines.genode) if machines.host == "genode_pbxa9" else None,
        boards=_boards(machines.board) if machines.host == "genode_board" else None,
        reset=_reset(machines),
        console=_console(machines.console, machines.host),
        policy=_policy(machines.policy),
        limits=DisturbanceLimits(**_not_negative(machines.disturbance, "machines.disturbance")),
        reserves=_reserves(machines.admission),
        count=machines.count,
        limit=machines.limit,
        seed=seed if isinstance(seed, int) else None,
        repeat=config.repeat,
        reuse=Path(config.reuse) if config.reuse is not None else None,
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


def _check_sections(config: DictConfig) -> None:
    for key, schema in SECTIONS.items():
        node = OmegaConf.select(config, key)
        keys = {str(name) for name in node} if isinstance(node, DictConfig) else None
        if keys is None or (schema is not None and keys != {one.name for one in fields(schema)}):
            raise UsageError(
                f"{key} is {'another section' if isinstance(node, DictConfig) else excerpt(node)}, and not what it should be",
                where=key,
                next_step=f"give it the keys that it had: python -m runner --cfg job --package {key}",
            )


def _check_counts(count: int, limit: int) -> None:
    if not 1 <= limit <= MAX_MACHINES:
        raise UsageError(
            f"machines.limit is {excerpt(limit)}",
            where="machines.limit",
            next_step=f"set 1 … {MAX_MACHINES}",
        )
    if not 0 <= count <= limit:
        raise UsageError(
            f"machines.count is {excerpt(count)}, the limit is {limit}",
            where="machines.count",
            next_step=f"choose 0 … {limit}, or raise machines.limit",
        )


def to_network(machines: DictConfig) -> NetworkSpec:
    """The frozen form of `machines.network`, checked for as many machines as there may be.

    Raises:
        UsageError: it contradicts itself or `machines.limit`; names the key in full.
    """
    values = {str(key): value for key, value in machines.network.items()}
    values["kind"] = member_of(NetworkKind, values["kind"], "machines.network.kind")
    spec = NetworkSpec(**values)
    if spec.kind is NetworkKind.BRIDGE:
        _check_counts(machines.count, machines.limit)
        plan_bridge(spec, machines.limit)
    return spec


def _reset(machines: DictConfig) -> Reset:
    reset = member_of(Reset, machines.reset, "machines.reset")
    if reset is Reset.TASKSET and machines.host == "qemu" and machines.network.kind == NetworkKind.BRIDGE:
        raise UsageError(
            "machines.reset is taskset, for which a machine has a second guest made ready: on a bridge both would have one address",
            where="machines.reset",
            next_step="set machines.reset=machine, or machines/network=user",
        )
    return reset


def _qemu(config: DictConfig, reach: Reach, network: NetworkSpec) -> QemuSpec:
    values = {str(key): value for key, value in config.items()}
    for key in ("boot_timeout_s", "start_timeout_s"):
        _require_positive(values[key], f"machines.qemu.{key}")
    for key, null in (("ssh_port", "null for ports that are free"), ("genode_port", "null for none")):
        if values[key] is not None and not 1 <= values[key] <= 65535:
            raise UsageError(
                f"machines.qemu.{key} is {excerpt(values[key])}, no TCP port",
                where=f"machines.qemu.{key}",
                next_step=f"choose 1 … 65535, or {null}",
            )
    values["clock"] = member_of(Clock, values["clock"], "machines.qemu.clock")
    values["image"] = Path(values["image"]).absolute() if values["image"] is not None else None
    return QemuSpec(**values, reach=reach, network=network)


def _genode(config: DictConfig) -> GenodeSpec:
    values = {str(key): value for key, value in config.items()}
    if values["image"] is None:
        raise UsageError(
            "machines.genode.image has no value",
            where="machines.genode.image",
            next_step="name the image.elf that your Genode build made",
        )
    values["image"] = Path(values["image"]).absolute()
    values["clock"] = member_of(Clock, values["clock"], "machines.genode.clock")
    return GenodeSpec(**values)


def _boards(config: DictConfig) -> BoardSpec:
    _require_positive(config.power_timeout_s, "machines.board.power_timeout_s")
    if config.vcpus is not None:
        _require_positive(config.vcpus, "machines.board.vcpus")
    return BoardSpec(
        addresses=tuple(config.addresses),
        power=tuple(config.power),
        power_timeout_s=config.power_timeout_s,
        vcpus=config.vcpus,
    )


def _console(value: str, host: str) -> Console:
    console = member_of(Console, value, "machines.console")
    if console is Console.SCREEN and host != "qemu":
        raise UsageError(
            "machines.console is 'screen', but these machines have no console for it",
            where="machines.console",
            next_step="set machines.console=pty, or choose machines with a guest of ours",
        )
    return console


def _policy(config: DictConfig) -> MachinePolicy:
    values = {str(key): value for key, value in config.items()}
    for key, value in values.items():
        _require_positive(value, f"machines.policy.{key}")
    return MachinePolicy(**values)


def _reserves(config: DictConfig) -> Reserves:
    values = _not_negative(config, "machines.admission")
    return Reserves(memory_mib=values["memory_reserve_mib"], disk_mib=values["disk_reserve_mib"])


def _not_negative(config: DictConfig, key: str) -> dict[str, int]:
    values = {str(name): value for name, value in config.items()}
    for name, value in values.items():
        if value < 0:
            where = f"{key}.{name}"
            raise UsageError(
                f"{where} is {excerpt(value)}, must be 0 or more", where=where, next_step=f"set {where}=…"
            )
    return values


def _require_positive(value: float, key: str) -> None:
    if not 0 < value <= MAX_BUDGET_S:
        raise UsageError(
            f"{key} is {excerpt(value)}, must be more than 0, and at most {MAX_BUDGET_S:.0f}",
            where=key,
            next_step=f"set {key}=…",
        )


def _made(node: Any, key: str, *, call: bool = True) -> Any:  # noqa: ANN401 - what `_target_` names
    """The object that a node's `_target_` names, with errors that name the node."""
    if not isinstance(node, DictConfig) or not node.get("_target_"):
        raise UsageError(
            f"{key} does not say what to make",
            where=f"{key}._target_",
            next_step="name a class: _target_: my_module.MyClass",
        )
    _refuse_code(OmegaConf.to_container(node, resolve=True), key)
    try:
        return instantiate(node, _convert_="all", _recursive_=False, _partial_=not call)
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


def _refuse_code(value: Any, key: str) -> None:  # noqa: ANN401 - plain values, all references resolved
    """Code is named where the config says what to make, and nowhere below that: there a `_target_` is a mistake, or a trick."""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = [(f"{key}.{name}", one) for name, one in value.items() if name != "_target_"]
    elif isinstance(value, list):
        parts = [(f"{key}[{place}]", one) for place, one in enumerate(value)]
    for name, one in parts:
        if name.rpartition(".")[2] in _HYDRA_KEYS or (isinstance(one, dict) and "_target_" in one):
            what = name if name.rpartition(".")[2] in _HYDRA_KEYS else f"{name}._target_"
            raise UsageError(
                f"{what} would have code executed inside of {key}",
                where=what,
                next_step="only tasksets, each monitor and machines.session name a class: make the rest in there, from values",
            )
        _refuse_code(one, name)


def located(error: RunnerError, key: str) -> RunnerError:
    """The same error, with the full name of its key."""
    where = error.where if error.where.startswith(key) else f"{key}.{error.where}".rstrip(".")
    relative = error.where != where and error.what.startswith(f"{error.where} ")
    what = f"{key}.{error.what}" if relative else error.what
    next_step = error.next_step or f"python -m runner --cfg job --package {key} shows what is set"
    return type(error)(what, where=where, next_step=next_step, evidence=error.evidence)
