"""What QEMU and this computer can do, found out by doing it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, HostError
from runner.files.durable import read_json, replace_text
from runner.files.private import make_private
from runner.qemu.architectures import architecture
from runner.qemu.berth import Berth
from runner.qemu.boot import boot
from runner.qemu.command import Hardware, KernelBoot, Wiring
from runner.qemu.confinement import KVM_DEVICE, can_open, for_qemu, qemu_account
from runner.qemu.emulator import Emulator
from runner.qemu.image import GuestImage, cache_root
from runner.qemu.killswitch import KillSwitch
from runner.specs import Accelerator, Clock, NetworkSpec, QemuSpec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# Under working KVM the guest is up in two or three seconds; one that is not up by then is of no use.
_KVM_BOOT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class QemuAbilities:
    """What one QEMU can do.

    Attributes:
        binary: Its file.
        version: `7.2.22`.
        icount: Whether it counts instructions for the guest's clock (Clock.ICOUNT).
        snapshots: Whether it can leave RAM in its file (booted snapshots).
    """

    binary: Path
    version: str
    icount: bool
    snapshots: bool


@dataclass(frozen=True)
class Acceleration:
    """What executes guest code under Clock.HOST.

    Attributes:
        accel: KVM only where it booted a guest.
        reason: Why, in a sentence.
    """

    accel: Accelerator
    reason: str


def find_binary(spec: QemuSpec) -> Path:
    """The QEMU that a spec asks for.

    Raises:
        UsageError: when there is no such architecture.
        HostError: when it is not there; names the package that holds it.
    """
    arch = architecture(spec.arch)
    name = spec.qemu_binary or arch.qemu_binary
    found = shutil.which(name)
    if found is None:
        key = "machines.qemu.qemu_binary" if spec.qemu_binary else "the PATH"
        raise HostError(
            f"QEMU is missing: there is no program {name!r}",
            where=key,
            next_step=f"python -m host_setup packages (it installs {arch.qemu_package})",
        )
    return Path(found).absolute()


def probe_qemu(binary: Path, deadline: Deadline) -> QemuAbilities:
    """Start QEMU without a machine, once for each question; takes a tenth of a second.

    Raises:
        HostError: it does not even start.
        BootFailed: it does not answer before the deadline.
    """
    switch = KillSwitch("probe")
    with tempfile.TemporaryDirectory(prefix="rtfleet-probe-") as folder:
        berth = Berth(name="probe", folder=Path(folder))

        def bare(*options: str) -> Emulator:
            def build(wiring: Wiring) -> list[str]:
                return [
                    *(
                        str(binary),
                        "-machine",
                        "none",
                        "-nodefaults",
                        "-no-user-config",
                        "-display",
                        "none",
                        "-S",
                    ),
                    *("-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
                    *options,
                ]

            return Emulator(berth, build, deadline, switch, confinement=for_qemu())

        with bare() as emulator:
            known = {row["capability"] for row in emulator.execute("query-migrate-capabilities")}
            version = emulator.version
        try:
            with bare("-accel", "tcg", "-icount", "shift=3,align=off,sleep=off"):
                icount = True
        except HostError:
            icount = False
    return QemuAbilities(binary=binary, version=version, icount=icount, snapshots="x-ignore-shared" in known)


def choose_acceleration(
    spec: QemuSpec, image: GuestImage, deadline: Deadline, switch: KillSwitch
) -> Acceleration:
    """KVM if it boots this very guest, else TCG. The answer is kept until the host boots, or QEMU or the image changes.

    Raises:
        HostError: QEMU is missing.
        MachineKilled: the switch was pulled.
    """
    arch = architecture(spec.arch)
    if spec.clock is Clock.ICOUNT:
        return Acceleration(Accelerator.TCG, "only TCG counts instructions")
    if platform.machine() != arch.kvm_host_machine:
        return Acceleration(
            Accelerator.TCG, f"KVM runs {arch.name} guests on {arch.kvm_host_machine} hosts only"
        )
    account = qemu_account()
    if not can_open(KVM_DEVICE, account):
        whose = "" if account is None else f" by {account.name}, as whom QEMU runs"
        return Acceleration(Accelerator.TCG, f"{KVM_DEVICE} is missing or may not be opened{whose}")
    binary = find_binary(spec)
    memo = cache_root() / "probes" / f"{_kvm_key(binary, image)}.json"
    found = remembered(memo)
    if found is None:
        hardware = Hardware(binary=binary, spec=replace(spec, vcpus=1), arch=arch, accel=Accelerator.KVM)
        found = _try_kvm(hardware, image, deadline.at_most(_KVM_BOOT_S), switch)
        make_private(memo.parent)
        replace_text(memo, json.dumps({"accel": found.accel.value, "reason": found.reason}) + "\n")
    return found


def _kvm_key(binary: Path, image: GuestImage) -> str:
    status = binary.resolve().stat()
    words = [_BOOT_ID.read_text(), str(binary.resolve()), status.st_size, status.st_mtime_ns, image.identity]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def remembered(memo: Path) -> Acceleration | None:
    """The answer that was kept in that file; None where there is none, or something else."""
    try:
        fields = read_json(memo)
        return Acceleration(Accelerator(fields["accel"]), str(fields["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _try_kvm(hardware: Hardware, image: GuestImage, deadline: Deadline, switch: KillSwitch) -> Acceleration:
    # On no bridge, where it would take a machine's place.
    hardware = replace(hardware, spec=replace(hardware.spec, network=NetworkSpec()))
    with tempfile.TemporaryDirectory(prefix="rtfleet-kvm-") as folder:
        berth = Berth(name="kvm-probe", folder=Path(folder))
        try:
            boot(berth, hardware, KernelBoot(image.kernel, image.initrd), deadline, switch).end()
        except (BootFailed, HostError) as exc:
            last_words = "; ".join([exc.what, *exc.evidence.splitlines()[-1:]])
            return Acceleration(Accelerator.TCG, f"KVM is there but does not boot the guest: {last_words}")
    return Acceleration(Accelerator.KVM, "KVM booted the guest")
