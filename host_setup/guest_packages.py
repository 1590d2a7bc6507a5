"""Debian packages of a guest's architecture, through the host's own apt sources, without root.

Apt itself resolves names, downloads, and checks signatures and hashes. It works in a folder of ours, with the guest's
architecture and an empty list of installed packages, so that the host's apt is neither changed nor locked.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from host_setup.command import run_command
from runner.errors import HostError
from runner.files.durable import replace_text
from runner.qemu.architectures import Architecture

# Busybox is the guest's shell and tools, dropbear its SSH server; apt finds the libraries that they need.
USERLAND = ("busybox-static", "dropbear-bin")

# 60 MB of kernel over a slow line (1 Mbit/s takes 8 minutes).
DOWNLOAD_TIMEOUT_S = 1200.0
QUERY_TIMEOUT_S = 120.0

# 'URI' FILE SIZE SHA256:HASH, as `apt-get --print-uris` writes it.
_URI_LINE = re.compile(r"'[^']+' (?P<file>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Package:
    """One version of one package, told apart by its content.

    Attributes:
        name: As Debian names it.
        version: With its epoch.
        sha256: Of the `.deb`, from the signed index.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class GuestPackages:
    """What a guest is made of: its kernel and the programs beside it."""

    kernel: Package
    userland: tuple[Package, ...]

    @property
    def kernel_release(self) -> str:
        """What `uname -r` prints; Debian's packages of kernels are named for it."""
        return self.kernel.name.removeprefix("linux-image-")

    @property
    def all(self) -> tuple[Package, ...]:
        """Kernel first."""
        return (self.kernel, *self.userland)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GuestPackages:
        """The opposite of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: when they are something else.
        """
        return cls(
            kernel=Package(**fields["kernel"]), userland=tuple(Package(**row) for row in fields["userland"])
        )


