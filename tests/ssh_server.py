"""A real sshd on loopback, for the user who runs the tests: a port, keys and a config of its own in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.daemons import end
from tests.fleet_samples import eventually
from tests.ssh_endpoint import new_key, public_line

_STEP_S = 30.0
# sshd wants to be called by its full name, and root's folders are not on everybody's PATH.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
#: As root, sshd locks itself up in here; Debian makes it when its own server starts.
_EMPTY = Path("/run/sshd")
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
"""


@dataclass(frozen=True)
class SshServer:
    """One that runs.

    Attributes:
        port: On 127.0.0.1.
        client_key: Private key that opens it.
        known_hosts: Says which server it is.
    """

    port: int
    client_key: Path
    known_hosts: Path


@contextmanager
def ssh_server(folder: Path, env: Mapping[str, str]) -> Iterator[SshServer]:
    """A server as long as the block lasts; what was started over it is asked for by `processes_with`.

    Args:
        folder: Is made.
        env: What every session finds in its environment.
    """
    program = shutil.which("sshd", path=_PATH)
    assert program, "there is no sshd here: python -m host_setup packages --tests"
    folder.mkdir(mode=0o700)
    host_key, client_key = (new_key(folder / name) for name in ("host_key", "client_key"))
    for name in ("host_key", "client_key"):
        (folder / name).chmod(0o600)
    (folder / "authorized_keys").write_text(f"{public_line(client_key)}\n")
    port = _free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public_line(host_key)}\n")
    session = " ".join(f'"{name}={value}"' for name, value in env.items())
    config = folder / "sshd_config"
    config.write_text(f"{_CONFIG.format(port=port, folder=folder)}SetEnv {session}\n")
    made = os.geteuid() == 0 and not _EMPTY.exists()
    if made:
        _EMPTY.mkdir(mode=0o755)
    try:
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", config], stdout=log, stderr=log, start_new_session=True
            )
        try:
            eventually(lambda: _answers(port), _STEP_S)
            yield SshServer(port, folder / "client_key", folder / "known_hosts")
        finally:
            end(process, _STEP_S)
    finally:
        if made:
            with suppress(OSError):
                _EMPTY.rmdir()


def processes_with(name: str, value: str) -> list[str]:
    """The command lines of all processes that have this in their environment, as all have that a session started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{name}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in found if command]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as one:
        return one.recv(4) == b"SSH-"
    return False
