"""Boots that fail, each in its own way; the kernel's parameters make them."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

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
from runner.qemu.shared_memory import MailboxMemory
from runner.specs import Accelerator, QemuSpec, Reach
from tests.qemu_guests import PATIENCE_S, eventually, own_children

pytestmark = pytest.mark.guest


def boot_with(tmp_path, reach: Reach, *kernel_args: str, within_s: float = PATIENCE_S):
    spec = QemuSpec(reach=reach)
    arch = architecture(spec.arch)
    hardware = Hardware(binary=find_binary(spec), spec=spec, arch=arch, accel=Accelerator.TCG)
    image = GuestImage.current(spec.arch)
    kernel = KernelBoot(image.kernel, image.initrd, kernel_args)
    with ExitStack() as stack:
        memory = None
        if reach is Reach.MAILBOX:
            memory = stack.enter_context(MailboxMemory("qemu1", spec.mailbox_mib << 20))
        berth = Berth(name="qemu1", folder=tmp_path, mailbox=memory)
        return boot(berth, hardware, kernel, Deadline.after(within_s), KillSwitch("qemu1"))


@pytest.mark.parametrize("reach", Reach)
def test_a_kernel_that_panics_is_noticed_long_before_the_deadline(tmp_path, reach):
    began_s = time.monotonic()
    with pytest.raises(BootFailed, match="reset itself") as caught:
        boot_with(tmp_path, reach, "rdinit=/nothing", "root=/dev/nothing")
    assert time.monotonic() - began_s < PATIENCE_S / 2
    assert "Kernel panic" in caught.value.evidence
    assert not own_children()


@pytest.mark.parametrize("reach", Reach)
def test_a_guest_that_hangs_ends_at_the_deadline(tmp_path, reach):
    with pytest.raises(BootFailed, match="waited 4 s for the guest to report ready"):
        boot_with(tmp_path, reach, "rdinit=/bin/busybox", "--", "sh", within_s=4.0)
    assert not own_children()


GIVES_UP = "; ".join(
    (
        "/bin/busybox mount -t sysfs sysfs /sys",
        "/bin/busybox mount -t devtmpfs devtmpfs /dev",
        "echo rtfleet: panic: no",
        "/bin/taskloader bell panic",
        "/bin/busybox sleep 99",
    )
)


@pytest.mark.parametrize("reach", Reach)
def test_a_guest_that_gives_up_is_noticed(tmp_path, reach):
    """Its bell is the one that a mailbox's answers ring, too: but there is no hello in it."""
    began_s = time.monotonic()
    with pytest.raises(BootFailed, match="qemu1: the guest gave up") as caught:
        boot_with(tmp_path, reach, "rdinit=/bin/busybox", "--", "sh", "-c", f'"{GIVES_UP}"')
    assert time.monotonic() - began_s < PATIENCE_S / 2
    assert "rtfleet: panic: no" in caught.value.evidence
    assert not own_children()


@pytest.mark.parametrize("reach", Reach)
def test_a_qemu_that_dies_while_it_boots_is_a_failed_boot(tmp_path, reach):
    def booting() -> bool:
        """Whether a QEMU of ours has used more of a CPU than it takes to start."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                if str(tmp_path).encode() in path.read_bytes():
                    fields = path.with_name("stat").read_text().rpartition(")")[2].split()
                    return int(fields[11]) / os.sysconf("SC_CLK_TCK") > 0.3
        return False

    def kill_it() -> None:
        eventually(booting, within_s=PATIENCE_S)
        for pid in own_children():
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(BootFailed, match="SIGKILL"):
        boot_with(tmp_path, reach)
    killer.join()
    assert not own_children()
