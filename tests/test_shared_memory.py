"""Memory that is shared with emulators: of a fixed size, and once sealed, of a fixed content."""

from __future__ import annotations

import mmap
import os
import stat
import threading
from pathlib import Path

import pytest

from runner.errors import HostShortage
from runner.qemu.shared_memory import CopyShelf, MailboxMemory, Memory, SealedCopy

MIB = 1 << 20


def opened(memory: Memory) -> int:
    """As QEMU opens it: by its path, for reading and writing."""
    return os.open(memory.path, os.O_RDWR)


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_who_shares_it_cannot_take_it_away_from_the_others():
    with MailboxMemory("qemu1", MIB) as memory:
        fd = opened(memory)
        for size_bytes in (0, 2 * MIB):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size_bytes)
        os.pwrite(fd, b"hello", 0)
        os.close(fd)
        assert memory.content() == b"hello"


def test_a_sealed_copy_can_be_mapped_and_changed_in_private_only(tmp_path):
    path = tmp_path / "ram"
    path.write_bytes(b"before" + bytes(MIB))
    with SealedCopy(path) as copy:
        fd = opened(copy)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"after", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 0)
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE) as private:
            private[:6] = b"after!"
        os.close(fd)
        path.write_bytes(b"other!")
        assert os.pread(copy.fd, 6, 0) == b"before"
        assert os.fstat(copy.fd).st_size == MIB + 6


def test_holes_stay_holes_there_and_back(tmp_path):
    path, again = tmp_path / "ram", tmp_path / "again"
    with path.open("wb") as file:
        for at, text in ((4096, b"one"), (20 * MIB, b"two")):
            file.seek(at)
            file.write(text)
        file.truncate(64 * MIB)
    with SealedCopy(path) as copy:
        assert os.fstat(copy.fd).st_blocks * 512 < MIB
        copy.write_to(again)
    assert again.read_bytes() == path.read_bytes()
    assert again.stat().st_blocks * 512 < MIB
    assert stat.S_IMODE(again.stat().st_mode) == 0o600


def test_a_copy_of_nothing_and_of_a_hole(tmp_path):
    for size_bytes in (0, MIB):
        path = tmp_path / str(size_bytes)
        with path.open("wb") as file:
            file.truncate(size_bytes)
        with SealedCopy(path) as copy:
            assert os.fstat(copy.fd).st_size == size_bytes


def test_nothing_is_left_open_where_it_does_not_work(tmp_path):
    before = n_descriptors()
    with pytest.raises(FileNotFoundError):
        SealedCopy(tmp_path / "none")
    with pytest.raises(OSError, match=r"Invalid|directory"):
        SealedCopy(tmp_path)
    with pytest.raises(HostShortage, match="no memory"):
        MailboxMemory("qemu1", 1 << 62)
    assert n_descriptors() == before


def test_one_copy_serves_all_and_a_changed_file_gets_another(tmp_path):
    shelf = CopyShelf(n_kept=1)
    path = tmp_path / "ram"
    path.write_bytes(b"one")
    with shelf.copy_of(path) as one, shelf.copy_of(path) as same:
        assert one is same
        path.write_bytes(b"another")
        with shelf.copy_of(path) as another:
            assert os.pread(another.fd, 10, 0) == b"another"
            assert os.pread(one.fd, 10, 0) == b"one"


def test_those_that_are_asked_for_no_more_go(tmp_path):
    shelf = CopyShelf(n_kept=2)
    before = n_descriptors()
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_bytes(b"x")
        with shelf.copy_of(path):
            pass
    assert n_descriptors() == before + 2
    with shelf.copy_of(paths[0]) as held:
        for path in paths[1:]:
            with shelf.copy_of(path):
                pass
        assert os.pread(held.fd, 1, 0) == b"x"


def test_of_many_threads_one_copies(tmp_path):
    shelf = CopyShelf(n_kept=1)
    path = tmp_path / "ram"
    path.write_bytes(bytes(8 * MIB))
    numbers = set()
    barrier = threading.Barrier(8)

    def take() -> None:
        with shelf.copy_of(path) as copy:
            numbers.add(copy.fd)
            barrier.wait(30)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 1


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), CopyShelf(n_kept=1).copy_of(tmp_path / "none"):
        pass
