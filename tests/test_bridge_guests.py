"""Real guests on a bridge, in a network namespace of the test's own: made, used, removed, and no trace left."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.exit_codes import ExitCode
from tests.cli import ROOT, processes_of, run_cli, started_cli
from tests.genode_image import write_image
from tests.network_namespace import Namespace, new_namespace, why_none
from tests.qemu_guests import PATIENCE_S, eventually
from tests.screens import listed

pytestmark = [pytest.mark.guest, pytest.mark.skipif(bool(why_none()), reason=why_none())]

BRIDGE = "machines/network=bridge"
FEW = ("tasksets.sets_per_utilization=1", "tasksets.hyperperiods=1")
LONG = ("tasksets.sets_per_utilization=200", "tasksets.hyperperiods=15")
#: What repeats of a job over SSH. Its start and its end do not, to the nanosecond, bridge or not: two runs differ by 30 µs of
#: the guest's time (measured: 42 at most), as packets interrupt it.
REPEATS = "taskset_id, task_idx, job_idx, release_ns, deadline_abs_ns, missed, exit_type, exit_code"
NEARLY_NS = 200_000


@pytest.fixture
def here(tmp_path):
    with new_namespace(tmp_path) as namespace:
        yield namespace


def rows(folder: Path, columns: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT {columns} FROM jobs JOIN runs USING (run_id) ORDER BY taskset_id, task_idx, job_idx"
    with contextlib.closing(
        sqlite3.connect(f"file:{folder / 'run' / 'results.sqlite'}?mode=ro", uri=True)
    ) as database:
        return list(database.execute(sql))


def leases(here: Namespace) -> dict[str, str]:
    text = (here.runtime / "network" / "br0" / "dnsmasq.leases").read_text()
    return {words[1]: words[2] for words in map(str.split, text.splitlines())}


def status(folder: Path) -> dict[str, Any]:
    path = folder / "run" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def running(folder: Path) -> int:
    machines = status(folder).get("observed", {}).get("by_machine", {})
    return sum(machine["phase"] == "running" for machine in machines.values())


def steer(folder: Path, machines: int, state: str = "run") -> None:
    (folder / "run" / "control.yaml").write_text(f"machines: {machines}\nstate: {state}\n")


def assert_removed(here: Namespace) -> None:
    done = here.network("remove")
    assert done.returncode == 0, done.stderr
    assert here.interfaces() == set()
    assert not here.runtime.exists()
    assert eventually(lambda: not here.pids())
    assert eventually(lambda: not processes_of(here.folder)), processes_of(here.folder)


def test_three_guests_measure_as_on_networks_of_their_own(here, tmp_path):
    fleet = (*FEW, "machines=ssh", "machines.count=3", "machines.limit=3")
    folders = {name: tmp_path / name for name in ("bridge", "user")}
    for folder in folders.values():
        folder.mkdir()
    assert here.network("create", "machines.limit=3").returncode == 0
    done = run_cli(folders["bridge"], *fleet, BRIDGE, within=here.within, env=here.env)
    assert done.returncode == ExitCode.OK, done.stderr
    assert leases(here) == {f"0a:06:00:00:00:0{number}": f"10.200.45.{number}" for number in (1, 2, 3)}
    assert_removed(here)

    done = run_cli(folders["user"], *fleet)
    assert done.returncode == ExitCode.OK, done.stderr
    bridged, alone = (rows(folder, REPEATS) for folder in folders.values())
    assert len(bridged) > 100
    assert bridged == alone
    times = [rows(folder, "start_ns, finish_ns") for folder in folders.values()]
    off = [
        abs(ours - theirs)
        for pair in zip(*times, strict=True)
        for ours, theirs in zip(*pair, strict=True)
        if ours and theirs
    ]
    assert max(off) < NEARLY_NS


@pytest.fixture
def screens(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of this test's own; their sockets' folder has to have a short name."""
    folder = tmp_path_factory.mktemp("s")
    folder.chmod(0o700)
    monkeypatch.setenv("SCREENDIR", str(folder))


