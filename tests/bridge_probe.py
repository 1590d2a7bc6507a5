"""A program for a network namespace: one guest on its bridge runs commands on its console. Folder, image, then the commands."""

from __future__ import annotations

import sys
from pathlib import Path

from runner.deadline import Deadline
from runner.qemu.host import QemuHost
from runner.specs import NetworkKind, NetworkSpec, QemuSpec, Reach
from tests.qemu_guests import PATIENCE_S, eventually, ssh_banner, type_on_console


def main() -> None:
    """Print the guest's address, and what its SSH server says; the rest is in its console's log."""
    folder, *commands = sys.argv[1:]
    spec = QemuSpec(reach=Reach.SSH, network=NetworkSpec(kind=NetworkKind.BRIDGE))
    with QemuHost(spec, "qemu1", Path(folder)) as host:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        print(host.ssh_address, host.facts.boot.value, ssh_banner(host.ssh_address)[:4])
        log = Path(folder) / "console.log"
        # Typed in one go: what QEMU reads while a terminal is being opened again may get lost.
        line = "; ".join(f"{command}; echo ended: {number}=$?" for number, command in enumerate(commands, 1))
        type_on_console(Path(folder), f"{line}; echo all $((1 + 1))")
        if not eventually(lambda: b"all 2" in log.read_bytes(), within_s=PATIENCE_S):
            raise TimeoutError(log.read_text(errors="replace"))


if __name__ == "__main__":
    main()
