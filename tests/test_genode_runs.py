"""Whole runs over Genode's protocol, and what is told of the machines afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from runner.config.resuming import fact_changes
from runner.exit_codes import ExitCode
from runner.run_folder.guests import guests
from runner.specs import (
    BoardSpec,
    GenodeSpec,
    NetworkKind,
    NetworkSpec,
    QemuSpec,
    Reach,
)
from runner.why.__main__ import main as why
from tests.cli import run_cli
from tests.genode_image import write_image
from tests.genode_peer import Peer
from tests.genode_plans import plan_of

BRIDGE = NetworkSpec(kind=NetworkKind.BRIDGE)
#: Whole milliseconds, no job near its limit, tasks in another order than their first releases.
SET = (
    "{priority:explicit,overrun_policy:kill_and_skip,tasks:["
    "{period:30ms,wcet:2ms,offset:40ms,n_jobs:4,priority_rank:1},{period:50ms,wcet:5ms,n_jobs:3,priority_rank:2},"
    "{wcet:3ms,offset:20ms}]}"
)


def manifest(run: Path) -> dict[str, Any]:
    content = json.loads((run / "manifest.json").read_text())
    assert isinstance(content, dict)
    return content


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert why([str(one) for one in words]) == ExitCode.OK
    return capsys.readouterr().out


def jobs(folder: Path) -> list[tuple[Any, ...]]:
    sql = "SELECT task_idx, job_idx, exit_type FROM jobs ORDER BY task_idx, job_idx"
    with contextlib.closing(sqlite3.connect(folder / "run" / "results.sqlite")) as database:
        return list(database.execute(sql))


def test_boards_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = Peer()
    address = f"127.0.0.1:{peer.address[1]}"
    done = run_cli(
        tmp_path,
        "machines=genode_board",
        f"machines.board.addresses=[{address}]",
        "machines.limit=1",
        "tasksets=explicit",
        f"tasksets.tasksets=[{SET}]",
    )
    peer.close()
    assert done.returncode == ExitCode.OK, done.stderr
    told = manifest(tmp_path / "run")["guest"]
    assert (told["host"], told["addresses"], told["settings"]["reset"]) == (
        "genode_board",
        [address],
        "machine",
    )
    assert f"addresses: {address}" in asked(capsys, tmp_path / "run")
    assert f"\n  {address}\n" in asked(capsys, tmp_path / "run", "qemu1")
    log = (tmp_path / "run" / "machines" / "qemu1" / "machine.log").read_text()
    assert f"qemu1 is up at {address} (cold" in log


@pytest.mark.guest
def test_one_config_measures_the_same_sets_through_either_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On instruction-counted guests, so that no job is late for this computer's sake."""
    tables = []
    for machines in ("genode_guest", "ssh"):
        folder = tmp_path / machines
        folder.mkdir()
        done = run_cli(
            folder,
            f"machines={machines}",
            "machines.qemu.clock=icount",
            "tasksets=explicit",
            f"tasksets.tasksets=[{SET}]",
        )
        assert done.returncode == ExitCode.OK, done.stderr
        tables.append(jobs(folder))
    assert tables[0] == tables[1]
    assert [row[2] for row in tables[0]] == ["EXIT"] * 8
    text = asked(capsys, tmp_path / "genode_guest" / "run")
    assert manifest(tmp_path / "genode_guest" / "run")["guest"]["image_sha256"] in text
    assert "emulator: QEMU emulator version" in text


def test_an_image_is_known_by_its_digest(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.elf")
    spec = GenodeSpec(image=image, network=BRIDGE)
    before = guests(plan_of(genode=spec))
    assert before is not None
    assert before["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert before["qemu"].startswith("QEMU emulator version")
    assert before["addresses"] == ["10.200.45.1:3001", "10.200.45.2:3001"]
    assert before["settings"]["image"] == str(image)
    stored = json.loads(json.dumps({"guest": before}))
    assert fact_changes(stored, {"guest": guests(plan_of(genode=spec))}) == {}
    image.write_bytes(image.read_bytes() + b"another build")
    changes = fact_changes(stored, {"guest": guests(plan_of(genode=spec))})
    assert list(changes) == ["guest image"]
    fewer = fact_changes(stored, {"guest": guests(plan_of(genode=GenodeSpec(image=image, vcpus=2)))})
    assert set(fewer) == {"guest image", "machines.genode.vcpus", "machines.network"}


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        ({"boards": BoardSpec(addresses=("board1", "[fe80::1]:4001"))}, ["board1:3001", "[fe80::1]:4001"]),
        ({"genode": GenodeSpec(image=Path("image.elf"))}, []),
        ({"qemu": QemuSpec(reach=Reach.GENODE, network=BRIDGE)}, ["10.200.45.1:3001", "10.200.45.2:3001"]),
        ({"qemu": QemuSpec(reach=Reach.GENODE, genode_port=4000)}, ["127.0.0.1:4000", "127.0.0.1:4001"]),
        ({"qemu": QemuSpec(reach=Reach.SSH, network=BRIDGE)}, ["10.200.45.1:22", "10.200.45.2:22"]),
        ({"qemu": QemuSpec(reach=Reach.SSH, ssh_port=2222)}, ["127.0.0.1:2222", "127.0.0.1:2223"]),
        ({"qemu": QemuSpec()}, []),
    ],
)
def test_addresses_are_those_of_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: dict[str, Any], addresses: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "image.elf")
    told = guests(plan_of(**hosts))
    assert told is not None
    assert told["addresses"] == addresses


def test_without_hosts_nothing_is_told() -> None:
    assert guests(plan_of()) is None
