"""A doctor: what this host can do, each found out by doing it, and what to do about what it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from host_setup.packages import missing_packages, requirements
from host_setup.sources import GUEST_SOURCES, sources_sha256
from host_setup.stem import is_current
from runner.deadline import Deadline
from runner.errors import RunnerError
from runner.qemu.architectures import Architecture
from runner.qemu.confinement import QEMU_USER, qemu_account
from runner.qemu.host import QemuHost
from runner.qemu.image import GuestImage, cache_root
from runner.qemu.killswitch import KillSwitch
from runner.qemu.launcher import has_sandbox
from runner.qemu.probe import choose_acceleration, find_binary, probe_qemu
from runner.qemu.stem import Stem, StemUnusableError, shim_path
from runner.specs import Accelerator, Clock, QemuSpec

OLDEST_PYTHON = (3, 11)

# A guest's 128 MiB and what QEMU takes beside it: 55 to 75 MiB (docs of the snapshots' measurements).
MACHINE_MIB = 200

# A kernel package is 350 MB unpacked while an image is built; a booted snapshot takes 128 MiB.
DISK_MIB = 1024

# As many as the config allows without raising its limit.
N_PORTS = 7

PROBE_TIMEOUT_S = 10.0

# A slow host boots an amd64 guest in tens of seconds; the next start is from the snapshot of it.
BOOT_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        ability: What was looked at.
        good: Whether the host has it.
        detail: What was found.
        next_step: What to do if it is not good.
        needed: Whether the default run cannot do without it.
    """

    ability: str
    good: bool
    detail: str
    next_step: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok" if self.good else "missing" if self.needed else "note"
        line = f"{mark:<8} {self.ability}: {self.detail}"
        return line if self.good or not self.next_step else f"{line}\n         next: {self.next_step}"


def check_host(architectures: Iterable[Architecture], *, report: Callable[[str], None] = print) -> bool:
    """Report line by line as it is found out; True if the default run can work.

    Boots guests, as only a booted one proves that it boots.
    """
    usable = True
    for finding in _findings(tuple(architectures)):
        report(str(finding))
        usable = usable and (finding.good or not finding.needed)
    report("This host can run the default run." if usable else "This host cannot run the default run yet.")
    return usable


def _findings(architectures: tuple[Architecture, ...]) -> Iterator[Finding]:
    yield _python()
    yield _guarded("packages", partial(_packages, architectures))
    yield _user()
    for arch in architectures:
        yield from _qemu(arch)
        yield _guarded(f"{arch.name} sandbox", partial(_sandbox, arch))
        yield _guarded(f"{arch.name} quick start", partial(_quick_start, arch))
        image = _guarded(f"{arch.name} image", partial(_image, arch))
        yield image
        if image.good or not image.needed:
            yield _guarded(f"{arch.name} guest", partial(_guest, arch))
            yield _guarded(f"{arch.name} acceleration", partial(_acceleration, arch))
    yield _ports()
    yield _memory()
    yield _disk()


def _guarded(ability: str, find: Callable[[], Finding]) -> Finding:
    """A finding, also where finding out failed."""
    try:
        return find()
    except RunnerError as error:
        return Finding(ability=ability, good=False, detail=error.what, next_step=error.next_step)


def _python() -> Finding:
    return Finding(
        ability="Python",
        good=sys.version_info >= OLDEST_PYTHON,
        detail=platform.python_version(),
        next_step=f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer",
    )


def _packages(architectures: tuple[Architecture, ...]) -> Finding:
    missing = missing_packages(requirements(architectures))
    return Finding(
        ability="packages",
        good=not missing,
        detail=f"not installed: {', '.join(missing)}" if missing else "QEMU and compilers are installed",
        next_step="python -m host_setup packages",
    )


def _qemu(arch: Architecture) -> Iterator[Finding]:
    try:
        binary = find_binary(QemuSpec(arch=arch.name))
        can = probe_qemu(binary, Deadline.after(PROBE_TIMEOUT_S))
    except RunnerError as error:
        yield Finding(ability=f"{arch.name} QEMU", good=False, detail=error.what, next_step=error.next_step)
        return
    yield Finding(ability=f"{arch.name} QEMU", good=True, detail=f"{can.version} ({can.binary})")
    yield Finding(
        ability=f"{arch.name} instruction-counted time",
        good=can.icount,
        detail="the guest's clock counts instructions" if can.icount else "this QEMU has no -icount",
        next_step="install a QEMU built with TCG, or set machines.qemu.clock=host (times then depend on the host)",
    )
    yield Finding(
        ability=f"{arch.name} snapshots",
        good=can.snapshots,
        detail="guests start from a booted snapshot"
        if can.snapshots
        else "this QEMU cannot leave RAM in its file",
        next_step="install QEMU 4.0 or newer, or set machines.qemu.snapshot=false (each start is a boot then)",
    )


