"""What is to be done for a bridge, and to undo it, given what is there; no network is touched."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

import pytest

from host_setup.interfaces import Interface
from host_setup.network_record import Kind, Made
from host_setup.network_steps import creation, removal
from runner.errors import HostError
from runner.network import plan_bridge
from runner.specs import NetworkKind, NetworkSpec

ADDRESS = IPv4Interface("10.200.40.1/21")
BRIDGE = Interface(name="br0", index=2, kind="bridge", up=True, addresses=(ADDRESS,))
TAP = Interface(name="rtfleet1", index=3, kind="tun", up=True, master="br0", owner="somebody")


def steps(*there: Interface, n_machines: int = 1, **settings: Any) -> list[str]:
    plan = plan_bridge(NetworkSpec(kind=NetworkKind.BRIDGE, **settings), n_machines)
    parts = creation(plan, {one.name: one for one in there}, "somebody", 1000)
    return [" ".join(step.command) for part in parts for step in part.steps]


def undone(made: list[Made], *there: Interface) -> list[str]:
    return [" ".join(step.command) for step in removal(made, {one.name: one for one in there})]


def changed(interface: Interface, **values: Any) -> Interface:
    return Interface(**{**vars(interface), **values})


def test_nothing_is_there():
    assert steps() == [
        "ip link add name br0 address 0a:06:00:00:00:00 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "ip link set dev br0 addrgenmode none",
        "ip address add 10.200.40.1/21 broadcast + dev br0",
        "ip link set dev br0 up",
        "ip tuntap add dev rtfleet1 mode tap user somebody",
        "ip link set dev rtfleet1 master br0 addrgenmode none up",
    ]


def test_all_is_there():
    assert steps(BRIDGE, TAP) == []
    assert steps(BRIDGE, changed(TAP, owner="1000")) == []


def test_bridge_of_the_users_is_joined():
    assert steps(changed(BRIDGE, up=False, addresses=(IPv4Interface("192.0.2.1/24"),)), TAP) == [
        "ip address add 10.200.40.1/21 broadcast + dev br0",
        "ip link set dev br0 up",
    ]


def test_interface_is_added():
    assert steps(BRIDGE, TAP, Interface(name="eth1", index=9), interface="eth1") == [
        "ip link set dev eth1 master br0",
        "ip link set dev eth1 up",
    ]
    assert steps(BRIDGE, TAP, Interface(name="eth1", index=9, up=True, master="br0"), interface="eth1") == []


def test_tap_of_the_users_is_joined_and_stays() -> None:
    plan = plan_bridge(NetworkSpec(kind=NetworkKind.BRIDGE), 1)
    theirs = changed(TAP, master="", up=False)
    parts = creation(plan, {"br0": BRIDGE, "rtfleet1": theirs}, "somebody", 1000)
    made = [step.makes for part in parts for step in part.steps if step.makes is not None]
    assert undone(made, BRIDGE, TAP) == [
        "ip link set dev rtfleet1 nomaster",
        "ip link set dev rtfleet1 down",
    ]


@pytest.mark.parametrize(
    ("there", "settings", "key"),
    [
        ([changed(BRIDGE, kind="")], {}, "bridge"),
        ([changed(BRIDGE, addresses=(IPv4Interface("10.200.41.1/24"),))], {}, "address"),
        ([Interface(name="eth0", index=9, addresses=(IPv4Interface("10.0.0.1/8"),))], {}, "address"),
        ([BRIDGE, changed(TAP, kind="veth")], {}, "tap_prefix"),
        ([BRIDGE, changed(TAP, owner="another")], {}, "tap_prefix"),
        ([BRIDGE, changed(TAP, owner="")], {}, "tap_prefix"),
        ([BRIDGE, changed(TAP, master="br1")], {}, "tap_prefix"),
        ([BRIDGE, TAP], {"interface": "eth1"}, "interface"),
        ([BRIDGE, TAP, Interface(name="eth1", index=9, master="bond0")], {"interface": "eth1"}, "interface"),
        (
            [BRIDGE, TAP, Interface(name="eth1", index=9, addresses=(IPv4Interface("192.0.2.1/24"),))],
            {"interface": "eth1"},
            "interface",
        ),
    ],
)
def test_what_is_in_the_way_is_told(there, settings, key):
    with pytest.raises(HostError) as caught:
        steps(*there, **settings)
    assert caught.value.where == f"machines.network.{key}"


def test_what_was_made_is_undone_and_nothing_else():
    eth1 = Interface(name="eth1", index=9, up=True, master="br0")
    made = [
        Made(Kind.ADDRESS, "br0", 2, "10.200.40.1/21"),
        Made(Kind.TAP, "rtfleet1", 3),
        Made(Kind.PORT, "eth1", 9, "br0"),
        Made(Kind.UP, "eth1", 9),
    ]
    assert undone(made, BRIDGE, TAP, eth1) == [
        "ip link set dev eth1 nomaster",
        "ip link set dev eth1 down",
        "ip tuntap delete dev rtfleet1 mode tap",
        "ip address delete 10.200.40.1/21 dev br0",
    ]
    assert undone([Made(Kind.BRIDGE, "br0", 2)], BRIDGE, TAP) == ["ip link delete dev br0 type bridge"]


def test_what_others_have_changed_since_is_theirs():
    made = [Made(Kind.BRIDGE, "br0", 2), Made(Kind.TAP, "rtfleet1", 3), Made(Kind.PORT, "eth1", 9, "br0")]
    assert undone(made) == []
    there = [changed(BRIDGE, index=12), changed(TAP, index=13), Interface(name="eth1", index=9, master="br1")]
    assert undone(made, *there) == []


def test_what_may_have_been_made_when_the_program_was_ended_is_undone():
    assert undone([Made(Kind.TAP, "rtfleet1")], TAP) == ["ip tuntap delete dev rtfleet1 mode tap"]


def test_taps_in_use_stay():
    with pytest.raises(HostError, match="still uses the tap rtfleet1"):
        undone(
            [Made(Kind.BRIDGE, "br0", 2), Made(Kind.TAP, "rtfleet1", 3)], BRIDGE, changed(TAP, carrier=True)
        )
