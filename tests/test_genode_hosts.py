"""Genode's hosts: QEMU's command line, a real (tiny) guest on the real board, boards and their switches, and what the config refuses."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runner.config.resuming import fact_changes
from runner.deadline import Deadline
from runner.errors import BootFailed, HostError, UsageError
from runner.faults.recovery import Recovery
from runner.hosts.board import BoardHost, check_boards
from runner.qemu.command import Wiring
from runner.qemu.genode_command import build_genode_command, check_genode_spec
from runner.qemu.genode_host import GenodeHost
from runner.run_folder.manifest import manifest
from runner.specs import BoardSpec, Clock, GenodeSpec, NetworkKind, NetworkSpec
from tests.genode_image import write_image
from tests.genode_peer import REBOOT, Peer
from tests.genode_plans import plan_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["user", "tap", "icount"])
def test_the_command_is_the_golden_one(name: str) -> None:
    spec = GenodeSpec(image=Path("image.elf"))
    if name == "icount":
        spec = GenodeSpec(image=Path("image.elf"), clock=Clock.ICOUNT, vcpus=1)
    wiring = Wiring(name="qemu1", qmp_fd=5, console_log=Path("console.log"), console_fd=6)
    if name == "tap":
        wiring = replace(wiring, tap_fd=7, mac="0a:06:00:00:00:01")
    command = build_genode_command(Path("/usr/bin/qemu-system-arm"), spec, spec.image, wiring)
    golden = GOLDEN / f"qemu_genode_{name}.txt"
    assert "\n".join(command) + "\n" == golden.read_text()


def test_a_guest_on_the_board_talks_on_its_console(tmp_path: Path) -> None:
    with GenodeHost(
        GenodeSpec(image=write_image(tmp_path / "image.elf")), "qemu1", tmp_path / "qemu1"
    ) as host:
        host.start(Deadline.after(60.0))
        assert host.address[0] == "127.0.0.1"
        host.resume()
        limit = Deadline.after(60.0)
        while b"OK\n" not in (tmp_path / "qemu1" / "console.log").read_bytes():
            assert not limit.passed
            time.sleep(0.05)
        host.pause()


def test_contradictions_are_refused(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.elf")
    (tmp_path / "text").write_text("no ELF")
    for spec in (GenodeSpec(image=tmp_path / "missing"), GenodeSpec(image=tmp_path / "text")):
        with pytest.raises(HostError, match=r"ELF|cannot be read"):
            check_genode_spec(spec)
    for spec in (
        GenodeSpec(image=image, vcpus=5),
        GenodeSpec(image=image, clock=Clock.ICOUNT, vcpus=4),
        GenodeSpec(image=image, memory_mib=4096),
        GenodeSpec(image=image, cpu_mips=3.0),
    ):
        with pytest.raises(UsageError):
            check_genode_spec(spec)
    for boards in (
        BoardSpec(addresses=("a",)),
        BoardSpec(addresses=("a", "a:3001")),
        BoardSpec(addresses=("a", "-oProxy")),
        BoardSpec(addresses=("a", "b:0")),
        BoardSpec(addresses=("a", "b"), power=("switch",)),
    ):
        with pytest.raises(UsageError):
            check_boards(boards, limit=2)


def test_a_board_is_switched_by_the_users_command(tmp_path: Path) -> None:
    told = tmp_path / "told"
    write = f"import sys; open({str(told)!r}, 'w').write(sys.argv[1])"
    spec = BoardSpec(addresses=("board1", "board2"), power=(sys.executable, "-c", write, "{address}; x"))
    with BoardHost(spec, "qemu2", tmp_path) as host:
        host.start(Deadline.after(30.0))
    assert told.read_text() == "board2; x"


@pytest.mark.parametrize(
    ("power", "error"),
    [
        (("/no/such/switch",), HostError),
        ((sys.executable, "-c", "exit(3)"), BootFailed),
        ((sys.executable, "-c", "import time; time.sleep(60)"), BootFailed),
    ],
)
def test_a_switch_that_fails_is_told(tmp_path: Path, power: tuple[str, ...], error: type[Exception]) -> None:
    spec = BoardSpec(addresses=("board1",), power=power, power_timeout_s=1.0)
    with BoardHost(spec, "qemu1", tmp_path) as host, pytest.raises(error):
        host.start(Deadline.after(30.0))


def test_a_board_that_was_used_is_asked_to_reboot(tmp_path: Path) -> None:
    peer = Peer()
    spec = BoardSpec(addresses=(f"127.0.0.1:{peer.address[1]}",))
    with BoardHost(spec, "qemu1", tmp_path, fresh=False) as host:
        host.start(Deadline.after(30.0), Recovery.COLD_BOOT)
    limit = Deadline.after(10.0)
    while REBOOT not in peer.tags:
        assert not limit.passed
        time.sleep(0.01)
    peer.close()


def test_the_manifest_tells_image_and_network(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.elf")
    bridge = NetworkSpec(kind=NetworkKind.BRIDGE, first_host="10.200.46.1")
    spec = GenodeSpec(image=image, network=bridge)
    facts = manifest(plan_of(genode=spec), overrides=())["guest"]
    assert facts["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert facts["settings"]["network"] == asdict(bridge)
    assert "QEMU" in facts["qemu"]
    boards = BoardSpec(addresses=("board1", "board2"))
    assert manifest(plan_of(boards=boards), overrides=())["guest"]["settings"]["addresses"] == [
        "board1",
        "board2",
    ]


def test_another_image_is_a_change_of_what_is_measured(tmp_path: Path) -> None:
    """And so is another place on the network; what is the same after JSON is the same."""
    image = write_image(tmp_path / "image.elf")
    spec = GenodeSpec(image=image)
    before = json.loads(json.dumps(manifest(plan_of(genode=spec), overrides=())))
    assert fact_changes(before, manifest(plan_of(genode=spec), overrides=())) == {}
    image.write_bytes(image.read_bytes() + b"more")
    now = manifest(
        plan_of(genode=replace(spec, vcpus=2, network=NetworkSpec(kind=NetworkKind.BRIDGE))), overrides=()
    )
    assert set(fact_changes(before, now)) == {"guest image", "machines.genode.vcpus", "machines.network"}
