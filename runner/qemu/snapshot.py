"""Booted guests on disk: made once, by whoever needs one first, and shared by all that start after."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, HostError, HostShortage
from runner.files.durable import read_json
from runner.files.private import make_private, write_private
from runner.qemu.killswitch import KillSwitch

#: Layout of a snapshot's folder; another number makes new snapshots.
FORMAT = 2

# Each is at most as large as a guest's RAM; that many machine settings are in use at a time, rarely more.
_KEPT = 8

# Room that has to be left on the disk beside the RAM file.
_SPARE_BYTES = 64 << 20

_LOCK_RETRY_S = 0.02


@dataclass(frozen=True)
class Snapshot:
    """A paused guest.

    Attributes:
        folder: Holds its files, which nobody changes.
    """

    folder: Path

    @property
    def ram(self) -> Path:
        """The guest's RAM, of which each runner has a copy that its guests map copy-on-write."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """The state of its devices."""
        return self.folder / "state"

    @property
    def mailbox(self) -> Path:
        """What the guest said in its mailbox when it was ready; empty where it has none."""
        return self.folder / "mailbox"

    @property
    def seal(self) -> Path:
        """What the other files are like; written last."""
        return self.folder / "snapshot.json"

    def sealed(self) -> bool:
        """Whether every file is as it was when the snapshot was made.

        The RAM file is judged by size and time of change: reading 128 MiB would take longer than all the rest of a start.
        """
        try:
            return bool(read_json(self.seal) == self._describe())
        except (OSError, ValueError):
            return False

    def put_seal(self) -> None:
        """Vouch for the files as they are, and see that they survive a power loss.

        Raises:
            OSError: they cannot be written.
        """
        self.mailbox.touch(mode=0o600)
        write_private(self.seal, f"{json.dumps(self._describe())}\n".encode())
        for path in (self.ram, self.state, self.mailbox, self.seal):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _describe(self) -> dict[str, object]:
        ram = self.ram.stat()
        return {
            "format": FORMAT,
            "ram_bytes": ram.st_size,
            "ram_changed_ns": ram.st_mtime_ns,
            "state_sha256": hashlib.sha256(self.state.read_bytes()).hexdigest(),
            "mailbox_sha256": hashlib.sha256(self.mailbox.read_bytes()).hexdigest(),
        }


class SnapshotStore:
    """A folder of snapshots, shared by every runner of this user.

    Guarantees: a snapshot is seen whole or not at all; of all who want one at the same time, one makes it and the
    others wait; none is deleted while it is being loaded. A runner that is killed while it makes one leaves a
    folder `*.partial`, which the next one to make it deletes.
    Threads: every method is for any thread and any process.
    """

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: The store's folder; made if need be.
        """
        self._root = root
        self._log = logging.getLogger("runner.qemu.snapshot")

    @contextmanager
    def lease(
        self,
        key: str,
        make: Callable[[Snapshot], None],
        *,
        memory_bytes: int,
        deadline: Deadline,
        switch: KillSwitch,
    ) -> Iterator[Snapshot]:
        """The snapshot of that key, held in place while the block runs, made before if there is none.

        Args:
            key: Names everything that the snapshot depends on; a file name.
            make: Puts RAM and state into an empty folder.
            memory_bytes: What it needs on disk at most.

        Raises:
            HostError: the folder cannot be written; HostShortage: the disk is full.
            BootFailed: another runner was still making it when the deadline passed.
            MachineKilled: the switch was pulled meanwhile.
            Whatever `make` raises.
        """
        snapshot = Snapshot(self._root / key)
        while True:
            with self._locked(key, fcntl.LOCK_SH, deadline, switch):
                if snapshot.sealed():
                    with suppress(OSError):
                        os.utime(snapshot.folder)
                    yield snapshot
                    return
            with self._locked(key, fcntl.LOCK_EX, deadline, switch):
                if not snapshot.sealed():
                    with self._disk_errors():
                        self._make(snapshot, make, memory_bytes)
            self._prune()

    def discard(self, key: str, *, deadline: Deadline, switch: KillSwitch) -> None:
        """Delete a snapshot, once nobody is loading it.

        Raises:
            As `lease`.
        """
        with self._locked(key, fcntl.LOCK_EX, deadline, switch), self._disk_errors():
            _remove(self._root / key)

    def _make(self, snapshot: Snapshot, make: Callable[[Snapshot], None], memory_bytes: int) -> None:
        _remove(snapshot.folder)
        partial = Snapshot(self._root / f"{snapshot.folder.name}.partial")
        _remove(partial.folder)
        # Found now, it costs nobody the time of a boot.
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < memory_bytes + _SPARE_BYTES:
            raise HostShortage(
                f"no room for a booted snapshot: {memory_bytes + _SPARE_BYTES >> 20} MiB are needed, "
                f"{free_bytes >> 20} MiB are free",
                where=str(self._root),
                next_step="free some space, point RTFLEET_CACHE elsewhere, or set machines.qemu.snapshot=false",
            )
        with ExitStack() as half_made:
            half_made.callback(_remove, partial.folder)
            make_private(partial.folder)
            make(partial)
            partial.put_seal()
            partial.folder.rename(snapshot.folder)
            half_made.pop_all()
        self._log.info("made the booted snapshot %s", snapshot.folder)

    def _prune(self) -> None:
        """Delete those that were not used for longest, as far as nobody loads them."""
        with suppress(OSError):
            folders = [seal.parent for seal in self._root.glob("*/snapshot.json")]
            folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in folders[_KEPT:]:
                with suppress(BlockingIOError), self._lock_file(folder.name) as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)

    @contextmanager
    def _locked(self, key: str, kind: int, deadline: Deadline, switch: KillSwitch) -> Iterator[None]:
        with ExitStack() as held:
            with self._disk_errors():
                make_private(self._root)
                lock = held.enter_context(self._lock_file(key))
            while True:
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if deadline.passed:
                        raise BootFailed(
                            f"waited {deadline.budget_s:g} s for another runner to make the booted snapshot",
                            where=str(self._root / key),
                            next_step="raise machines.qemu.boot_timeout_s, or see why the other one takes so long",
                        ) from None
                switch.sleep(min(_LOCK_RETRY_S, deadline.remaining_s))
            yield

    @contextmanager
    def _lock_file(self, key: str) -> Iterator[int]:
        fd = os.open(self._root / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise HostError.because(
                exc,
                "the folder of booted snapshots cannot be used",
                where=str(self._root),
                next_step="make it writable, point RTFLEET_CACHE elsewhere, or set machines.qemu.snapshot=false",
            ) from exc


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
