"""What a measurement on an exact guest depends on, beside its task set."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from runner.errors import HostError
from runner.qemu.architectures import architecture
from runner.qemu.command import Hardware, normal_command
from runner.qemu.contradictions import check_spec
from runner.qemu.image import GuestImage
from runner.qemu.probe import find_binary
from runner.specs import Accelerator, QemuSpec
from runner.task_loader import wire

# `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`
_VERSION = re.compile(r"QEMU emulator version (.+)")
_VERSION_TIMEOUT_S = 30.0


def measurement_settings(spec: QemuSpec) -> Mapping[str, str | int | float | None]:
    """Image, emulator and emulated computer; equal wherever these are equal, whoever built or installed them.

    Raises:
        UsageError, HostError: such a guest cannot be started here.
    """
    check_spec(spec)
    binary = find_binary(spec)
    image = GuestImage.load(spec.image, arch=spec.arch) if spec.image else GuestImage.current(spec.arch)
    hardware = Hardware(binary=binary, spec=spec, arch=architecture(spec.arch), accel=Accelerator.TCG)
    return {
        "guest_image_sha256": image.digest,
        "qemu_version": qemu_version(binary),
        "machine": normal_command(hardware),
        "booted_snapshot": int(spec.snapshot),
        "protocol": wire.VERSION,
        "start_delay_ns": wire.START_DELAY_NS,
    }


def qemu_version(binary: Path) -> str:
    """QEMU's version and package: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.

    Raises:
        HostError: it does not even tell that.
    """
    try:
        done = subprocess.run(
            [str(binary), "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise HostError(f"QEMU does not tell its version: {exc}", where=str(binary)) from exc
    found = _VERSION.search(done.stdout)
    if found is None:
        raise HostError(
            "QEMU does not tell its version",
            where=str(binary),
            evidence=done.stderr,
            next_step="see whether it starts at all: python -m host_setup check",
        )
    return found[1].strip()