def _user() -> Finding:
    account = qemu_account()
    if account is None:
        root = os.geteuid() == 0
        detail = "root: this computer knows no other user" if root else "the runner's own"
        return Finding(
            ability="QEMU's user",
            good=not root,
            detail=detail,
            next_step="run as an ordinary user",
            needed=False,
        )
    return Finding(
        ability="QEMU's user",
        good=account.name == QEMU_USER,
        detail=account.name if account.name == QEMU_USER else f"{account.name}, as are others' programs",
        next_step="python -m host_setup packages",
        needed=False,
    )


def _sandbox(arch: Architecture) -> Finding:
    there = has_sandbox(find_binary(QemuSpec(arch=arch.name)))
    return Finding(
        ability=f"{arch.name} sandbox",
        good=there,
        detail="QEMU can start no program and ask for no rights" if there else "this QEMU has no -sandbox",
        next_step="install a QEMU built with seccomp, as Debian's is",
        needed=False,
    )


def _quick_start(arch: Architecture) -> Finding:
    binary = find_binary(QemuSpec(arch=arch.name))
    try:
        Stem(binary, shim_path()).close()
        good, detail = True, "QEMU is forked from one that is loaded already"
        if not is_current():
            good, detail = False, f"{shim_path()} was built from another source or by another compiler"
    except StemUnusableError as exc:
        good, detail = False, f"each QEMU is loaded anew: {exc}"
    return Finding(
        ability=f"{arch.name} quick start",
        good=good,
        detail=detail,
        next_step="python -m host_setup stem",
        needed=False,
    )


def _image(arch: Architecture) -> Finding:
    image = GuestImage.current(arch.name)
    current = image.metadata.sources_sha256 == sources_sha256(GUEST_SOURCES)
    found = f"{image.digest[:16]} with Linux {image.kernel_release}"
    return Finding(
        ability=f"{arch.name} image",
        good=current,
        detail=found if current else f"{found} was built from other sources than these",
        next_step=f"python -m host_setup image --arch {arch.name}",
        # An older image runs as well; `make run` replaces it.
        needed=False,
    )


def _guest(arch: Architecture) -> Finding:
    with (
        tempfile.TemporaryDirectory(prefix="rtfleet-check-") as folder,
        QemuHost(QemuSpec(arch=arch.name), "check", Path(folder)) as host,
    ):
        host.start(Deadline.after(BOOT_TIMEOUT_S))
        return Finding(
            ability=f"{arch.name} guest",
            good=True,
            detail=f"one was ready {host.facts.start_s:.2f} s after its start ({host.facts.boot.value})",
        )


def _acceleration(arch: Architecture) -> Finding:
    spec = QemuSpec(arch=arch.name, clock=Clock.HOST)
    switch = KillSwitch("check")
    found = choose_acceleration(spec, GuestImage.current(arch.name), Deadline.after(PROBE_TIMEOUT_S), switch)
    return Finding(
        ability=f"{arch.name} acceleration",
        good=found.accel is Accelerator.KVM,
        detail=f"{found.reason.rstrip('.')}; only machines.qemu.clock=host makes use of it",
        needed=False,
    )


def _ports() -> Finding:
    with ExitStack() as opened:
        try:
            for _ in range(N_PORTS):
                opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        except OSError as error:
            return Finding(
                ability="loopback ports",
                good=False,
                detail=f"no {N_PORTS} free ones on 127.0.0.1: {error.strerror}",
                next_step="see `ss -ltn` for what holds them, and that the loopback interface is up",
            )
    return Finding(ability="loopback ports", good=True, detail=f"{N_PORTS} free ones found")


def _memory() -> Finding:
    words = Path("/proc/meminfo").read_text(encoding="ascii").split()
    free_mib = int(words[words.index("MemAvailable:") + 1]) // 1024
    return Finding(
        ability="memory",
        good=free_mib >= MACHINE_MIB,
        detail=f"{free_mib} MiB available, enough for {free_mib // MACHINE_MIB} machines of the default size",
        next_step=f"free some: a machine takes {MACHINE_MIB} MiB",
    )


def _disk() -> Finding:
    folder = cache_root()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free_mib = shutil.disk_usage(there).free >> 20
    return Finding(
        ability="disk",
        good=free_mib >= DISK_MIB,
        detail=f"{free_mib} MiB free for {folder}",
        next_step=f"free some, or set RTFLEET_CACHE to a folder with {DISK_MIB} MiB",
    )
