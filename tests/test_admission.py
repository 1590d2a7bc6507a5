"""How many machines a computer can bear, as a function of what is read: sound, never none, and steady."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.admission.capacity import MIB, Admission, Needs, Readings, Reserves, decide, port_taken, refuse
from runner.errors import HostError, HostShortage
from runner.machines.kinds import needs_of, qemu_by_mailbox, simulated
from runner.specs import QemuSpec, Reach, Reset

IDLE = Readings(
    memory_total_bytes=24576 * MIB,
    memory_available_bytes=20480 * MIB,
    descriptors=1000,
    disk_total_bytes=100_000 * MIB,
    disk_free_bytes=50_000 * MIB,
    inodes=1_000_000,
)
NEEDS = Needs(memory_bytes=300 * MIB, descriptors=20)

sizes = st.integers(0, 1 << 40)
readings = st.builds(
    Readings,
    memory_total_bytes=sizes,
    memory_available_bytes=sizes,
    memory_used_bytes=sizes,
    descriptors=st.integers(0, 1 << 20),
    disk_total_bytes=sizes,
    disk_free_bytes=sizes,
    inodes=st.none() | st.integers(0, 1 << 20),
    n_machines=st.integers(0, 64),
)
needs = st.builds(Needs, memory_bytes=st.integers(0, 1 << 36), descriptors=st.integers(0, 100))
reserves = st.builds(Reserves, memory_mib=st.integers(0, 1 << 20), disk_mib=st.integers(0, 1 << 20))


def with_memory(available_mib: float, used_mib: int = 0) -> Readings:
    return replace(IDLE, memory_available_bytes=int(available_mib * MIB), memory_used_bytes=used_mib * MIB)


@given(readings, needs, reserves)
def test_what_is_promised_fits_and_one_machine_is_always_tried(now, needs, reserves):
    admission = decide(now, needs, reserves)
    n = admission.n_machines
    assert (n is None) == (needs == replace(needs, memory_bytes=0, descriptors=0))
    assert (n is None) == (admission.why == "")
    if n is not None:
        assert n >= 1
    if n is not None and n > 1:
        promised = n * needs.memory_bytes + (reserves.memory_mib * MIB if needs.memory_bytes else 0)
        assert promised <= now.memory_available_bytes + now.memory_used_bytes or not needs.memory_bytes
        assert n * needs.descriptors <= now.descriptors + now.n_machines * needs.descriptors


@given(st.integers(1, 40), st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1))
def test_what_sways_within_half_a_machine_changes_nothing_twice(n, sways, offset):
    """It may come down once; it goes up again only with room to spare."""
    base_mib = 256 + (n + offset) * 300
    admission, seen = Admission(n_machines=n), [n]
    for sway in sways:
        admission = decide(with_memory(base_mib + sway * 149), NEEDS, Reserves(), admission)
        seen.append(admission.n_machines)
    changes = [pair for pair in itertools.pairwise(seen) if pair[0] != pair[1]]
    assert len(changes) <= 1


@given(st.integers(0, 20), st.integers(0, 6000))
def test_what_a_machine_takes_of_its_share_changes_nothing(n_before, used_mib):
    before = Admission(n_machines=n_before) if n_before else None
    at_rest = decide(with_memory(8000), NEEDS, Reserves(), before)
    at_work = decide(with_memory(8000 - used_mib, used_mib), NEEDS, Reserves(), before)
    assert at_rest.n_machines == at_work.n_machines


def test_memory_that_is_short_means_fewer_machines_and_says_the_figures():
    admission = decide(with_memory(1000), NEEDS, Reserves())
    assert admission.n_machines == 2
    assert admission.why == (
        "memory for 2: 1000 MiB are available and 0 MiB in use by machines, each needs 300 MiB, 256 MiB are reserved"
        " (machines.qemu.memory_mib, machines.admission.memory_reserve_mib)"
    )
    assert decide(with_memory(10), NEEDS, Reserves()).n_machines == 1


def test_descriptors_that_are_short_mean_fewer_machines():
    admission = decide(replace(IDLE, descriptors=130), NEEDS, Reserves())
    assert (admission.n_machines, admission.why) == (
        3, "descriptors for 3: 130 are left, each needs 20 (ulimit -n)",
    )  # fmt: skip
    # Those that the machines hold are theirs.
    assert decide(replace(IDLE, descriptors=70, n_machines=3), NEEDS, Reserves()).n_machines == 3


def test_a_disk_with_less_than_the_reserve_holds_until_a_quarter_more_is_free():
    held: list[bool] = []
    admission = None
    for free_mib in (64, 63, 64, 79, 80, 64, 63):
        admission = decide(replace(IDLE, disk_free_bytes=free_mib * MIB), NEEDS, Reserves(), admission)
        held.append(bool(admission.held))
    assert held == [False, True, True, True, False, False, True]
    assert admission is not None
    assert "63 MiB free, 64 MiB are reserved (machines.admission.disk_reserve_mib)" in admission.held


def test_files_may_run_short_before_bytes_do():
    assert decide(replace(IDLE, inodes=5), NEEDS, Reserves()).held == (
        "the run folder's disk takes 5 more files only"
    )
    assert decide(replace(IDLE, inodes=None), NEEDS, Reserves()).held == ""
    # Without a reserve, it is for what writes to find out.
    assert decide(replace(IDLE, inodes=5, disk_free_bytes=0), NEEDS, Reserves(disk_mib=0)).held == ""


def test_a_machine_without_a_guest_is_limited_by_nothing():
    assert decide(with_memory(1), simulated().needs, Reserves()).n_machines is None


def test_what_can_never_be_is_refused_with_figures_and_key():
    refuse(IDLE, NEEDS, Reserves())
    with pytest.raises(HostError, match="needs 300 MiB of memory, this computer has 299 MiB") as caught:
        refuse(replace(IDLE, memory_total_bytes=299 * MIB), NEEDS, Reserves())
    assert caught.value.where == "machines.qemu.memory_mib"
    with pytest.raises(HostError, match=r"64 MiB are to stay free .* which holds 8 MiB in all") as caught:
        refuse(replace(IDLE, disk_total_bytes=8 * MIB), NEEDS, Reserves())
    assert caught.value.where == "machines.admission.disk_reserve_mib"


def test_a_taken_port_is_named_with_its_holder():
    error = port_taken(2223, 2, "nginx (process 7)")
    assert isinstance(error, HostShortage)
    assert error.what == "port 2223 of 127.0.0.1, which machine 2 needs, is in use by nginx (process 7)"
    assert error.where == "machines.qemu.ssh_port"
    assert port_taken(2223, 2, "").what.endswith("is in use")


def test_a_machine_counts_with_all_that_its_guests_may_touch():
    spec = QemuSpec(memory_mib=512, mailbox_mib=64, ssh_port=2222)
    assert needs_of(spec, Reset.MACHINE).memory_bytes == (512 + 64 + 32) * MIB
    assert needs_of(spec, Reset.TASKSET).memory_bytes == (512 + 64 + 32 + 24) * MIB
    assert needs_of(replace(spec, reach=Reach.SSH), Reset.MACHINE).memory_bytes == (512 + 32) * MIB
    assert needs_of(spec, Reset.TASKSET).first_port == 2222
    assert qemu_by_mailbox().needs.memory_bytes == 312 * MIB
