"""The one way from a composed config to the frozen plan of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
from runner.config.making import made
from runner.disturbance import DisturbanceLimits
from runner.errors import UsageError
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


def to_plan(config: DictConfig, *, known: RunPlan | None = None, changed: Collection[str] = ()) -> RunPlan:
    """The frozen plan of a composed config.

    Args:
        known: The plan of a config that differs from this one in no other top-level sections than `changed`: what the rest
            comes to is taken over from it.

    Raises:
        UsageError: when a value is missing, or values contradict each other; names the key in full.
        OmegaConfBaseException: when a value refers to a key that is not there.
    """
    sections = {str(key) for key in config} if known is None else set(changed)
    _check_keys(config, sections)
    if not 1 <= config.repeat <= MAX_REPEAT:
        raise UsageError(
            f"repeat is {excerpt(config.repeat)}",
            where="repeat",
            next_step=f"choose 1 … {MAX_REPEAT} measurements of each set",
        )
    parts: dict[str, Any] = {"repeat": config.repeat, "report": config.report}
    if sections & {"machines", "reuse"}:  # a cluster and an earlier run do not go together
        parts |= _machines(config)
        parts["reuse"] = Path(config.reuse) if config.reuse is not None else None
    if "tasksets" in sections:
        parts["tasksets"] = made(config.tasksets, "tasksets")
        seed = config.tasksets.get("seed")
        parts["seed"] = seed if isinstance(seed, int) else None
    if "monitors" in sections:
        parts["monitors"] = {
            str(name): made(node, f"monitors.{name}") for name, node in config.monitors.items()
        }
    if "expected" in sections:
        parts["expected"] = to_expectations(config.expected)
    return RunPlan(**parts) if known is None else replace(known, **parts)


def _machines(config: DictConfig) -> dict[str, Any]:
    """What `machines` comes to in a plan."""
    machines = config.machines
    cluster = _cluster(config)
    # With a cluster the limit is each computer's; what the workers can hold bounds the fleet.
    limit = machines.limit if cluster is None else MAX_MACHINES
    check_counts(machines.count, limit)
    if machines.host not in _HOSTS:
        raise UsageError(
            f"machines.host is {excerpt(machines.host)}", next_step=f"choose one of: {', '.join(_HOSTS)}"
        )
    open_session = made(machines.session, "machines.session", call=False)
    network = to_network(machines)
    # A session that says nothing, or is made by a function, has the guest's network to talk through.
    reach = getattr(open_session.func, "reach", Reach.SSH)
    return {
        "open_session": open_session,
        "qemu": to_qemu(machines.qemu, reach, network) if machines.host == "qemu" else None,
        "genode": to_genode(machines.genode, network) if machines.host == "genode_pbxa9" else None,
        "boards": to_boards(machines.board) if machines.host == "genode_board" else None,
        "reset": to_reset(machines),
        "console": to_console(machines.console, machines.host),
        "policy": to_policy(machines.policy),
        "limits": to_limits(machines.disturbance),
        "reserves": to_reserves(machines.admission),
        "count": machines.count,
        "limit": limit,
        "cluster": cluster,
    }


def _cluster(config: DictConfig) -> ClusterPlan | None:
    machines = config.machines
    node, key = machines.cluster, "machines.cluster"
    if not node.dask:
        return None
    check_cluster(machines, reuse=config.reuse is not None)
    return ClusterPlan(
        make=made(node.dask, f"{key}.dask", call=False),
        per_computer=machines.limit,
        guests_per_worker=node.guests_per_worker,
        patience_s=node.patience_s,
        answer_s=node.answer_s,
        silence_s=node.silence_s,
        checked_share=node.checked_share,
    )


def _check_keys(config: DictConfig, sections: Collection[str]) -> None:
    """Nothing is there in these sections that should not be, and everything has a value."""
    if len(sections) == len(config):
        _refuse_unknown(config, "")
        _check_sections(config)
        missing = sorted(map(str, OmegaConf.missing_keys(config)))
    else:
        missing = [section for section in sections if OmegaConf.is_missing(config, section)]
        nodes = {section: config[section] for section in sections if section not in missing}
        for section, node in nodes.items():
            if isinstance(node, DictConfig):
                _refuse_unknown(node, f"{section}.")
                missing += sorted(map(str, OmegaConf.missing_keys(node)))
        if not {"machines", "monitors", "expected"}.isdisjoint(sections):
            _check_sections(config)
    if missing:
        raise UsageError(f"{missing[0]} has no value", where=missing[0], next_step=f"set it: {missing[0]}=…")


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
