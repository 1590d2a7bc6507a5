"""A real guest as a Genode host, over user-mode networking with a forwarded port; no job is late because this computer is busy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.hosts.base import HostPhase
from runner.qemu.host import QemuHost
from runner.specs import Clock, Reach
from tests.qemu_guests import PATIENCE_S, eventually, guest_spec
from tests.task_loader.genode_client import REBOOT, GenodeClient, task, types_of, word


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.mark.parametrize(("arch", "snapshot"), [("arm64", True), ("amd64", False)])
def test_a_guest_runs_what_a_genode_client_sends(arch: str, snapshot: bool, tmp_path: Path) -> None:
    port = free_port()
    spec = guest_spec(arch, clock=Clock.ICOUNT, reach=Reach.SSH, snapshot=snapshot, genode_port=port - 1)
    with QemuHost(spec, "qemu2", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        with GenodeClient(("127.0.0.1", port)) as client:
            client.ask_available()
            client.send_binaries({"own": b"#!/bin/sh\nexit $1\n"})
            client.start(
                task(0, "hey", period=200, numberofjobs=3),
                task(1, "idle", priority=1, period=200, numberofjobs=2),
                task(2, "own", 0, priority=2, period=3000),
                task(3, "own", 1, priority=2, period=3000),
                task(4, "idle", 10, priority=128, period=8000, deadline=6000),
                task(5, "nowhere", priority=3, period=3000),
            )
            events = client.await_done(range(6))
            assert types_of(events, 0) == ["START", "EXIT"] * 3 + ["JOBS_DONE"]
            assert types_of(events, 1) == ["START", "EXIT_PERIOD", "JOBS_DONE"]
            assert types_of(events, 2) == ["START", "EXIT", "JOBS_DONE"]
            assert types_of(events, 3) == ["START", "EXIT_ERROR", "JOBS_DONE"]
            assert types_of(events, 4) == ["START", "EXIT", "JOBS_DONE"]
            assert types_of(events, 5) == ["START", "EXIT_ERROR", "JOBS_DONE"]
            client.send(b"garbage of a hostile client")
            assert client.is_dropped()
        with GenodeClient(("127.0.0.1", port)) as client:
            client.ask_available()
            client.send(word(REBOOT))
            assert eventually(lambda: host.phase is HostPhase.DEAD, within_s=PATIENCE_S)
