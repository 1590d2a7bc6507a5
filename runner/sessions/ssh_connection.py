"""How a Fabric connection is made, and what its libraries raise."""

from __future__ import annotations

import base64
import logging
import socket
import struct

import fabric
import paramiko
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm

from runner.deadline import Deadline
from runner.errors import SHORTAGES, Fault, HostError, InfrastructureError, SessionLost
from runner.hosts.base import SshCredentials

#: Everything that leaves Fabric, paramiko and the sockets below them for reasons outside this program. paramiko hands its caller
#: whatever its own thread stumbled over, so a peer that sends nonsense raises any of the last five.
LIBRARY_ERRORS = (
    paramiko.SSHException,
    OSError,
    EOFError,
    InvalidSignature,
    InvalidTag,
    UnsupportedAlgorithm,
    struct.error,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)


def translate(exc: BaseException, doing: str) -> InfrastructureError:
    """Our error for one of `LIBRARY_ERRORS`, most specific first."""
    if isinstance(exc, paramiko.BadHostKeyException):
        return SessionLost(f"{doing}: the guest shows another host key than its image has", evidence=str(exc))
    if isinstance(exc, paramiko.AuthenticationException):
        return SessionLost(f"{doing}: the guest does not accept the image's key", evidence=str(exc))
    if isinstance(exc, TimeoutError):
        return SessionLost(f"{doing}: no answer in time")
    short = isinstance(exc, OSError) and exc.errno in SHORTAGES
    return SessionLost(f"{doing}: {type(exc).__name__}: {exc}", fault=Fault.HOST if short else Fault.GUEST)


def connection_over(
    address: tuple[str, int], credentials: SshCredentials, connected: socket.socket, deadline: Deadline
) -> fabric.Connection:
    """A connection that is still to be opened, over a socket that is already."""
    budget_s = deadline.remaining_s
    host, port = address
    try:
        key = paramiko.Ed25519Key.from_private_key_file(str(credentials.client_key))
        name, blob = credentials.host_key.split()[:2]
        host_key = paramiko.PKey.from_type_string(name, base64.b64decode(blob, validate=True))
    except (OSError, ValueError, paramiko.SSHException) as exc:
        raise HostError(
            f"the image's keys cannot be used: {exc}",
            where=str(credentials.client_key.parent),
            next_step="build the image again: python -m host_setup image",
        ) from exc
    connection = fabric.Connection(
        host,
        user=credentials.user,
        port=port,
        # Lazy: what the user's own files say about SSH and Fabric has no say here.
        config=fabric.Config(overrides={"load_ssh_configs": False}, lazy=True),
        connect_kwargs={
            "sock": connected,
            "pkey": key,
            "allow_agent": False,
            "look_for_keys": False,
            # Fabric would cut `connect_timeout` to whole seconds.
            "timeout": budget_s,
            "banner_timeout": budget_s,
            "auth_timeout": budget_s,
            "channel_timeout": budget_s,
        },
    )
    # What the library has to say, it raises as well; and a guest can have it say something with every packet.
    quiet = logging.getLogger("runner.sessions.ssh.paramiko")
    quiet.setLevel(logging.CRITICAL)
    connection.client.set_log_channel(quiet.name)
    # Fabric accepts any host by default; ours must show the one key that its image holds.
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    entry = host if port == 22 else f"[{host}]:{port}"
    connection.client.get_host_keys().add(entry, name, host_key)
    return connection
