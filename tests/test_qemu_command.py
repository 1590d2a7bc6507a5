"""QEMU's command line: whole commands as golden files, and what decides the name of a snapshot."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.errors import UsageError
from runner.qemu.architectures import architecture
from runner.qemu.command import (
    Hardware,
    KernelBoot,
    SnapshotRestore,
    Wiring,
    build_command,
    normal_command,
    sandboxed,
    snapshot_key,
)
from runner.qemu.contradictions import check_spec
from runner.specs import Accelerator, Clock, NetworkKind, NetworkSpec, QemuSpec, Reach

GOLDEN = Path(__file__).parent / "golden"

WIRING = Wiring(
    name="qemu1", qmp_fd=9, console_log=Path("/run/qemu1/console.log"), mailbox=Path("/proc/self/fd/8")
)
OVER_SSH = replace(WIRING, mailbox=None, ssh_port=0)
BRIDGE = NetworkSpec(kind=NetworkKind.BRIDGE)
ON_BRIDGE = replace(WIRING, mailbox=None, tap_fd=10, mac="0a:06:00:00:00:01")
KERNEL = KernelBoot(Path("/image/vmlinuz"), Path("/image/initrd.gz"))
RAM = Path("/snapshots/ab/ram")


def hardware(accel: Accelerator = Accelerator.TCG, **settings: Any) -> Hardware:
    spec = replace(QemuSpec(), **settings)
    arch = architecture(spec.arch)
    return Hardware(binary=Path("/usr/bin") / arch.qemu_binary, spec=spec, arch=arch, accel=accel)


@pytest.mark.parametrize(
    ("name", "machine", "start"),
    [
        ("cold_arm64", hardware(), KERNEL),
        ("cold_amd64", hardware(arch="amd64", cpu_mips=1000.0), KERNEL),
        ("cold_over_ssh_arm64", hardware(reach=Reach.SSH), KERNEL),
        ("cold_bridge_arm64", hardware(reach=Reach.SSH, network=BRIDGE), KERNEL),
        (
            "cold_bridge_host_clock_amd64",
            hardware(arch="amd64", clock=Clock.HOST, network=BRIDGE, reach=Reach.SSH),
            KERNEL,
        ),
        ("make_snapshot_arm64", hardware(), replace(KERNEL, ram=RAM)),
        ("restore_arm64", hardware(), SnapshotRestore(RAM)),
        (
            "host_clock_kvm_amd64",
            hardware(Accelerator.KVM, arch="amd64", clock=Clock.HOST, reach=Reach.SSH, vcpus=4),
            KERNEL,
        ),
    ],
)
def test_whole_command(name, machine, start):
    # A change of an option changes what is measured: it has to be seen in review.
    wiring = ON_BRIDGE if machine.spec.bridged else OVER_SSH if machine.spec.reach is Reach.SSH else WIRING
    text = shlex.join(build_command(machine, start, wiring)).replace(" -", "\n-")
    assert text + "\n" == (GOLDEN / f"qemu_{name}.txt").read_text(encoding="utf-8")


def test_making_and_restoring_show_the_guest_the_same_devices():
    made = build_command(hardware(), replace(KERNEL, ram=RAM), WIRING)
    restored = build_command(hardware(), SnapshotRestore(RAM), WIRING)
    assert set(made) ^ set(restored) == {
        f"memory-backend-file,id=ram,size=128M,share=on,mem-path={RAM}",
        f"memory-backend-file,id=ram,size=128M,share=off,mem-path={RAM}",
        *("-kernel", "/image/vmlinuz", "-initrd", "/image/initrd.gz", "-append"),
        made[made.index("-append") + 1],
        *("-incoming", "defer"),
    }


def test_commas_in_paths_do_not_become_options():
    wiring = replace(WIRING, console_log=Path("/a,b/share=on,c/console.log"), name="x,debug-threads=on")
    command = build_command(hardware(), SnapshotRestore(Path("/r,am")), wiring)
    assert "pty,id=console,logfile=/a,,b/share=on,,c/console.log,logappend=on" in command
    assert "memory-backend-file,id=ram,size=128M,share=off,mem-path=/r,,am" in command
    assert "x,,debug-threads=on" in command


def test_the_guest_is_cut_off_and_only_loopback_leads_in():
    network = [
        word
        for word in build_command(hardware(reach=Reach.SSH), KERNEL, OVER_SSH)
        if word.startswith("user,")
    ]
    assert network == ["user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"]


def test_a_guest_with_a_mailbox_has_a_network_only_where_somebody_wants_to_log_in():
    assert not [word for word in build_command(hardware(), KERNEL, WIRING) if "net" in word.split(",")[0]]
    reachable = build_command(hardware(ssh_port=2222), KERNEL, replace(WIRING, ssh_port=2222))
    assert "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:2222-:22" in reachable


def test_a_genode_host_is_told_so_and_has_a_second_port_forwarded():
    machine = hardware(reach=Reach.SSH, genode_port=13001)
    command = build_command(machine, KERNEL, replace(OVER_SSH, genode_port=13002))
    assert (
        "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:13002-:3001"
        in command
    )
    assert "rtfleet.genode=3001" in command[-1].split()
    assert "rtfleet.genode" not in " ".join(build_command(hardware(reach=Reach.SSH), KERNEL, OVER_SSH))


@pytest.mark.parametrize(
    ("settings", "key", "hint"),
    [
        ({"vcpus": 2}, "machines.qemu.vcpus", "clock=host"),
        ({"vcpus": 0, "clock": Clock.HOST, "reach": Reach.SSH}, "machines.qemu.vcpus", "at least 1"),
        ({"cpu_mips": 120.0}, "machines.qemu.cpu_mips", "125"),
        ({"cpu_mips": 0.0}, "machines.qemu.cpu_mips", "125"),
        ({"clock": Clock.HOST}, "machines.session", "machines=host_clock"),
        ({"mailbox_mib": 3}, "machines.qemu.mailbox_mib", "1, 2, 4"),
        ({"mailbox_mib": 0}, "machines.qemu.mailbox_mib", "1, 2, 4"),
        ({"memory_mib": 32}, "machines.qemu.memory_mib", "at least 64"),
        ({"genode_port": 3001}, "machines.qemu.genode_port", "host_clock"),
        (
            {
                "genode_port": 13001,
                "reach": Reach.SSH,
                "network": NetworkSpec(kind=NetworkKind.BRIDGE),
            },
            "machines.qemu.genode_port",
            "3001, or machines/network=user",
        ),
    ],
)
def test_contradictions_are_refused_by_key(settings, key, hint):
    with pytest.raises(UsageError) as caught:
        check_spec(replace(QemuSpec(), **settings))
    assert caught.value.where == key
    assert hint in caught.value.next_step


def test_several_cpus_are_fine_on_the_host_clock():
    check_spec(QemuSpec(clock=Clock.HOST, reach=Reach.SSH, vcpus=4))


def test_snapshot_key_changes_with_what_matters_only(tmp_path):
    binary = tmp_path / "qemu"
    binary.write_bytes(b"one")
    base = replace(hardware(), binary=binary)
    key = snapshot_key(base, KERNEL, "image")
    elsewhere = KernelBoot(Path("/other/vmlinuz"), Path("/other/initrd.gz"))
    same = [
        snapshot_key(base, elsewhere, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, image=Path("/elsewhere"))), KERNEL, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, start_timeout_s=1.0)), KERNEL, "image"),
    ]
    assert set(same) == {key}
    others = {
        snapshot_key(base, KERNEL, "another image"),
        snapshot_key(base, replace(KERNEL, kernel_args=("debug",)), "image"),
        snapshot_key(replace(base, spec=replace(base.spec, cpu_mips=1000.0)), KERNEL, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, memory_mib=256)), KERNEL, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, mailbox_mib=64)), KERNEL, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, reach=Reach.SSH)), KERNEL, "image"),
        snapshot_key(replace(base, spec=replace(base.spec, ssh_port=2222)), KERNEL, "image"),
        snapshot_key(replace(base, arch=replace(base.arch, cpu="cortex-a72")), KERNEL, "image"),
    }
    binary.write_bytes(b"an upgrade")
    others.add(snapshot_key(base, KERNEL, "image"))
    assert len(others | {key}) == 10


def test_the_console_may_be_a_file_that_qemu_cannot_open():
    command = build_command(hardware(), KERNEL, replace(WIRING, console_fd=7, console_log=Path("/a,b/log")))
    assert command[command.index("-add-fd") + 1] == "fd=7,set=1,opaque=/a,,b/log"
    assert "pty,id=console,logfile=/dev/fdset/1,logappend=on" in command
    assert command.index("-add-fd") < command.index("pty,id=console,logfile=/dev/fdset/1,logappend=on")


def test_the_sandbox_denies_all_that_it_can_and_is_not_part_of_the_measurement():
    command = build_command(hardware(), KERNEL, WIRING)
    denied = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert sandboxed(command) == [command[0], "-sandbox", denied, *command[1:]]
    assert "sandbox" not in normal_command(hardware())
    assert "add-fd" not in normal_command(hardware())
