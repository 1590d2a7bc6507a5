"""Machine N -> its place on the bridge, and every contradiction refused by the key's name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.network import MAX_ATTACHED, attachment, plan_bridge
from runner.specs import Clock, NetworkKind, NetworkSpec, QemuSpec
from tests.cli import run_cli


def bridge(**settings: Any) -> NetworkSpec:
    return NetworkSpec(kind=NetworkKind.BRIDGE, **settings)


def test_defaults_are_the_originals():
    plan = plan_bridge(bridge(), 3)
    assert (plan.bridge, str(plan.address), plan.mac) == ("br0", "10.200.40.1/21", "0a:06:00:00:00:00")
    assert [(one.tap, one.mac, str(one.address)) for one in plan.attachments] == [
        ("rtfleet1", "0a:06:00:00:00:01", "10.200.45.1"),
        ("rtfleet2", "0a:06:00:00:00:02", "10.200.45.2"),
        ("rtfleet3", "0a:06:00:00:00:03", "10.200.45.3"),
    ]
    assert plan.attachments[2].lease == "0a:06:00:00:00:03,10.200.45.3,infinite"


def test_most_machines_have_the_last_number_of_two_digits():
    assert plan_bridge(bridge(), MAX_ATTACHED).attachments[-1].mac == "0a:06:00:00:00:ff"


def test_machine_with_a_network_of_its_own_has_no_place():
    assert attachment(NetworkSpec(), 1) is None


def test_guest_that_others_can_reach_is_not_exact():
    assert QemuSpec(clock=Clock.ICOUNT).exact
    assert not QemuSpec(clock=Clock.ICOUNT, network=bridge()).exact


@pytest.mark.parametrize(
    ("key", "settings", "n_machines"),
    [
        ("mac_prefix", {}, 256),
        ("address", {"address": "10.200.40.1"}, 1),
        ("address", {"address": "10.200.40.1/33"}, 1),
        ("address", {"address": "10.200.40.1/31"}, 1),
        ("address", {"address": "10.200.40.1/0"}, 1),
        ("address", {"address": "10.200.40.1/255.255.248.0"}, 1),
        ("address", {"address": "10.200.40.1/-3"}, 1),
        ("address", {"address": "fe80::1/64"}, 1),
        ("address", {"address": "localhost/8"}, 1),
        ("address", {"address": "127.0.0.1/8"}, 1),
        ("address", {"address": "224.0.0.1/8"}, 1),
        ("address", {"address": "10.200.40.0/21"}, 1),
        ("address", {"address": "10.200.47.255/21"}, 1),
        ("first_host", {"first_host": "10.200.48.1"}, 1),
        ("first_host", {"first_host": "10.200.40.0"}, 1),
        ("first_host", {"first_host": "10.200.47.255"}, 1),
        ("first_host", {"first_host": "10.200.47.254"}, 2),
        ("first_host", {"first_host": "10.200.45"}, 1),
        ("first_host", {"first_host": "10.200.40.1"}, 1),
        ("first_host", {"address": "10.200.45.7/21"}, 7),
        ("mac_prefix", {"mac_prefix": "0a:06:00:00"}, 1),
        ("mac_prefix", {"mac_prefix": "0A:06:00:00:00"}, 1),
        ("mac_prefix", {"mac_prefix": "0b:06:00:00:00"}, 1),
        ("mac_prefix", {"mac_prefix": "0a:06:00:00:00\n"}, 1),
        ("bridge", {"bridge": "a-bridge-too-far"}, 1),
        ("bridge", {"bridge": "br 0"}, 1),
        ("bridge", {"bridge": "../br0"}, 1),
        ("bridge", {"bridge": ""}, 1),
        ("bridge", {"bridge": "-br0"}, 1),
        ("bridge", {"bridge": "lo"}, 1),
        ("bridge", {"bridge": "rtfleet2"}, 2),
        ("tap_prefix", {"tap_prefix": "machine-of-mine"}, 1),
        ("tap_prefix", {"tap_prefix": "machines-tap-"}, 100),
        ("tap_prefix", {"tap_prefix": "ä"}, 1),
        ("interface", {"interface": "rtfleet1"}, 1),
        ("interface", {"interface": "br0"}, 1),
        ("interface", {"interface": "eth0;reboot"}, 1),
    ],
)
def test_contradiction_names_its_key(key, settings, n_machines):
    with pytest.raises(UsageError) as caught:
        plan_bridge(bridge(**settings), n_machines)
    assert caught.value.where == f"machines.network.{key}"
    assert caught.value.next_step


@given(
    address=st.integers(0, 2**32 - 1).map(IPv4Address),
    bits=st.integers(0, 32),
    first=st.integers(-3, 300),
    n_machines=st.integers(1, 260),
)
def test_what_is_not_refused_is_without_contradiction(
    address: IPv4Address, bits: int, first: int, n_machines: int
):
    network = IPv4Network((address, bits), strict=False)
    first_host = IPv4Address((int(network.network_address) + first) % 2**32)
    spec = bridge(address=f"{address}/{bits}", first_host=str(first_host))
    try:
        plan = plan_bridge(spec, n_machines)
    except UsageError:
        return
    assert plan.address == IPv4Interface(f"{address}/{bits}")
    given_out = [one.address for one in plan.attachments]
    assert given_out[0] == first_host
    taken = {network.network_address, network.broadcast_address, address, *given_out}
    assert len(taken) == n_machines + 3
    assert all(one in network for one in taken)
    assert len({one.mac for one in plan.attachments} | {plan.mac}) == n_machines + 1
    assert [attachment(spec, one.number) for one in plan.attachments] == list(plan.attachments)


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_any_text_is_planned_or_refused(name: str, address: str, first: str, prefix: str, tap: str):
    for settings in (
        {"bridge": name},
        {"address": address},
        {"first_host": first},
        {"mac_prefix": prefix},
        {"tap_prefix": tap},
        {"interface": name},
    ):
        try:
            plan = plan_bridge(bridge(**settings), 2)
        except UsageError:
            continue
        for one in (plan.bridge, *plan.taps, *filter(None, [plan.interface])):
            assert len(one.encode()) <= 15
            assert one.isascii()
            assert not set(one) & set(" /:\n\0")


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["machines/network=bridge"], "machines.reset"),
        (
            ["machines=ssh", "machines/network=bridge", "machines.qemu.ssh_port=2222"],
            "machines.qemu.ssh_port",
        ),
        (["machines=ssh", "machines/network=bridge", "machines.limit=256"], "machines.network.mac_prefix"),
        (
            ["machines=ssh", "machines/network=bridge", "machines.qemu.genode_port=13001"],
            "machines.qemu.genode_port",
        ),
        (["machines.network.kind=nosuch"], "machines.network.kind"),
        (
            ["machines=simulation", "machines/network=bridge", "machines.network.address=10.200.40.0/21"],
            "machines.network.address",
        ),
        (["machines/network=bridge", "machines.network.bridg=br1"], "machines.network.bridg"),
    ],
)
def test_command_line_refuses_before_anything_runs(tmp_path, overrides, where):
    done = run_cli(tmp_path, *overrides)
    assert done.returncode == 2
    assert where in done.stderr
    assert "  next:  " in done.stderr
    assert not (tmp_path / "run" / "machines").exists()
