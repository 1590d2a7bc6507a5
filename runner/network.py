"""Where each machine is on a bridge: its card, its tap, its address; nothing here touches the computer's network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError

from runner.errors import UsageError
from runner.specs import NetworkKind, NetworkSpec
from runner.text.excerpt import excerpt

KEY = "machines.network"
#: A machine's number is the last byte of its card's address.
MAX_ATTACHED = 255
# linux/if.h: IFNAMSIZ, less the NUL.
_NAME_CHARS = 15
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAC_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){4}")
_NUMBER = re.compile(r"[1-9][0-9]*$")
_PREFIX_BITS = range(8, 31)


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """One machine's place on the bridge.

    Attributes:
        number: The machine's: 1, 2 …
        tap: The tap device that leads to it.
        mac: Its card's address, by which the DHCP server knows it.
        address: What that gives it.
    """

    number: int
    tap: str
    mac: str
    address: IPv4Address

    @property
    def lease(self) -> str:
        """What dnsmasq is to reserve for it, for ever: a guest that was told once need not ask again."""
        return f"{self.mac},{self.address},infinite"


@dataclass(frozen=True, kw_only=True)
class BridgePlan:
    """A bridge and all that is attached to it; free of contradictions.

    Attributes:
        bridge: Its name.
        address: Its own address, and how large its network is.
        interface: A physical interface that belongs to it; None: none.
        attachments: Of machine 1, 2 …
    """

    bridge: str
    address: IPv4Interface
    interface: str | None
    attachments: tuple[Attachment, ...]

    @property
    def mac(self) -> str:
        """The bridge's own; otherwise it would change with what is attached."""
        return f"{self.attachments[0].mac[:-2]}00"

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps' names, of machine 1 first."""
        return tuple(one.tap for one in self.attachments)


def plan_bridge(spec: NetworkSpec, n_machines: int) -> BridgePlan:
    """The bridge for machines 1 … `n_machines`.

    Guarantees: every address is its machine's alone, belongs to the bridge's network, and is neither the bridge's own, nor the
    network's, nor its broadcast address; the same holds for card addresses and names of interfaces.

    Raises:
        UsageError: the settings contradict each other, or the number of machines; names the key.
    """
    if n_machines > MAX_ATTACHED:
        raise _wrong(
            "mac_prefix",
            f"{n_machines} machines do not fit: each one's number is the last byte of its card's address",
            f"set machines.limit to {MAX_ATTACHED} at most",
        )
    address = _bridge_address(spec.address)
    first = _first_host(spec.first_host, address, n_machines)
    _check_mac_prefix(spec.mac_prefix)
    _check_names(spec, n_machines)
    return BridgePlan(
        bridge=spec.bridge,
        address=address,
        interface=spec.interface,
        attachments=tuple(
            Attachment(
                number=number,
                tap=f"{spec.tap_prefix}{number}",
                mac=f"{spec.mac_prefix}:{number:02x}",
                address=first + (number - 1),
            )
            for number in range(1, n_machines + 1)
        ),
    )


def machine_number(name: str) -> int:
    """The number at the end of a machine's name: 1, 2 …; 1 for a name without one."""
    found = _NUMBER.search(name)
    return 1 if found is None else int(found[0])


def attachment(spec: NetworkSpec, number: int) -> Attachment | None:
    """The place of one machine; None where it has a network of its own.

    Raises:
        UsageError: as `plan_bridge`.
    """
    if spec.kind is NetworkKind.USER:
        return None
    return plan_bridge(spec, number).attachments[number - 1]