@pytest.mark.usefixtures("screens")
def test_leases_taps_and_consoles_follow_the_fleet(here: Namespace, tmp_path: Path) -> None:
    """One guest, seven, two, while task sets run through their mailboxes: there is a card on the bridge beside each."""
    assert here.network("create", "machines.limit=7").returncode == 0
    assert not {name for name in here.interfaces(with_carrier=True) if name.startswith("rtfleet")}

    def plugged_in() -> set[str]:
        return here.interfaces(with_carrier=True) - {"br0"}

    def taps(n: int) -> set[str]:
        return {f"rtfleet{number}" for number in range(1, n + 1)}

    def consoles(n: int) -> bool:
        return eventually(lambda: len(listed()) == n, within_s=PATIENCE_S)

    fleet = (
        *LONG,
        BRIDGE,
        "machines.reset=machine",
        "machines.count=1",
        "machines.limit=7",
        "machines.console=screen",
    )
    with started_cli(tmp_path, *fleet, within=here.within, env=here.env) as process:
        assert eventually(lambda: running(tmp_path) == 1, within_s=PATIENCE_S), status(tmp_path)
        assert plugged_in() == taps(1)
        assert listed() == ["qemu1"]
        steer(tmp_path, 7)
        assert eventually(lambda: running(tmp_path) == 7, within_s=2 * PATIENCE_S), status(tmp_path)
        assert plugged_in() == taps(7)
        assert listed() == [f"qemu{number}" for number in range(1, 8)]
        assert leases(here) == {f"0a:06:00:00:00:0{number}": f"10.200.45.{number}" for number in range(1, 8)}
        busy = here.network("remove")
        assert busy.returncode == 4
        assert "a machine still uses the tap" in busy.stderr
        steer(tmp_path, 2)
        assert eventually(lambda: len(plugged_in()) == 2, within_s=PATIENCE_S), status(tmp_path)
        assert eventually(lambda: running(tmp_path) == 2, within_s=PATIENCE_S), status(tmp_path)
        assert consoles(2), listed()
        steer(tmp_path, 0, "kill")
        assert eventually(lambda: not plugged_in(), within_s=PATIENCE_S)
        assert consoles(0), listed()
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    incidents = sqlite3.connect(f"file:{tmp_path / 'run' / 'results.sqlite'}?mode=ro", uri=True)
    with contextlib.closing(incidents):
        assert incidents.execute("SELECT count(*) FROM incidents WHERE fault != 'host'").fetchall() == [(0,)]
    assert_removed(here)


def test_guests_cannot_get_beyond_the_bridge(here, tmp_path):
    """Not even one that gives itself a route, to a computer that would know the way back."""
    beyond = tmp_path / "beyond"
    with new_namespace(beyond) as outside:
        here.ip("link", "add", "name", "out", "type", "veth", "peer", "name", "in", "netns", outside.name)
        here.ip("address", "add", "192.0.2.1/24", "dev", "out")
        here.ip("link", "set", "dev", "out", "up")
        outside.ip("address", "add", "192.0.2.2/24", "dev", "in")
        outside.ip("link", "set", "dev", "in", "up")
        outside.ip("route", "add", "default", "via", "192.0.2.1")
        assert here.run("ping", "-c1", "192.0.2.2").returncode == 0 or not here.run("which", "ping").stdout
        assert here.network("create", "machines.limit=1").returncode == 0
        commands = (
            "ping -c 3 10.200.40.1",
            "route -n | grep -q '^0.0.0.0'",
            "ping -c 3 192.0.2.2",
            "route add default gw 10.200.40.1",
            "ping -c 3 192.0.2.2",
        )
        done = here.run(sys.executable, "-m", "tests.bridge_probe", str(tmp_path / "guest"), *commands)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "('10.200.45.1', 22) cold b'SSH-'"
        shown = (tmp_path / "guest" / "console.log").read_text(errors="replace")
        codes = [number for number in range(1, 6) if f"ended: {number}=0" in shown]
        assert codes == [1, 4], shown
        assert "Network is unreachable" in shown
        assert_removed_but(here, "out")


def test_genodes_protocol_keeps_its_contract_over_a_bridge(here, tmp_path):
    """The session's tests once more, against a guest that has its address by DHCP."""
    assert here.network("create", "machines.limit=1").returncode == 0
    suite = str(ROOT / "tests" / "test_session_genode_guest.py")
    words = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "in"),
    )
    done = here.run(*words, suite, RTFLEET_TEST_NETWORK="bridge")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^2\d passed in", done.stdout, re.M), done.stdout
    assert_removed(here)


def test_genodes_board_is_on_its_tap(here, tmp_path):
    """Who answers at its address is a stand-in: the image only says OK on its console."""
    assert here.network("create", "machines.limit=1").returncode == 0
    here.ip("address", "add", "10.200.45.1/32", "dev", "lo")
    image = write_image(tmp_path / "image.elf")
    words = (sys.executable, "-m", "tests.genode_peer", "10.200.45.1", "3001")
    with subprocess.Popen(
        [*here.within, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"listening\n"
        run = (
            "machines=genode_pbxa9",
            f"machines.genode.image={image}",
            "tasksets.overrun_policy=kill_and_skip",
        )
        with started_cli(tmp_path, *run, BRIDGE, *FEW, within=here.within, env=here.env) as process:
            assert eventually(lambda: "rtfleet1" in here.interfaces(with_carrier=True), within_s=PATIENCE_S)
            _, said = process.communicate(timeout=PATIENCE_S)
        peer.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK, said
    here.ip("address", "delete", "10.200.45.1/32", "dev", "lo")
    assert_removed(here)


def assert_removed_but(here: Namespace, name: str) -> None:
    here.ip("link", "delete", "dev", name)
    assert_removed(here)


def test_what_is_missing_is_told_with_the_command_that_makes_it(here, tmp_path):
    done = run_cli(
        tmp_path,
        *FEW,
        "machines=ssh",
        BRIDGE,
        "machines.policy.max_asides=1",
        "machines.policy.aside_s=0.1",
        within=here.within,
    )
    assert done.returncode != ExitCode.OK
    assert "there is no tap rtfleet1" in done.stderr
    assert "host_setup network create" in done.stderr
    assert here.interfaces() == set()
