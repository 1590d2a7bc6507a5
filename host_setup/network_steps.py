"""What is to be done for a bridge, and to undo it: pure functions of what is wanted and what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from host_setup.interfaces import Interface
from host_setup.network_record import Kind, Made
from runner.errors import HostError
from runner.network import BridgePlan


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        command: Its words.
        makes: What it makes, of which `network remove` is to know; None: nothing that outlives what was made before.
    """

    command: tuple[str, ...]
    makes: Made | None = None


@dataclass(frozen=True)
class Part:
    """One part of the network.

    Attributes:
        name: What it is.
        there: What was found, where nothing is to be done.
        steps: What is to be done; none if it is as it should be.
    """

    name: str
    there: str
    steps: tuple[Step, ...]


def creation(plan: BridgePlan, seen: Mapping[str, Interface], owner: str, owner_uid: int) -> Iterator[Part]:
    """The parts of the network but for its DHCP server, each with what it lacks, in the order in which that is to be done.

    What is there already is used as it is, whoever made it.

    Args:
        owner: The user who is to open the taps.

    Raises:
        HostError: something is in the way: an interface of another kind under one of the names, an address taken.
    """
    yield _bridge(plan, seen)
    for name in plan.taps:
        yield _tap(plan.bridge, name, seen.get(name), owner, owner_uid)
    if plan.interface is not None:
        yield _port(plan.bridge, plan.interface, seen)


def _bridge(plan: BridgePlan, seen: Mapping[str, Interface]) -> Part:
    name, address = plan.bridge, str(plan.address)
    for other in seen.values():
        for taken in other.addresses:
            if other.name != name and taken.network.overlaps(plan.address.network):
                raise _obstacle(
                    f"{other.name} has the address {taken}, whose network overlaps with the bridge's {plan.address.network}",
                    "address",
                )
            if other.name == name and taken != plan.address and taken.network.overlaps(plan.address.network):
                raise _obstacle(f"the bridge {name} has the address {taken} already", "address", f"{taken}")
    there = seen.get(name)
    switch_on = ("ip", "link", "set", "dev", name, "up")
    give = ("ip", "address", "add", address, "broadcast", "+", "dev", name)
    if there is None:
        # No spanning tree, no delay: a guest's first packet arrives. A fixed address: guests remember it.
        form = ("type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
        made = (
            Step(("ip", "link", "add", "name", name, "address", plan.mac, *form), Made(Kind.BRIDGE, name)),
            # It speaks no IPv6, of which guests would hear at times of the host's.
            Step(("ip", "link", "set", "dev", name, "addrgenmode", "none")),
            Step(give),
            Step(switch_on),
        )
        return Part(f"bridge {name}", "", made)
    if there.kind != "bridge":
        raise _obstacle(f"there is an interface {name}, which is no bridge", "bridge")
    steps: tuple[Step, ...] = ()
    if plan.address not in there.addresses:
        steps += (Step(give, Made(Kind.ADDRESS, name, there.index, address)),)
    if not there.up:
        steps += (Step(switch_on, Made(Kind.UP, name, there.index)),)
    return Part(f"bridge {name}", f"is there and has {address}", steps)


def _tap(bridge: str, name: str, there: Interface | None, owner: str, owner_uid: int) -> Part:
    if there is None:
        make = Step(("ip", "tuntap", "add", "dev", name, "mode", "tap", "user", owner), Made(Kind.TAP, name))
        attach = Step(("ip", "link", "set", "dev", name, "master", bridge, "addrgenmode", "none", "up"))
        return Part(f"tap {name}", "", (make, attach))
    if there.kind != "tun":
        raise _obstacle(f"there is an interface {name}, which is no tap", "tap_prefix")
    if there.owner not in (owner, str(owner_uid)):
        raise _obstacle(
            f"the tap {name} belongs to {there.owner or 'nobody in particular'}, not to {owner}", "tap_prefix"
        )
    if there.master not in ("", bridge):
        raise _obstacle(f"the tap {name} belongs to the bridge {there.master}", "tap_prefix")
    return Part(f"tap {name}", f"is there, belongs to {owner} and to {bridge}", _joining(bridge, there))


def _port(bridge: str, name: str, seen: Mapping[str, Interface]) -> Part:
    there = seen.get(name)
    if there is None:
        raise _obstacle(f"there is no interface {name}", "interface")
    if there.master not in ("", bridge):
        raise _obstacle(f"{name} belongs to {there.master} already", "interface")
    if not there.master and there.addresses:
        raise _obstacle(
            f"{name} has the address {there.addresses[0]}, which this computer would lose: a bridge's ports have none",
            "interface",
        )
    return Part(f"interface {name}", f"belongs to {bridge}", _joining(bridge, there))


def _joining(bridge: str, there: Interface) -> tuple[Step, ...]:
    """An interface that is there, whosever it is, becomes the bridge's, and does not stay so."""
    name = there.name
    steps: tuple[Step, ...] = ()
    if there.master != bridge:
        add = ("ip", "link", "set", "dev", name, "master", bridge)
        steps += (Step(add, Made(Kind.PORT, name, there.index, bridge)),)
    if not there.up:
        steps += (Step(("ip", "link", "set", "dev", name, "up"), Made(Kind.UP, name, there.index)),)
    return steps


def removal(made: Iterable[Made], seen: Mapping[str, Interface]) -> list[Step]:
    """What undoes what was made and is still there, the other way round.

    Raises:
        HostError: a machine still uses its tap.
    """
    kept = [one for one in reversed(tuple(made)) if _is_same(one, seen)]
    for one in kept:
        if one.kind is Kind.TAP and seen[one.name].carrier:
            raise HostError(
                f"a machine still uses the tap {one.name}; nothing was removed",
                next_step="end the run first: set `state: kill` in its control file, or press Ctrl-C",
            )
    return [Step(_undoing(one), one) for one in sorted(kept, key=lambda one: list(Kind).index(one.kind))]


def _is_same(one: Made, seen: Mapping[str, Interface]) -> bool:
    """Whether what was made is there, and not another of the same name, nor changed by others since."""
    there = seen.get(one.name)
    if there is None or one.index not in (None, there.index):
        return False
    match one.kind:
        case Kind.BRIDGE:
            return there.kind == "bridge"
        case Kind.TAP:
            return there.kind == "tun"
        case Kind.PORT:
            return there.master == one.value
        case Kind.ADDRESS:
            return one.value in map(str, there.addresses)
        case Kind.UP:
            return there.up


def _undoing(one: Made) -> tuple[str, ...]:
    match one.kind:
        case Kind.BRIDGE:
            return ("ip", "link", "delete", "dev", one.name, "type", "bridge")
        case Kind.TAP:
            return ("ip", "tuntap", "delete", "dev", one.name, "mode", "tap")
        case Kind.PORT:
            return ("ip", "link", "set", "dev", one.name, "nomaster")
        case Kind.ADDRESS:
            return ("ip", "address", "delete", one.value, "dev", one.name)
        case Kind.UP:
            return ("ip", "link", "set", "dev", one.name, "down")


def _obstacle(what: str, key: str, value: str = "…") -> HostError:
    return HostError(
        what,
        where=f"machines.network.{key}",
        next_step=f"choose another one (machines.network.{key}={value}), or remove what is in the way",
    )
