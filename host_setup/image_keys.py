"""The two SSH keys of an image: what the guest proves to be itself with, and what opens it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from host_setup import cpio


@dataclass(frozen=True, kw_only=True)
class ImageKeys:
    """New random keys, in every form in which they are written down.

    Attributes:
        client_private: The client's key as OpenSSH keeps it.
        client_public: Its public half, a line of `authorized_keys`.
        host_private: The guest's key as dropbear keeps it.
        host_public: Its public half, `ssh-ed25519 AAAA…`.
    """

    client_private: bytes
    client_public: str
    host_private: bytes
    host_public: str

    @classmethod
    def generate(cls) -> ImageKeys:
        """Keys that nobody has seen before."""
        client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        return cls(
            client_private=client.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
            client_public=_public_line(client),
            host_private=_dropbear(host),
            host_public=_public_line(host),
        )

    def guest_entries(self) -> list[cpio.Entry]:
        """What the guest holds of them; dropbear refuses an `authorized_keys` that others could write."""
        return [
            cpio.folder("etc/dropbear", 0o700),
            cpio.file("etc/dropbear/host_key", self.host_private, 0o600),
            cpio.folder("root", 0o700),
            cpio.folder("root/.ssh", 0o700),
            cpio.file("root/.ssh/authorized_keys", f"{self.client_public}\n".encode(), 0o600),
        ]


def _public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _dropbear(key: Ed25519PrivateKey) -> bytes:
    private = key.private_bytes_raw()
    public = key.public_key().public_bytes_raw()
    return _string(b"ssh-ed25519") + _string(private + public)


def _string(content: bytes) -> bytes:
    # RFC 4251 §5: length as a big-endian 32-bit number, then the bytes.
    return struct.pack(">I", len(content)) + content