def _bridge_address(text: str) -> IPv4Interface:
    plain, slash, bits = text.partition("/")
    try:
        address = IPv4Interface(text)
    except (AddressValueError, NetmaskValueError):
        address = None
    if address is None or not slash or not (bits.isascii() and bits.isdigit()):
        raise _wrong(
            "address", f"{excerpt(text)} is no IPv4 address with its prefix", "write it as 10.200.40.1/21"
        )
    if address.network.prefixlen not in _PREFIX_BITS:
        raise _wrong(
            "address",
            f"{excerpt(text)}: a network of /{bits} holds no bridge with machines",
            f"choose a prefix of /{_PREFIX_BITS[0]} … /{_PREFIX_BITS[-1]}",
        )
    if (
        address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or int(address.network[0]) >> 24 in (0, 255)
    ):
        raise _wrong(
            "address",
            f"{plain} is no address that a computer could have",
            "choose a private one, as 10.200.40.1/21",
        )
    if address.ip in (address.network[0], address.network[-1]):
        raise _wrong(
            "address",
            f"{plain} is the network's own or its broadcast address, and no computer's",
            f"choose one between {address.network[1]} and {address.network[-2]}",
        )
    return address


def _first_host(text: str, bridge: IPv4Interface, n_machines: int) -> IPv4Address:
    try:
        first = IPv4Address(text)
    except AddressValueError:
        raise _wrong("first_host", f"{excerpt(text)} is no IPv4 address", "write it as 10.200.45.1") from None
    hosts = bridge.network
    lowest, highest = hosts[1], hosts[-2]
    if not lowest <= first <= highest:
        raise _wrong(
            "first_host",
            f"{first} is no computer's address in the bridge's network {hosts}",
            f"choose one between {lowest} and {highest}, or correct {KEY}.address",
        )
    n_free = int(highest) - int(first) + 1
    if n_machines > n_free:
        raise _wrong(
            "first_host",
            f"from {first} on, {hosts} has addresses for {n_free} machines, not for {n_machines}",
            "choose a lower first_host or a larger network, or lower machines.limit",
        )
    if first <= bridge.ip < first + n_machines:
        raise _wrong(
            "first_host",
            f"machine {int(bridge.ip) - int(first) + 1} would have the bridge's own address {bridge.ip}",
            f"choose a first_host beyond it, or another {KEY}.address",
        )
    return first


def _check_mac_prefix(prefix: str) -> None:
    if not _MAC_PREFIX.fullmatch(prefix):
        raise _wrong(
            "mac_prefix",
            f"{excerpt(prefix)} is not the first five bytes of a card's address",
            'write them in small hexadecimal digits: "0a:06:00:00:00"',
        )
    first = int(prefix[:2], 16)
    if first & 1:
        raise _wrong(
            "mac_prefix",
            f"{prefix} begins the address of a group, not of a card",
            "make the first byte even: 0a",
        )


def _check_names(spec: NetworkSpec, n_machines: int) -> None:
    last_tap = f"{spec.tap_prefix}{n_machines}"
    for key, name in (("bridge", spec.bridge), ("tap_prefix", last_tap), ("interface", spec.interface)):
        if name is None:
            continue
        if not _NAME.fullmatch(name):
            raise _wrong(
                key,
                f"{excerpt(name)} is no name of an interface",
                "use letters, digits, '_', '-' and '.', a letter or digit first",
            )
        if len(name) > _NAME_CHARS:
            raise _wrong(
                key,
                f"{excerpt(name)} is longer than an interface's name can be",
                f"use {_NAME_CHARS} characters at most",
            )
    taps = {f"{spec.tap_prefix}{number}" for number in range(1, n_machines + 1)}
    for key, name in (("bridge", spec.bridge), ("interface", spec.interface)):
        if name in taps or name == "lo":
            raise _wrong(key, f"{name} is another interface's name", "choose another one")
    if spec.interface == spec.bridge:
        raise _wrong(
            "interface", f"{spec.interface} is the bridge's own name", "name a physical interface, or null"
        )


def _wrong(key: str, what: str, next_step: str) -> UsageError:
    return UsageError(f"{KEY}.{key}: {what}", where=f"{KEY}.{key}", next_step=next_step)
