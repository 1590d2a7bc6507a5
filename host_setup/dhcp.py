"""The DHCP server of the machines' bridge: dnsmasq, which answers nobody else and does nothing else."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from runner.errors import HostError
from runner.network import BridgePlan

PROGRAM = "dnsmasq"
# Debian's package makes the first; every Linux has the second.
_USERS = ("dnsmasq", "nobody")
_END_S = 10.0


def dhcp_command(plan: BridgePlan, folder: Path) -> list[str]:
    """The command that starts the server, which goes to the background once it serves.

    It is started as root to listen on port 67, and becomes a user that owns nothing. The machines learn of no router and no name
    server: there is none for them.
    """
    network = plan.address.network
    return [
        shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or PROGRAM,
        "--conf-file=/dev/null",
        f"--user={_user()}",
        f"--pid-file={folder / 'dnsmasq.pid'}",
        f"--dhcp-leasefile={folder / 'dnsmasq.leases'}",
        f"--log-facility={folder / 'dnsmasq.log'}",
        # On the bridge alone, and no DNS.
        *(f"--interface={plan.bridge}", "--bind-interfaces", "--except-interface=lo", "--port=0"),
        # Whoever has no reservation gets nothing.
        f"--dhcp-range={network.network_address},static,{network.netmask},infinite",
        *("--dhcp-option=option:router", "--dhcp-option=option:dns-server"),
        # Nor is anybody refused: strangers on a physical interface of the bridge have a DHCP server of their own.
        "--dhcp-ignore=tag:!known",
        *("--dhcp-authoritative", "--no-ping"),
        *(f"--dhcp-host={one.lease}" for one in plan.attachments),
    ]


def _user() -> str:
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return "root"


def running_server(folder: Path) -> tuple[int, list[str]] | None:
    """Process id and command of the server whose files are in this folder; None if it does not run."""
    pid_file = folder / "dnsmasq.pid"
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except (OSError, ValueError):
        return None
    # The number may be another process's by now.
    return (pid, words) if f"--pid-file={pid_file}" in words else None


def stop_server(folder: Path) -> None:
    """End the server of this folder, if it runs, and wait until it is gone.

    Raises:
        HostError: it does not end, or is not this user's to end.
    """
    found = running_server(folder)
    if found is None:
        return
    pid, _ = found
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(pidfd, number)
            if ended.poll(_END_S * 1e3):
                return
    except ProcessLookupError:
        return
    except PermissionError as exc:
        raise HostError(
            f"the DHCP server (process {pid}) may not be ended", next_step="run this as root"
        ) from exc
    finally:
        os.close(pidfd)
    raise HostError(
        f"the DHCP server (process {pid}) does not end",
        next_step=f"see what it waits for: cat /proc/{pid}/stack",
    )
