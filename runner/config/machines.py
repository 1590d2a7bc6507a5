"""From the config's `machines` to the frozen specs of hosts, each value checked, and the values against each other."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from runner.admission.capacity import Reserves
from runner.deadline import MAX_BUDGET_S
from runner.disturbance import DisturbanceLimits
from runner.errors import UsageError
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
from runner.text.excerpt import excerpt

MAX_MACHINES = 1000


def check_counts(count: int, limit: int) -> None:
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


def check_cluster(machines: DictConfig, *, reuse: bool) -> None:
    """Refuse what only one computer can have.

    Raises:
        UsageError: names the key in full.
    """
    cluster = machines.cluster
    if cluster.guests_per_worker is not None:
        _require_positive(cluster.guests_per_worker, "machines.cluster.guests_per_worker")
    for name in ("patience_s", "answer_s", "silence_s"):
        _require_positive(cluster[name], f"machines.cluster.{name}")
    _check_share(machines)
    for key, is_there, what in (
        ("machines.host", machines.host == "genode_board", "boards are nobody's in particular"),
        ("machines.host", machines.host == "genode_pbxa9", "a Genode image is not sent"),
        (
            "machines.network",
            machines.network.kind == NetworkKind.BRIDGE,
            "addresses on a bridge are one computer's",
        ),
        ("machines.console", machines.console == Console.SCREEN, "consoles are shown on this computer"),
        ("reuse", reuse, "what an earlier run measured is looked up on one computer only"),
    ):
        if is_there:
            raise UsageError(
                f"{key} does not go with a cluster: {what}", where=key, next_step="set machines/cluster=none"
            )


def _check_share(machines: DictConfig) -> None:
    key, share = "machines.cluster.checked_share", machines.cluster.checked_share
    if not 0 <= share <= 1:
        raise UsageError(
            f"{key} is {excerpt(share)}", where=key, next_step="choose 0 … 1: 0.01 for every 100th"
        )
    if not share:
        return
    on_guests = machines.host == "qemu"
    if machines.host == "none" or (
        on_guests and machines.qemu.clock == Clock.ICOUNT and machines.reset == Reset.TASKSET
    ):
        return
    raise UsageError(
        f"{key} is {share}, but these measurements do not repeat from one computer to another",
        where=key,
        next_step="measure in the exact mode, each set on a fresh guest (machines=default), or set it to 0",
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
        check_counts(machines.count, machines.limit)
        plan_bridge(spec, machines.limit)
    return spec


def to_reset(machines: DictConfig) -> Reset:
    reset = member_of(Reset, machines.reset, "machines.reset")
    bridged = machines.host in ("qemu", "genode_pbxa9") and machines.network.kind == NetworkKind.BRIDGE
    if reset is Reset.TASKSET and bridged:
        raise UsageError(
            "machines.reset is taskset, for which a machine has a second guest made ready: on a bridge both would have one address",
            where="machines.reset",
            next_step="set machines.reset=machine, or machines/network=user",
        )
    return reset


def to_qemu(config: DictConfig, reach: Reach, network: NetworkSpec) -> QemuSpec:
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


def to_genode(config: DictConfig, network: NetworkSpec) -> GenodeSpec:
    values = {str(key): value for key, value in config.items()}
    if values["image"] is None:
        raise UsageError(
            "machines.genode.image has no value",
            where="machines.genode.image",
            next_step="name the image.elf that your Genode build made",
        )
    values["image"] = Path(values["image"]).absolute()
    values["clock"] = member_of(Clock, values["clock"], "machines.genode.clock")
    return GenodeSpec(**values, network=network)


def to_boards(config: DictConfig) -> BoardSpec:
    _require_positive(config.power_timeout_s, "machines.board.power_timeout_s")
    if config.vcpus is not None:
        _require_positive(config.vcpus, "machines.board.vcpus")
    return BoardSpec(
        addresses=tuple(config.addresses),
        power=tuple(config.power),
        power_timeout_s=config.power_timeout_s,
        vcpus=config.vcpus,
    )


def to_console(value: str, host: str) -> Console:
    console = member_of(Console, value, "machines.console")
    if console is Console.SCREEN and host not in ("qemu", "genode_pbxa9"):
        raise UsageError(
            "machines.console is 'screen', but these machines have no console for it",
            where="machines.console",
            next_step="set machines.console=pty, or choose machines that QEMU emulates",
        )
    return console


def to_policy(config: DictConfig) -> MachinePolicy:
    values = {str(key): value for key, value in config.items()}
    for key, value in values.items():
        _require_positive(value, f"machines.policy.{key}")
    return MachinePolicy(**values)


def to_limits(config: DictConfig) -> DisturbanceLimits:
    return DisturbanceLimits(**_not_negative(config, "machines.disturbance"))


def to_reserves(config: DictConfig) -> Reserves:
    values = _not_negative(config, "machines.admission")
    limit = config.computer_limit
    if limit is not None and not 1 <= limit <= MAX_MACHINES:
        raise UsageError(
            f"machines.admission.computer_limit is {excerpt(limit)}",
            where="machines.admission.computer_limit",
            next_step=f"set 1 … {MAX_MACHINES}, or null for none",
        )
    return Reserves(
        memory_mib=values["memory_reserve_mib"],
        disk_mib=values["disk_reserve_mib"],
        computer_limit=limit,
    )


def _not_negative(config: DictConfig, key: str) -> dict[str, int]:
    values = {str(name): value for name, value in config.items()}
    for name, value in values.items():
        if value is not None and value < 0:
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
