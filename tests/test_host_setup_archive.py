"""What a guest image is put together from: archives, kernels, modules and keys."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_setup import cpio
from host_setup.image_keys import ImageKeys
from host_setup.kernel import ready_to_run
from host_setup.kernel_modules import load_order
from runner.errors import HostError


def read_back(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """Name, mode, content and device of every entry: a reader written against cpio(5)."""
    entries: list[tuple[str, int, bytes, tuple[int, int]]] = []
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = fields
        assert (uid, gid, mtime) == (0, 0, 0)
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert len(archive) == start
            return entries
        entries.append((name, mode, archive[start : start + size], (major, minor)))
        at = (start + size + 3) // 4 * 4


PATHS = st.lists(st.from_regex(r"[a-zA-Z0-9_é-]{1,6}", fullmatch=True), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(PATHS, st.binary(max_size=20), max_size=6))
def test_an_archive_holds_every_file_below_its_folders(files):
    # A name that is a file here and a folder there cannot be built; that is the builder's to avoid.
    files = {
        path: content for path, content in files.items() if not any(p.startswith(path + "/") for p in files)
    }
    entries = read_back(cpio.archive(cpio.file(path, content) for path, content in files.items()))
    names = [name for name, *_ in entries]
    assert {name: content for name, mode, content, _ in entries if stat.S_ISREG(mode)} == files
    assert names == sorted(set(names))
    for path in names:
        parent = path.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(path)


@given(st.permutations([cpio.file("b", b"1"), cpio.link("a", "b"), cpio.folder("c/d", 0o700)]))
def test_the_order_of_entries_does_not_matter(entries):
    assert cpio.archive(entries) == cpio.archive(sorted(entries, key=lambda entry: entry.path))


def test_kinds_and_permissions_survive():
    archive = cpio.archive(
        [cpio.character_device("dev/console", 5, 1), cpio.folder("root", 0o700), cpio.link("l", "t")]
    )
    found = {name: rest for name, *rest in read_back(archive)}
    assert found["dev/console"] == [stat.S_IFCHR | 0o600, b"", (5, 1)]
    assert found["dev"] == [stat.S_IFDIR | 0o755, b"", (0, 0)]
    assert found["root"] == [stat.S_IFDIR | 0o700, b"", (0, 0)]
    assert found["l"] == [stat.S_IFLNK | 0o777, b"t", (0, 0)]


def put_module(modules: Path, path: str, depends: str) -> None:
    file = modules / "kernel" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    put_module(tmp_path, "drivers/net/virtio_net.ko", "net_failover,virtio")
    put_module(tmp_path, "drivers/net/net_failover.ko", "failover")
    put_module(tmp_path, "net/core/failover.ko", "")
    put_module(tmp_path, "drivers/char/virtio-rng.ko", "rng-core")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\nkernel/drivers/rng-core.ko\n")
    return tmp_path


def test_modules_follow_their_dependencies(modules):
    names = [module.name for module in load_order(modules, ["virtio_net", "failover", "virtio_rng"])]
    assert names == ["failover", "net_failover", "virtio_net", "virtio_rng"]


def test_a_module_that_is_nowhere_is_named(modules):
    with pytest.raises(HostError, match="has no module floppy"):
        load_order(modules, ["floppy"])


def test_a_kernel_that_is_no_bzimage_stays_as_it_is():
    assert ready_to_run(b"MZ" + bytes(1000)) == b"MZ" + bytes(1000)


def test_a_bzimage_with_another_payload_stays_as_it_is():
    kernel = bytearray(4096)
    kernel[0x202:0x206] = b"HdrS"
    assert ready_to_run(bytes(kernel)) == bytes(kernel)


def test_keys_are_those_that_the_tools_of_ssh_know(tmp_path):
    keys = ImageKeys.generate()
    path = tmp_path / "key"
    path.write_bytes(keys.client_private)
    path.chmod(0o600)
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert derived.split()[:2] == keys.client_public.split()
    assert ImageKeys.generate().host_public != keys.host_public
