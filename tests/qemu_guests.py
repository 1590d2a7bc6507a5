"""Helpers for tests with real guests."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.deadline import Deadline
from runner.events import JobEvent
from runner.hosts.base import AbstractHost
from runner.model import Task, TaskSet
from runner.qemu.architectures import architecture
from runner.qemu.console_link import read_link
from runner.qemu.image import GuestImage
from runner.sessions.mailbox import MailboxSession
from runner.specs import QemuSpec
from runner.units import NS_PER_MS

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
        with suppress(
            OSError
        ):  # a thread that has ended meanwhile; whoever collected its children can do so no more
            for pid in path.read_text().split():
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def measures(host: AbstractHost) -> bool:
    """Whether a guest with a mailbox, paused, runs a task set when it is asked to."""
    taskset = TaskSet((Task(period_ns=None, wcet_ns=NS_PER_MS),))
    with closing(MailboxSession(host)) as session:
        session.open(Deadline.after(PATIENCE_S))
        session.start(taskset, Deadline.after(PATIENCE_S))
        return any(isinstance(event, JobEvent) for event in session.events(Deadline.after(PATIENCE_S)))


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


def compiled(arch: str, path: Path, source: str) -> Path:
    """A static program for the guest, made of this C."""
    command = [architecture(arch).compiler, "-static", "-s", "-O1", "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True, timeout=60)
    return path


def exiting(arch: str, folder: Path, default_status: int = 0) -> Path:
    """A program that ends with its first argument as exit status."""
    return compiled(
        arch,
        folder / "a program",
        "#include <stdlib.h>\n"
        f"int main(int n, char **args) {{ return n > 1 ? atoi(args[1]) : {default_status}; }}\n",
    )
