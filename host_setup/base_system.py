"""What Debian contributes to an image, kept: unpacking a kernel package takes longer than all the rest of a build."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from host_setup import cpio
from host_setup.guest_packages import GuestPackages, PackageSource
from host_setup.initramfs import base_entries
from host_setup.kernel import ready_to_run
from host_setup.sources import builder_sha256
from runner.errors import HostError


@dataclass(frozen=True)
class BaseSystem:
    """The same for equal packages, whatever our own sources are.

    Attributes:
        kernel: As QEMU boots it.
        archive: The root file system without the programs of ours and without keys.
    """

    kernel: bytes
    archive: bytes

    @property
    def sha256(self) -> str:
        """Of both parts."""
        return hashlib.sha256(self.kernel + self.archive).hexdigest()

    @classmethod
    def of(cls, packages: GuestPackages, source: PackageSource, *, kept: Path, work: Path) -> Self:
        """The base system of these packages, unpacked now or kept from an earlier time.

        Args:
            kept: Folder that holds the latest one; nobody else may use it meanwhile.
            work: Temporary folder on the same file system.

        Raises:
            HostError: when a package is damaged or lacks something.
            OSError: when the disk does not take it.
        """
        words = [builder_sha256(), *(package.sha256 for package in packages.all)]
        name = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
        if (found := cls._read(kept / name)) is not None:
            return found
        source.unpack(packages.all, work / "root")
        made = cls._from_unpacked(work / "root", packages.kernel_release)
        made._write(work / "base")
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        (work / "base").rename(kept / name)
        return made

    @classmethod
    def _from_unpacked(cls, root: Path, release: str) -> Self:
        path = root / "boot" / f"vmlinuz-{release}"
        if not path.is_file():
            raise HostError(f"the kernel package holds no {path.name}")
        return cls(ready_to_run(path.read_bytes()), cpio.archive(base_entries(root, release=release)))

    @classmethod
    def _read(cls, folder: Path) -> Self | None:
        try:
            found = cls((folder / "kernel").read_bytes(), (folder / "archive").read_bytes())
            return found if (folder / "sha256").read_text(encoding="ascii") == found.sha256 else None
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "kernel").write_bytes(self.kernel)
        (folder / "archive").write_bytes(self.archive)
        (folder / "sha256").write_text(self.sha256, encoding="ascii")
