"""The one way from a composed config to the frozen plan of a run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from runner.admission.capacity import Reserves
from runner.config import schemas as config_schemas
from runner.config.expected import ExpectedConf, to_expectations
from runner.config.machines import (
    MAX_MACHINES,
    check_cluster,
    check_counts,
    to_boards,
    to_console,
    to_genode,
    to_limits,
    to_network,
    to_policy,
    to_qemu,
    to_reserves,
    to_reset,
)
from runner.disturbance import DisturbanceLimits
from runner.errors import RunnerError, UsageError
from runner.expectations import Expectations
from runner.specs import (
    BoardSpec,
    Console,
    GenodeSpec,
    MachinePolicy,
    QemuSpec,
    Reach,
    Reset,
)
from runner.text.excerpt import excerpt

CONF_FOLDER = Path(__file__).resolve().parents[2] / "conf"
MAX_REPEAT = 1000
_HOSTS = ("qemu", "genode_pbxa9", "genode_board", "none")
#: Key of each section -> the schema whose keys it has, also where it refers to something else; None: any.
SECTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "monitors": None,
        "expected": ExpectedConf,
        "machines": config_schemas.MachinesConf,
        "machines.network": config_schemas.NetworkConf,
        "machines.qemu": config_schemas.QemuConf,
        "machines.genode": config_schemas.GenodeConf,
        "machines.board": config_schemas.BoardConf,
        "machines.policy": config_schemas.PolicyConf,
        "machines.disturbance": config_schemas.DisturbanceConf,
        "machines.admission": config_schemas.AdmissionConf,
        "machines.cluster": config_schemas.ClusterConf,
    }
)
# What would change how Hydra makes an object; nobody needs it here.
_HYDRA_KEYS = frozenset({"_args_", "_convert_", "_partial_", "_recursive_"})


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Which computers the machines are on.

    Attributes:
        make: Makes any of Dask's clusters, or returns the address of a scheduler.
        per_computer: Machines at most on a computer whose workers do not say what they can hold.
        guests_per_worker: What a worker can hold that does not declare it as a Dask resource; None: as much as its computer.
        patience_s: How long there may be no worker before the run ends with an error.
        answer_s: A worker that answers nothing for so long is lost.
        silence_s: A worker that is asked nothing for so long ends its machines: the run is gone.
        checked_share: Of the task sets, that which two workers measure: their job tables have to be equal. 0 … 1.
    """

    make: partial[object]
    per_computer: int
    guests_per_worker: int | None = None
    patience_s: float = 60.0
    answer_s: float = 90.0
    silence_s: float = 120.0
    checked_share: float = 0.0


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
        report: Whether a report is made at the end.
        expected: What should come out.
        cluster: Which computers the machines are on; None: this one.
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
    report: bool = True
    expected: Expectations = field(default_factory=Expectations)
    cluster: ClusterPlan | None = None


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
    cluster = _cluster(config)
    # With a cluster the limit is each computer's; what the workers can hold bounds the fleet.
    limit = machines.limit if cluster is None else MAX_MACHINES
    check_counts(machines.count, limit)
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
    network = to_network(machines)
    # A session that says nothing, or is made by a function, has the guest's network to talk through.
    reach = getattr(open_session.func, "reach", Reach.SSH)
    return RunPlan(
        tasksets=tasksets,
        monitors={str(name): _made(node, f"monitors.{name}") for name, node in config.monitors.items()},
        open_session=open_session,
        qemu=to_qemu(machines.qemu, reach, network) if machines.host == "qemu" else None,
        genode=to_genode(machines.genode, network) if machines.host == "genode_pbxa9" else None,
        boards=to_boards(machines.board) if machines.host == "genode_board" else None,
        reset=to_reset(machines),
        console=to_console(machines.console, machines.host),
        policy=to_policy(machines.policy),
        limits=to_limits(machines.disturbance),
        reserves=to_reserves(machines.admission),
        count=machines.count,
        limit=limit,
        cluster=cluster,
        seed=seed if isinstance(seed, int) else None,
        repeat=config.repeat,
        report=config.report,
        expected=to_expectations(config.expected),
        reuse=Path(config.reuse) if config.reuse is not None else None,
    )


def _cluster(config: DictConfig) -> ClusterPlan | None:
    machines = config.machines
    node, key = machines.cluster, "machines.cluster"
    if not node.dask:
        return None
    check_cluster(machines, reuse=config.reuse is not None)
    return ClusterPlan(
        make=_made(node.dask, f"{key}.dask", call=False),
        per_computer=machines.limit,
        guests_per_worker=node.guests_per_worker,
        patience_s=node.patience_s,
        answer_s=node.answer_s,
        silence_s=node.silence_s,
        checked_share=node.checked_share,
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
        if key == "machines.cluster.dask" and _is_missing(node["_target_"]):
            raise UsageError(
                f"{node['_target_']} is not installed",
                where=key,
                next_step="pip install 'rtfleet[cluster]', on every computer; or machines/cluster=none",
            ) from exc
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        what = next(iter(str(cause or exc).splitlines()), "")
        raise UsageError(
            f"{node['_target_']} cannot be made: {type(cause or exc).__name__}: {what}",
            where=key,
            next_step="check the name in _target_ (is its module on PYTHONPATH?) and the arguments beside it",
        ) from exc


def _is_missing(target: str) -> bool:
    return importlib.util.find_spec(target.partition(".")[0]) is None


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
                next_step="only tasksets, monitors, session and cluster.dask name a class: make the rest in there, from values",
            )
        _refuse_code(one, name)


def located(error: RunnerError, key: str) -> RunnerError:
    """The same error, with the full name of its key."""
    where = error.where if error.where.startswith(key) else f"{key}.{error.where}".rstrip(".")
    relative = error.where != where and error.what.startswith(f"{error.where} ")
    what = f"{key}.{error.what}" if relative else error.what
    next_step = error.next_step or f"python -m runner --cfg job --package {key} shows what is set"
    return type(error)(what, where=where, next_step=next_step, evidence=error.evidence)
