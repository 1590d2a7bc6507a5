"""A program for a network namespace: `network create` fails, is interrupted or is killed at each of its commands, and `remove` undoes it.

Real commands, behind programs of their names that fail where they are told to.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from host_setup.network import Network
from runner.errors import HostError

#: What happens to the command whose turn it is, to the program that called it, and which of the two first.
FAULTS = {
    "fails": "exit 9",
    "killed before": "kill -KILL $PPID; exit 9",
    "killed after": '"$real" "$@"; kill -KILL $PPID; exit 0',
    # It waits to be waited for: an interruption comes while the command runs.
    "interrupted after": '"$real" "$@"; kill -INT $PPID; exec sleep 60',
}
ENDED = {
    "fails": 4,
    "killed before": -signal.SIGKILL,
    "killed after": -signal.SIGKILL,
    "interrupted after": 130,
}

PROGRAM = """#!/bin/sh
real={real}
case "$*" in *" show") exec "$real" "$@" ;; esac
turn=$(($(cat {folder}/turn) - 1))
echo "$turn" > {folder}/turn
[ "$turn" = 0 ] || exec "$real" "$@"
{fault}
"""


def main() -> None:
    """Print how many commands it takes, and each case after which something was left."""
    folder = Path(sys.argv[1])
    network = Network(sys.argv[2:], report=lambda _: None)
    real = {name: found(name) for name in ("ip", "dnsmasq")}
    before = interfaces(real["ip"])
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    for fault, words in FAULTS.items():
        for name, path in real.items():
            program = folder / name
            program.write_text(PROGRAM.format(real=path, folder=folder, fault=words))
            program.chmod(0o755)
        n_commands = 0
        while True:
            (folder / "turn").write_text(str(n_commands + 1))
            code = forked(network)
            made = interfaces(real["ip"])
            (folder / "turn").write_text("0")
            network.remove()
            left = interfaces(real["ip"])
            if left != before:
                print(f"{fault} {n_commands + 1}: left {left}, of {made}")
                os._exit(1)
            if code == 0:
                break
            if code != ENDED[fault]:
                print(f"{fault} {n_commands + 1}: ended with {code}")
            n_commands += 1
        print(f"{fault}: {n_commands} commands")


def forked(network: Network) -> int:
    """How a process of its own that creates it ends: with this exit code, or by minus this signal."""
    pid = os.fork()
    if pid == 0:
        try:
            network.create()
            os._exit(0)
        except HostError:
            os._exit(4)
        except KeyboardInterrupt:
            os._exit(130)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def interfaces(ip: str) -> list[tuple[str, bool, str]]:
    """Name, whether it is on, and bridge of each interface, and the IPv4 addresses on it."""
    rows = json.loads(subprocess.run([ip, "-json", "address"], check=True, capture_output=True).stdout)
    return sorted(
        (row["ifname"], "UP" in row["flags"], row.get("master", ""), *addresses(row)) for row in rows
    )


def addresses(row: dict[str, list[dict[str, str]]]) -> tuple[str, ...]:
    return tuple(one["local"] for one in row["addr_info"] if one["family"] == "inet")


def found(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None
    return path


if __name__ == "__main__":
    main()
