"""Helpers for tests with real guests."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.qemu.console_link import read_link
from runner.qemu.image import GuestImage
from runner.specs import QemuSpec

# Generous: a test must fail for what it tests, never for a busy host.
PATIENCE_S = 60.0


def guest_spec(arch: str = "arm64", **settings: Any) -> QemuSpec:
    """A spec that names its image, so that a test may move the cache elsewhere."""
    return replace(QemuSpec(arch=arch, image=GuestImage.current(arch).folder), **settings)


def eventually(check: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    """Whether `check` comes true in time."""
    end_s = time.monotonic() + within_s
    while not check():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def process_exists(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def own_children() -> dict[int, str]:
    """The programs that any thread of ours has started and not collected, by process id."""
    found = {}
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def ssh_banner(address: tuple[str, int]) -> bytes:
    """The first bytes that a guest's SSH server says."""
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        connection.settimeout(PATIENCE_S)
        return connection.recv(64)


def type_on_console(folder: Path, command: str) -> None:
    """Have the guest's console shell run a command; the guest must be running."""
    fd = os.open(read_link(folder).pty, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(fd, b"\n")
        shown = b""
        # The shell's prompt: what is typed before it is there may get lost.
        while b"# " not in shown and select.select([fd], [], [], PATIENCE_S)[0]:
            shown += os.read(fd, 4096)
        os.write(fd, command.encode() + b"\n")
        # QEMU looks for a terminal's hanging up once a second; until the command was read it must not.
        select.select([fd], [], [], 2.0)
    finally:
        os.close(fd)
