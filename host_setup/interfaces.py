"""The network interfaces that this computer has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any

from host_setup.command import run_command

_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One network interface.

    Attributes:
        name: Its name.
        index: Its number, which no later interface is given.
        kind: `bridge`, `tun`, …; empty for physical ones.
        up: Whether it was switched on.
        carrier: Whether something is at its other end: of a tap, a process that has it open.
        master: The bridge that it belongs to; empty: none.
        addresses: Its IPv4 addresses.
        owner: Of a tap, the user's name or number who may open it; empty: root alone.
    """

    name: str
    index: int
    kind: str = ""
    up: bool = False
    carrier: bool = False
    master: str = ""
    addresses: tuple[IPv4Interface, ...] = ()
    owner: str = ""


def interfaces() -> dict[str, Interface]:
    """All interfaces of this network namespace, by name.

    Raises:
        HostError: `ip` (iproute2) is missing, or failed.
    """
    listing = run_command(
        ["ip", "-details", "-json", "address", "show"],
        doing="looking at this computer's network",
        timeout_s=_TIMEOUT_S,
        next_step="python -m host_setup packages --bridge",
    )
    return {one.name: one for one in map(_interface, json.loads(listing)) if one.name}


def _interface(row: Mapping[str, Any]) -> Interface:
    link = row.get("linkinfo", {})
    flags = row.get("flags", ())
    return Interface(
        name=row.get("ifname", ""),
        index=row.get("ifindex", 0),
        kind=link.get("info_kind", ""),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        master=row.get("master", ""),
        addresses=tuple(
            IPv4Interface(f"{one['local']}/{one['prefixlen']}")
            for one in row.get("addr_info", ())
            if one.get("family") == "inet"
        ),
        owner=str(link.get("info_data", {}).get("user", "")),
    )
