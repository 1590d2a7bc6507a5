"""`python -m host_setup network` in a network namespace of the test's own."""

from __future__ import annotations

import re
import sys

import pytest

from tests.cli import processes_of
from tests.network_faults import FAULTS
from tests.network_namespace import Namespace, new_namespace, why_none
from tests.qemu_guests import eventually

pytestmark = pytest.mark.skipif(bool(why_none()), reason=why_none())

TWO = "machines.limit=2"


@pytest.fixture
def here(tmp_path):
    with new_namespace(tmp_path) as namespace:
        yield namespace


def assert_no_trace(here: Namespace, *but: str) -> None:
    assert here.interfaces() == set(but)
    assert not here.runtime.exists()
    assert eventually(lambda: not processes_of(here.folder)), processes_of(here.folder)
    assert not here.pids()


def test_made_twice_and_removed_twice(here):
    for _ in range(2):
        done = here.network("create", TWO)
        assert done.returncode == 0, done.stderr
        assert here.interfaces() == {"br0", "rtfleet1", "rtfleet2"}
        assert len(here.pids()) == 1
    assert "10.200.40.1/21" in here.ip("address", "show", "dev", "br0")
    assert here.network("check", TWO).returncode == 0
    for _ in range(2):
        done = here.network("remove", TWO)
        assert done.returncode == 0, done.stderr
        assert_no_trace(here)


def test_more_machines_later(here):
    assert here.network("create", TWO).returncode == 0
    done = here.network("check", "machines.limit=3")
    assert done.returncode == 4
    missing = [line for line in done.stdout.splitlines() if line.startswith("missing")]
    assert missing == ["missing  tap rtfleet3: is not ready", "missing  DHCP server: is not ready"]
    # Both by hand and by the command that it names; root needs no sudo.
    by_hand = here.network("create", "--dry-run", "machines.limit=3").stdout
    assert "dnsmasq" in by_hand
    mend = re.search(r"not ready; what makes it: sudo (.+)$", done.stdout, re.M)
    assert mend is not None
    assert here.run("sh", "-c", mend[1]).returncode == 0
    assert here.network("check", "machines.limit=3").returncode == 0
    assert len(here.pids()) == 1
    assert here.network("remove").returncode == 0
    assert_no_trace(here)


def test_bridge_of_the_users_is_joined_and_stays(here):
    here.ip("link", "add", "name", "br0", "type", "bridge")
    here.ip("address", "add", "192.0.2.1/24", "dev", "br0")
    here.ip("link", "add", "name", "eth7", "type", "veth", "peer", "name", "eth8")
    before = here.ip("-brief", "address", "show", "dev", "br0").split()
    assert here.network("create", TWO, "machines.network.interface=eth7").returncode == 0
    assert here.interfaces() == {"br0", "rtfleet1", "rtfleet2", "eth7", "eth8"}
    assert "master br0" in here.ip("link", "show", "dev", "eth7")
    assert here.network("remove").returncode == 0
    assert_no_trace(here, "br0", "eth7", "eth8")
    assert here.ip("-brief", "address", "show", "dev", "br0").split() == before
    assert "master" not in here.ip("link", "show", "dev", "eth7")
    assert ",UP" not in here.ip("link", "show", "dev", "eth7")


def test_dry_run_prints_exactly_what_makes_it(here):
    done = here.network("create", "--dry-run", TWO)
    assert done.returncode == 0, done.stderr
    assert here.interfaces() == set()
    assert not here.runtime.exists()
    made = here.run("sh", "-e", "-c", done.stdout)
    assert made.returncode == 0, made.stderr
    assert here.network("check", TWO).returncode == 0
    assert here.network("create", "--dry-run", TWO).stdout == ""


def test_dry_run_of_removal_prints_exactly_what_removes_it(here):
    assert here.network("create", TWO).returncode == 0
    done = here.network("remove", "--dry-run", TWO)
    assert here.interfaces() == {"br0", "rtfleet1", "rtfleet2"}
    assert here.run("sh", "-e", "-c", done.stdout).returncode == 0
    assert_no_trace(here)


def test_what_is_in_the_way_is_found_before_anything_is_touched(here):
    here.ip("tuntap", "add", "dev", "rtfleet2", "mode", "tap", "user", "root")
    done = here.network("create", TWO)
    assert done.returncode == 4
    assert "the tap rtfleet2 belongs to" in done.stderr
    assert here.interfaces() == {"rtfleet2"}
    assert here.network("remove").returncode == 0
    assert_no_trace(here, "rtfleet2")


def test_what_was_made_when_it_failed_is_recorded(here):
    """Its DHCP server finds the port taken: the bridge and the taps are there, and remove undoes them."""
    other = ["dnsmasq", "--conf-file=/dev/null", "--port=0", "--dhcp-range=192.0.2.1,static"]
    own = [f"--pid-file={here.folder}/other.pid", f"--dhcp-leasefile={here.folder}/other.leases"]
    here.ip("address", "add", "192.0.2.1/24", "dev", "lo")
    assert here.run(*other, *own).returncode == 0
    done = here.network("create", TWO)
    assert done.returncode == 4
    assert "dnsmasq" in done.stderr
    assert here.interfaces() == {"br0", "rtfleet1", "rtfleet2"}
    assert here.network("remove").returncode == 0
    assert here.interfaces() == set()
    assert not here.runtime.exists()


@pytest.mark.parametrize("theirs", ["nothing", "a bridge"])
def test_a_failure_at_each_step_leaves_what_remove_undoes(here: Namespace, theirs: str) -> None:
    """Also an interruption, and a death: before the command has had its effect, and after it."""
    n_commands = 11
    if theirs == "a bridge":
        here.ip("link", "add", "name", "br0", "type", "bridge")
        made_as = here.network("create", "--dry-run", TWO).stdout
        tap = re.search(r"^ip (tuntap add dev rtfleet1 .+)$", made_as, re.M)
        assert tap is not None
        here.ip(*tap[1].split())
        n_commands = 9
    here.ip("link", "add", "name", "eth7", "type", "veth", "peer", "name", "eth8")
    before = here.interfaces()
    folder = here.folder / "programs"
    folder.mkdir()
    words = ("machines/network=bridge", TWO, "machines.network.interface=eth7")
    done = here.run(sys.executable, "-m", "tests.network_faults", str(folder), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{fault}: {n_commands} commands" for fault in FAULTS]
    assert_no_trace(here, *before)


def test_the_server_speaks_to_no_stranger(here: Namespace) -> None:
    """Where a network of the user's belongs to the bridge, its computers have another DHCP server, or none."""
    with new_namespace(here.folder / "theirs") as theirs:
        here.ip("link", "add", "name", "eth7", "type", "veth", "peer", "name", "eth8", "netns", theirs.name)
        theirs.ip("link", "set", "dev", "eth8", "up")
        assert here.network("create", TWO, "machines.network.interface=eth7").returncode == 0
        done = theirs.run(sys.executable, "-m", "tests.dhcp_strangers", "eth8")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "OFFER of 10.200.45.1 to 0a:06:00:00:00:01\n"
        assert here.network("remove").returncode == 0
        here.ip("link", "delete", "dev", "eth7")
    assert_no_trace(here)


def test_contradiction_touches_nothing(here):
    done = here.network("create", TWO, "machines.network.first_host=10.200.40.1")
    assert done.returncode == 2
    assert "where: machines.network.first_host" in done.stderr
    assert here.interfaces() == set()
