"""Boots that fail, each in its own way; the kernel's parameters make them."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from runner.deadline import Deadline
from runner.errors import BootFailed
from runner.qemu.architectures import architecture
from runner.qemu.berth import Berth
from runner.qemu.boot import boot
from runner.qemu.command import Hardware, KernelBoot
from runner.qemu.image import GuestImage
from runner.qemu.killswitch import KillSwitch
from runner.qemu.probe import find_binary
from runner.specs import Accelerator, QemuSpec
from tests.qemu_guests import PATIENCE_S, eventually, own_children

pytestmark = pytest.mark.guest


def boot_with(tmp_path, *kernel_args: str, within_s: float = PATIENCE_S):
    spec = QemuSpec()
    arch = architecture(spec.arch)
    hardware = Hardware(binary=find_binary(spec), spec=spec, arch=arch, accel=Accelerator.TCG)
    image = GuestImage.current(spec.arch)
    kernel = KernelBoot(image.kernel, image.initrd, kernel_args)
    berth = Berth(name="qemu1", folder=tmp_path)
    return boot(berth, hardware, kernel, Deadline.after(within_s), KillSwitch("qemu1"))


def test_a_kernel_that_panics_is_noticed_long_before_the_deadline(tmp_path):
    began_s = time.monotonic()
    with pytest.raises(BootFailed, match="reset itself") as caught:
        boot_with(tmp_path, "rdinit=/nothing", "root=/dev/nothing")
    assert time.monotonic() - began_s < PATIENCE_S / 2
    assert "Kernel panic" in caught.value.evidence
    assert not own_children()


def test_a_guest_that_hangs_ends_at_the_deadline(tmp_path):
    with pytest.raises(BootFailed, match="waited 4 s for the guest to report ready"):
        boot_with(tmp_path, "rdinit=/bin/busybox", "--", "sh", within_s=4.0)
    assert not own_children()


def test_a_qemu_that_dies_while_it_boots_is_a_failed_boot(tmp_path):
    def kill_it() -> None:
        eventually(lambda: "qemu" in str(own_children()))
        for pid in own_children():
            os.kill(pid, signal.SIGKILL)

    killer = threading.Timer(0.5, kill_it)
    killer.start()
    with pytest.raises(BootFailed, match="SIGKILL"):
        boot_with(tmp_path)
    killer.join()
    assert not own_children()
