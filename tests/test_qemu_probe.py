"""What probing finds, on whichever host this runs."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from runner.deadline import Deadline
from runner.errors import HostError
from runner.qemu.image import GuestImage
from runner.qemu.killswitch import KillSwitch
from runner.qemu.probe import choose_acceleration, find_binary, probe_qemu
from runner.specs import Accelerator, Clock, QemuSpec
from tests.qemu_guests import guest_spec

pytestmark = pytest.mark.guest


def test_abilities_of_this_qemu():
    found = probe_qemu(find_binary(QemuSpec()), Deadline.after(60))
    assert found.binary.is_absolute()
    assert int(found.version.split(".")[0]) >= 7
    assert (found.icount, found.snapshots) == (True, True)


def test_a_program_that_is_no_qemu_is_told(tmp_path):
    impostor = tmp_path / "qemu"
    impostor.write_text("#!/bin/sh\necho I am no emulator >&2; exit 1\n")
    impostor.chmod(0o755)
    with pytest.raises(HostError, match="QEMU could not run") as caught:
        probe_qemu(impostor, Deadline.after(60))
    assert "I am no emulator" in caught.value.evidence


def test_counted_time_never_asks_for_kvm():
    image = GuestImage.current("amd64")
    found = choose_acceleration(QemuSpec(arch="amd64"), image, Deadline.after(60), KillSwitch("test"))
    assert found.accel is Accelerator.TCG


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_host_time_takes_kvm_only_where_it_boots_and_remembers(tmp_path, monkeypatch, arch):
    spec = replace(guest_spec(arch), clock=Clock.HOST)
    image = GuestImage.current(arch)
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path))
    first = choose_acceleration(spec, image, Deadline.after(60), KillSwitch("test"))
    assert first.reason
    foreign = platform.machine() != {"arm64": "aarch64", "amd64": "x86_64"}[arch]
    if foreign:
        assert first.accel is Accelerator.TCG
    memos = list(tmp_path.glob("probes/*.json"))
    for memo in memos:
        memo.write_text(
            memo.read_text().replace(first.accel.value, "kvm").replace(first.reason, "remembered")
        )
    again = choose_acceleration(spec, image, Deadline.after(60), KillSwitch("test"))
    assert again.reason == ("remembered" if memos else first.reason)