class PackageSource:
    """The packages of one architecture, each kept under its hash once it was downloaded.

    The lists and the packages live under `cache`; nobody else may use the same lists at the same time (the image
    builder holds a lock).
    """

    def __init__(self, arch: Architecture, cache: Path) -> None:
        self._arch = arch
        self._state = cache / "apt" / arch.name
        self._debs = cache / "debs"

    def current(self, *, refresh: bool) -> GuestPackages:
        """Resolve and download what a guest is made of.

        Without `refresh`, the answer is that of the last time, as long as all of it is still here: a rebuild after
        a change of our own sources needs no network, and no apt.

        Raises:
            HostError: when apt cannot resolve, download or verify a package.
        """
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        self._debs.mkdir(parents=True, exist_ok=True)
        for leftover in self._state.glob("download-*"):
            # Of a builder that was killed.
            shutil.rmtree(leftover)
        if not refresh and (known := self._remembered()) is not None:
            return known
        self._apt_get("update", doing="reading the package lists", timeout_s=DOWNLOAD_TIMEOUT_S)
        packages = self._resolve()
        self._download([package for package in packages.all if not self.deb(package).exists()])
        replace_text(self._memo, json.dumps({"of": self._question, "answer": asdict(packages)}) + "\n")
        return packages

    def deb(self, package: Package) -> Path:
        """Where the package is, once it was downloaded."""
        return self._debs / f"{package.sha256}.deb"

    def unpack(self, packages: Iterable[Package], target: Path) -> None:
        """Unpack the packages, which were downloaded before, over one another into `target`.

        Raises:
            HostError: when a package is damaged; it is dropped, and downloaded again the next time.
        """
        for package in packages:
            deb = self.deb(package)
            if _sha256(deb) != package.sha256:
                deb.unlink()
                raise HostError(
                    f"the cached package {package.name} was damaged and has been removed",
                    where=str(deb),
                    next_step="the same command again downloads it anew",
                )
            run_command(
                ["dpkg-deb", "-x", deb, target], doing=f"unpacking {package.name}", timeout_s=QUERY_TIMEOUT_S
            )

    @property
    def _memo(self) -> Path:
        return self._state / "packages.json"

    @property
    def _question(self) -> list[str]:
        return [self._arch.kernel_package, *USERLAND]

    def _remembered(self) -> GuestPackages | None:
        try:
            memo = json.loads(self._memo.read_text(encoding="utf-8"))
            answer = memo["answer"] if memo["of"] == self._question else None
            known = GuestPackages.from_fields(answer) if answer else None
        except (OSError, ValueError, KeyError, TypeError):
            # Never written, or damaged: apt knows.
            return None
        return known if known and all(self.deb(package).exists() for package in known.all) else None

    @property
    def _options(self) -> tuple[str, ...]:
        arch = self._arch.name
        settings = (
            f"APT::Architecture={arch}",
            f"APT::Architectures={arch}",
            f"Dir::State::Lists={self._state}/lists",
            f"Dir::Cache={self._state}/cache",
            "Dir::State::status=/dev/null",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            # Without it `--print-uris install` names the weakest hash of the index.
            "Acquire::ForceHash=SHA256",
        )
        return tuple(word for setting in settings for word in ("-o", setting))

    def _apt_get(self, *words: str, doing: str, timeout_s: float, cwd: Path | None = None) -> str:
        return run_command(
            ["apt-get", "-qq", *self._options, *words],
            doing=f"{doing} of {self._arch.name}",
            timeout_s=timeout_s,
            cwd=cwd,
            next_step="check the network and that `apt-get update` works on this host, then repeat the command",
        )

    def _resolve(self) -> GuestPackages:
        kernel = self._kernel_name()
        listing = self._apt_get(
            "--print-uris", "download", kernel, doing="looking for the kernel", timeout_s=QUERY_TIMEOUT_S
        )
        listing += self._apt_get(
            *("--print-uris", "--yes", "--no-install-recommends", "install", *USERLAND),
            doing="resolving the programs",
            timeout_s=QUERY_TIMEOUT_S,
        )
        found = {package.name: package for package in parse_uris(listing)}
        missing = {kernel, *USERLAND} - found.keys()
        if missing:
            raise HostError(
                f"apt finds no {', '.join(sorted(missing))} for {self._arch.name}",
                next_step="check that the host's apt sources offer Debian's main archive",
            )
        userland = tuple(sorted((p for p in found.values() if p.name != kernel), key=lambda p: p.name))
        return GuestPackages(kernel=found[kernel], userland=userland)

    def _kernel_name(self) -> str:
        meta = self._arch.kernel_package
        doing = f"looking for the kernel behind {meta}"
        listing = run_command(
            ["apt-cache", *self._options, "depends", "--important", meta],
            doing=doing,
            timeout_s=QUERY_TIMEOUT_S,
        )
        match = re.search(r"^\s*Depends: (linux-image-\S+)$", listing, re.MULTILINE)
        if match is None:
            raise HostError(
                f"{doing}: it names no kernel", next_step="check that the host's apt sources are Debian's"
            )
        return match[1]

    def _download(self, packages: Sequence[Package]) -> None:
        if not packages:
            return
        with tempfile.TemporaryDirectory(prefix="download-", dir=self._state) as name:
            fetched = Path(name)
            wanted = (f"{package.name}={package.version}" for package in packages)
            self._apt_get(
                "download",
                *wanted,
                doing="downloading the packages",
                timeout_s=DOWNLOAD_TIMEOUT_S,
                cwd=fetched,
            )
            by_hash = {_sha256(path): path for path in fetched.glob("*.deb")}
            for package in packages:
                if package.sha256 not in by_hash:
                    raise HostError(
                        f"apt downloaded a {package.name} {package.version} that its index does not list",
                        next_step="repeat the command with --refresh",
                    )
                by_hash[package.sha256].rename(self.deb(package))


def parse_uris(listing: str) -> list[Package]:
    """The packages of `apt-get --print-uris` output; lines of another form are passed over."""
    packages = []
    for match in map(_URI_LINE.fullmatch, listing.splitlines()):
        # NAME_VERSION_ARCH.deb, with the epoch's colon as %3a.
        fields = unquote(match["file"]).split("_") if match else []
        if match and len(fields) == 3:
            packages.append(Package(name=fields[0], version=fields[1], sha256=match["sha256"]))
    return packages


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
