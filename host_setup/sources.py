"""Our own sources that decide what is in an image; the rest are Debian's packages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

GUEST_SOURCES = Path(__file__).parent / "guest"

# The modules of this package whose code decides which bytes get into an image.
_BUILDER = (
    "base_system.py",
    "cpio.py",
    "guest_packages.py",
    "image.py",
    "initramfs.py",
    "kernel.py",
    "kernel_modules.py",
)


def builder_sha256() -> str:
    """Changes whenever the code that puts images together does."""
    return _sha256(Path(__file__).parent / name for name in _BUILDER)


def sources_sha256(guest: Path) -> str:
    """Changes whenever that code, or a file in the folder of the guest's sources does."""
    files = sorted(path for path in guest.rglob("*") if path.is_file())
    return hashlib.sha256(f"{builder_sha256()} {_sha256(files)}".encode()).hexdigest()


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
