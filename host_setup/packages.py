"""The host's own packages: QEMU, and what the guest image is built with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from host_setup.command import run_command
from runner.errors import HostError
from runner.qemu.architectures import Architecture

# QEMU for one more architecture is 100 MB with its libraries; ending apt half-way would leave dpkg broken.
INSTALL_TIMEOUT_S = 3600.0

# A fresh machine updates itself after its first boot and holds dpkg's lock meanwhile.
LOCK_TIMEOUT_S = 300


@dataclass(frozen=True)
class Requirement:
    """Something that must be on the host.

    Attributes:
        package: The Debian package that brings it.
        program: Found on the PATH if it is there, whoever installed it; None for libraries, where only dpkg knows.
    """

    package: str
    program: str | None = None


#: What the machines' bridge takes; see `host_setup.network`.
BRIDGE_REQUIREMENTS = (Requirement("iproute2", "ip"), Requirement("dnsmasq-base", "dnsmasq"))
#: What only the tests take: a browser that looks at reports, and letters for it; servers.
TEST_REQUIREMENTS = (
    Requirement("chromium", "chromium"),
    Requirement("fonts-dejavu-core"),
    Requirement("postgresql"),
    Requirement("openssh-server", "sshd"),
)
#: What the tests that submit to SLURM take; they start its daemons themselves.
SLURM_REQUIREMENTS = (
    Requirement("slurmctld", "slurmctld"),
    Requirement("slurmd", "slurmd"),
    Requirement("slurm-client", "sbatch"),
    Requirement("munge", "munged"),
)


def requirements(architectures: Iterable[Architecture]) -> tuple[Requirement, ...]:
    """What guests of these architectures take: to build their images, and to run them."""
    needed = [Requirement("make", "make"), Requirement("binutils", "readelf")]
    for arch in architectures:
        compiler, *libraries = arch.compiler_packages
        needed += [Requirement(arch.qemu_package, arch.qemu_binary), Requirement(compiler, arch.compiler)]
        needed += [Requirement(library) for library in libraries]
    # For this computer itself, whatever the guests are: what QEMU starts quickly from.
    needed += [Requirement("gcc", "gcc"), Requirement("libc6-dev")]
    # For `machines.console: screen`.
    needed += [Requirement("screen", "screen")]
    return tuple(dict.fromkeys(needed))


def missing_packages(needed: Iterable[Requirement]) -> list[str]:
    """The packages to install; takes some 20 ms.

    Raises:
        HostError: when this is no Debian and something is missing.
    """
    needed = list(needed)
    absent = [one.package for one in needed if one.program and not _is_there(one.program)]
    libraries = [one.package for one in needed if one.program is None]
    if not (absent or libraries):
        return []
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        programs = [one.program for one in needed if one.program and one.package in absent]
        raise HostError(
            f"{', '.join(programs) or 'the guests’ C library'}: not found, and this host has no apt to install it with",
            next_step="use Debian or a derivative of it, or install "
            f"what corresponds to Debian's {', '.join([*absent, *libraries])}",
        )
    installed = _installed() if libraries else set[str]()
    return list(dict.fromkeys([*absent, *(name for name in libraries if name not in installed)]))


def ensure_packages(
    architectures: Iterable[Architecture],
    *,
    bridge: bool = False,
    tests: bool = False,
    slurm: bool = False,
    report: Callable[[str], None] = print,
) -> tuple[str, ...]:
    """Install what is missing, as root or through sudo, and return the packages' names; usually none, quickly.

    Args:
        bridge: Also what the machines' bridge takes.
        tests: Also what only the tests take.
        slurm: Also what the tests that submit to SLURM take.

    Raises:
        HostError: when something is missing and may not be installed (says by which command it could be), or apt fails.
    """
    sets = ((bridge, BRIDGE_REQUIREMENTS), (tests, TEST_REQUIREMENTS), (slurm, SLURM_REQUIREMENTS))
    more = [one for asked, some in sets if asked for one in some]
    missing = missing_packages((*requirements(architectures), *more))
    if not missing:
        return ()
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    prefix = _root_prefix(missing, install)
    report(f"installing {', '.join(missing)}")
    lock = ["-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"]
    by_hand = f"run it yourself and see: {' '.join([*prefix, *install])}"
    for words in (["apt-get", *lock, "update"], ["apt-get", *lock, *install[1:]]):
        run_command(
            # sudo drops the environment, and debconf would ask questions on a terminal.
            [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *words],
            doing="installing packages",
            timeout_s=INSTALL_TIMEOUT_S,
            next_step=by_hand,
        )
    return tuple(missing)


def _is_there(program: str) -> bool:
    # Debian's users do not have root's folders on their PATH.
    return shutil.which(program) is not None or shutil.which(program, path="/usr/sbin:/sbin") is not None


def _root_prefix(missing: list[str], install: list[str]) -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is not None:
        try:
            run_command(["sudo", "-n", "true"], doing="asking sudo", timeout_s=30.0)
        except HostError:
            # It wants a password or does not know this user; asking here could block a script for ever.
            pass
        else:
            return ["sudo", "-n"]
    raise HostError(
        f"missing: {', '.join(missing)}; only root may install packages",
        next_step=f"sudo apt-get update && sudo {' '.join(install)}",
    )


def _installed() -> set[str]:
    listing = run_command(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n"],
        doing="asking dpkg what is installed",
        timeout_s=60.0,
    )
    words = (line.split(" ", 1) for line in listing.splitlines())
    return {name for status, name in words if status == "installed"}
