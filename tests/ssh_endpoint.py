"""An address that an SSH session is to connect to, for tests: a host without a guest of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.deadline import Deadline
from runner.errors import GuestDied
from runner.faults.recovery import Recovery
from runner.hosts.base import AbstractHost, HostFacts, HostPhase, SshCredentials


class Endpoint(AbstractHost):
    """A host that somebody else started: only what a session asks it for."""

    def __init__(self, ssh_address: tuple[str, int], credentials: SshCredentials) -> None:
        self._ssh_address = ssh_address
        self._credentials = credentials

    @property
    def name(self) -> str:
        return "endpoint1"

    @property
    def phase(self) -> HostPhase:
        return HostPhase.RUNNING

    @property
    def facts(self) -> HostFacts:
        raise NotImplementedError

    @property
    def ssh_address(self) -> tuple[str, int]:
        return self._ssh_address

    @property
    def credentials(self) -> SshCredentials:
        return self._credentials

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        """It is for who started it to let it run."""

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """There is nothing to stop."""

    def kill(self) -> None:
        raise NotImplementedError


def new_key(path: Path) -> paramiko.Ed25519Key:
    """A fresh key pair, its private half in a file."""
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def public_line(key: paramiko.PKey) -> str:
    """The public half, as `SshCredentials.host_key` wants it."""
    return f"{key.get_name()} {key.get_base64()}"
