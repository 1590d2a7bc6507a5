"""The store of booted snapshots: made once, whole or absent, remade when damaged."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import BootFailed, HostError, HostShortage, MachineKilled
from runner.qemu.host import QemuHost
from runner.qemu.killswitch import KillSwitch
from runner.qemu.snapshot import Snapshot, SnapshotStore
from runner.specs import Reach
from tests.qemu_guests import PATIENCE_S, guest_spec, measures, ssh_banner


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots")


class Maker:
    """Makes small snapshots and counts them."""

    def __init__(self, *, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self.n_made = 0
        self._takes_s = takes_s
        self._error = error

    def __call__(self, snapshot: Snapshot) -> None:
        snapshot.ram.write_bytes(b"ram")
        time.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        snapshot.state.write_bytes(b"state")
        self.n_made += 1


def lease(
    store: SnapshotStore,
    make: Maker,
    *,
    key: str = "key",
    deadline_s: float = 10.0,
    memory_bytes: int = 1,
    switch: KillSwitch | None = None,
) -> AbstractContextManager[Snapshot]:
    return store.lease(
        key,
        make,
        memory_bytes=memory_bytes,
        deadline=Deadline.after(deadline_s),
        switch=switch or KillSwitch("test"),
    )


def test_made_once_and_used_by_many_at_a_time(store):
    make = Maker()
    with ExitStack() as stack:
        snapshots = [stack.enter_context(lease(store, make)) for _ in range(3)]
        assert all(snapshot.state.read_bytes() == b"state" for snapshot in snapshots)
    assert make.n_made == 1


def test_of_many_threads_one_makes_it(store):
    make = Maker(takes_s=0.2)
    seen = []

    def use():
        with lease(store, make) as snapshot:
            seen.append(snapshot.ram.read_bytes())

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (make.n_made, seen) == (1, [b"ram"] * 5)


@pytest.mark.parametrize("name", ["ram", "state", "mailbox", "snapshot.json"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_snapshot_that_was_touched_is_made_anew(store, name, damage):
    make = Maker()
    with lease(store, make) as snapshot:
        path = snapshot.folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[::-1] + b"x")
    with lease(store, make) as snapshot:
        assert snapshot.ram.read_bytes() == b"ram"
    assert make.n_made == 2


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "9" * 5000])
def test_a_seal_that_is_none_vouches_for_nothing(store, text):
    with lease(store, Maker()) as snapshot:
        snapshot.seal.write_text(text)
        assert not snapshot.sealed()


def test_a_failed_making_leaves_nothing_and_is_tried_again(store, tmp_path):
    with pytest.raises(BootFailed), lease(store, Maker(error=BootFailed("no"))):
        pass
    assert [path.suffix for path in (tmp_path / "snapshots").iterdir()] == [".lock"]
    make = Maker()
    with lease(store, make):
        assert make.n_made == 1


def test_what_a_killed_runner_left_is_never_used(store, tmp_path):
    partial = tmp_path / "snapshots" / "key.partial"
    partial.mkdir(parents=True)
    (partial / "ram").write_bytes(b"half")
    with lease(store, Maker()) as snapshot:
        assert snapshot.ram.read_bytes() == b"ram"
    assert not partial.exists()


LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_runner_makes_it(tmp_path):
    """Another process that holds the lock, as one does that makes the snapshot."""
    (tmp_path / "snapshots").mkdir()
    command = [sys.executable, "-c", LOCKER, str(tmp_path / "snapshots" / "key.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("other_runner_makes_it")
def test_waiting_for_another_runner_has_a_deadline(store):
    with (
        pytest.raises(BootFailed, match=r"waited 0.1 s for another runner"),
        lease(store, Maker(), deadline_s=0.1),
    ):
        pass


@pytest.mark.usefixtures("other_runner_makes_it")
def test_waiting_for_another_runner_ends_when_killed(store):
    switch = KillSwitch("qemu1")
    threading.Timer(0.1, switch.pull).start()
    with pytest.raises(MachineKilled), lease(store, Maker(), switch=switch):
        pass


def test_waiting_ends_when_the_other_runner_dies(store, other_runner_makes_it):
    threading.Timer(0.1, other_runner_makes_it.kill).start()
    with lease(store, Maker()) as snapshot:
        assert snapshot.sealed()


def test_a_full_disk_is_told_before_it_is_full(store):
    with pytest.raises(HostShortage, match="no room") as caught, lease(store, Maker(), memory_bytes=1 << 60):
        pass
    assert "RTFLEET_CACHE" in caught.value.next_step


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HostError, match="cannot be used"),
        lease(SnapshotStore(tmp_path / "file" / "x"), Maker()),
    ):
        pass


def test_those_unused_for_longest_go(store, tmp_path):
    with lease(store, Maker(), key="held"):
        for number in range(12):
            with lease(store, Maker(), key=f"key{number}"):
                pass
        kept = {seal.parent.name for seal in (tmp_path / "snapshots").glob("*/snapshot.json")}
    # The oldest of all is in use, and stays.
    assert kept == {"held", *(f"key{number}" for number in range(4, 12))}


def test_discarding_waits_for_those_who_load_it(store):
    switch = KillSwitch("test")
    with lease(store, Maker()) as snapshot:
        with pytest.raises(BootFailed):
            store.discard("key", deadline=Deadline.after(0.05), switch=switch)
        assert snapshot.sealed()
    store.discard("key", deadline=Deadline.after(1.0), switch=switch)
    assert not snapshot.folder.exists()


def test_locks_do_not_leak_into_children(store):
    # A QEMU that inherited the lock would keep it as long as it lives.
    with lease(store, Maker()) as snapshot:
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with (snapshot.folder.parent / "key.lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()


@pytest.mark.guest
@pytest.mark.parametrize("reach", Reach)
def test_a_snapshot_that_qemu_refuses_is_made_anew_once(tmp_path, monkeypatch, caplog, reach):
    spec = guest_spec(reach=reach)
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    with QemuHost(spec, "qemu1", tmp_path / "qemu1") as host:
        host.start(Deadline.after(PATIENCE_S))
    folder = next(Path(tmp_path / "cache" / "snapshots").glob("*/ram")).parent
    damaged = Snapshot(folder)
    damaged.state.write_bytes(damaged.state.read_bytes()[:1000] + b"garbage" * 1000)
    damaged.put_seal()
    with QemuHost(spec, "qemu1", tmp_path / "qemu1") as host:
        host.start(Deadline.after(PATIENCE_S))
        if reach is Reach.MAILBOX:
            assert measures(host)
        else:
            host.resume()
            assert ssh_banner(host.ssh_address)
    assert "making it anew" in caplog.text
    assert b"garbage" not in damaged.state.read_bytes()
