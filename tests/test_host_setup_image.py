"""Images, really built: reproducible, cached, whole or not at all. Packages come from the user's own cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from host_setup.image import ensure_image
from host_setup.sources import GUEST_SOURCES
from runner.errors import HostError
from runner.qemu.architectures import architecture
from runner.qemu.image import METADATA_NAME, GuestImage, cache_root, images_folder

# Building takes QEMU's compilers and the packages that `make test` downloaded.
pytestmark = pytest.mark.guest

PROJECT = Path(__file__).parents[1]
ARM64 = architecture("arm64")

# Before any test points elsewhere.
USERS_CACHE = cache_root()

BUILD = """
import os, sys
from pathlib import Path
from host_setup.image import ensure_image
from runner.qemu.architectures import architecture
os.umask(int(sys.argv[2], 8))
print(ensure_image(architecture("arm64"), sources=Path(sys.argv[1]), report=lambda line: None).folder)
"""


def own_cache(folder: Path) -> Path:
    """A cache without images that shares the downloaded packages with the user's."""
    state = folder / "apt" / "arm64"
    state.mkdir(parents=True)
    shutil.copy(USERS_CACHE / "apt" / "arm64" / "packages.json", state)
    (folder / "debs").mkdir()
    for deb in (USERS_CACHE / "debs").glob("*.deb"):
        (folder / "debs" / deb.name).symlink_to(deb)
    return folder


def build(cache: Path, sources: Path, *, umask: str = "022", zone: str = "UTC") -> subprocess.Popen[str]:
    """A builder in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(sources), umask],
        cwd=PROJECT,
        env={**os.environ, "RTFLEET_CACHE": str(cache), "TZ": zone},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's sources as they were when the tests began."""
    folder = tmp_path_factory.mktemp("sources") / "guest"
    shutil.copytree(GUEST_SOURCES, folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """A cache in which two processes built the same image at once, into an empty folder."""
    cache = own_cache(tmp_path_factory.mktemp("built"))
    builders = [build(cache, sources) for _ in range(2)]
    folders = [builder.communicate(timeout=240)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert folders[0] == folders[1]
    return cache


@pytest.fixture
def cache(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that cache, to be spoilt."""
    shutil.copytree(built, tmp_path / "cache", symlinks=True)
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def listing(cache: Path) -> dict[str, int]:
    """Everything below a cache, with the inode: a file that was written again shows."""
    return {str(path.relative_to(cache)): path.lstat().st_ino for path in sorted(cache.rglob("*"))}


def fail_if_told(line: str) -> None:
    pytest.fail(f"something was done: {line}")


def test_of_two_builders_at_once_one_builds(built):
    # The link and one image: the second builder found it when the first let go of the lock.
    names = {path.name for path in (built / "images" / "arm64").iterdir()}
    assert len(names) == 3
    assert {".lock", "current"} < names


def test_the_same_inputs_give_the_same_digest(built, sources, tmp_path):
    other_sources = shutil.copytree(sources, tmp_path / "elsewhere" / "guest")
    cache = own_cache(tmp_path / "other")
    builder = build(cache, other_sources, umask="077", zone="Asia/Kathmandu")
    other = GuestImage.load(Path(builder.communicate(timeout=240)[0].strip()))
    first = GuestImage.load((built / "images" / "arm64" / "current").resolve())
    assert other.digest == first.digest
    assert other.kernel.read_bytes() == first.kernel.read_bytes()
    # Every image has keys of its own, behind what is the same.
    assert other.host_key != first.host_key
    assert other.initrd.read_bytes() != first.initrd.read_bytes()
    assert other.initrd.stat().st_size == first.initrd.stat().st_size


def test_the_key_is_for_its_owner_alone(cache):
    image = GuestImage.current("arm64")
    for path in (image.client_key, image.initrd):
        assert path.stat().st_mode & 0o077 == 0


def test_the_description_tells_what_it_was_built_from(cache):
    image = GuestImage.current("arm64")
    assert f"linux-image-{image.kernel_release}" in image.metadata.packages
    assert {"busybox-static", "dropbear-bin", "libc6"} < image.metadata.packages.keys()


def test_with_everything_in_place_nothing_is_done(cache, sources, monkeypatch, tmp_path):
    # No apt, no compiler, no make is even to be found.
    monkeypatch.setenv("PATH", str(tmp_path))
    before = listing(cache)
    began_s = time.perf_counter()
    ensure_image(ARM64, sources=sources, report=fail_if_told)
    assert time.perf_counter() - began_s < 0.1
    assert listing(cache) == before


def test_a_changed_source_builds_anew_without_apt(cache, sources, monkeypatch, tmp_path):
    changed = shutil.copytree(sources, tmp_path / "changed")
    with (changed / "init").open("a") as init:
        init.write("# changed\n")
    refuse = tmp_path / "bin"
    refuse.mkdir()
    for name in ("apt-get", "apt-cache"):
        (refuse / name).write_text("#!/bin/sh\nexit 1\n")
        (refuse / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{refuse}:{os.environ['PATH']}")
    old = GuestImage.current("arm64")
    new = ensure_image(ARM64, sources=changed)
    assert new.digest != old.digest
    assert GuestImage.current("arm64") == new
    # The old one stays: a run may be using it.
    assert GuestImage.load(old.folder) == old


def test_a_change_that_changes_nothing_keeps_image_and_keys(cache, sources, tmp_path):
    changed = shutil.copytree(sources, tmp_path / "changed")
    with (changed / "Makefile").open("a") as makefile:
        makefile.write("# a comment\n")
    old = GuestImage.current("arm64")
    new = ensure_image(ARM64, sources=changed)
    assert (new.folder, new.identity) == (old.folder, old.identity)
    ensure_image(ARM64, sources=changed, report=fail_if_told)


def test_sources_that_do_not_compile_leave_the_old_image(cache, sources, tmp_path):
    broken = shutil.copytree(sources, tmp_path / "broken")
    with (broken / "main.c").open("a") as main:
        main.write("int broken = no_such_thing;\n")
    before = listing(cache)
    with pytest.raises(HostError, match="compiling the task loader for arm64") as caught:
        ensure_image(ARM64, sources=broken)
    assert "no_such_thing" in caught.value.evidence
    assert listing(cache) == before
    ensure_image(ARM64, sources=sources, report=fail_if_told)


def test_a_download_that_fails_leaves_the_old_image(cache, sources, tmp_path, monkeypatch):
    # Asked for newer packages, apt is called, and says no.
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho 'E: Could not resolve the archive' >&2\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    images = cache / "images"
    before = listing(images)
    with pytest.raises(HostError, match="reading the package lists of arm64") as caught:
        ensure_image(ARM64, sources=sources, refresh=True)
    assert "Could not resolve the archive" in caught.value.evidence
    assert listing(images) == before


def test_a_damaged_package_is_dropped_and_named(cache, sources, tmp_path):
    changed = shutil.copytree(sources, tmp_path / "changed")
    (changed / "note").touch()
    shutil.rmtree(cache / "base")
    memo = json.loads((cache / "apt" / "arm64" / "packages.json").read_text())
    deb = cache / "debs" / f"{memo['answer']['kernel']['sha256']}.deb"
    deb.unlink()
    deb.write_bytes(b"cut off")
    with pytest.raises(HostError, match=r"cached package linux-image-.* was damaged"):
        ensure_image(ARM64, sources=changed)
    assert not deb.exists()


def test_a_damaged_base_system_is_unpacked_again(cache, sources, tmp_path):
    changed = shutil.copytree(sources, tmp_path / "changed")
    (changed / "note").touch()
    [archive] = (cache / "base" / "arm64").glob("*/archive")
    with archive.open("r+b") as file:
        file.seek(100_000)
        file.write(b"bit rot")
    # The sources' change does not reach the guest: any difference would be the damage's.
    before = GuestImage.current("arm64").digest
    assert ensure_image(ARM64, sources=changed).digest == before
    assert b"bit rot" not in next((cache / "base" / "arm64").glob("*/archive")).read_bytes()


def test_a_damaged_image_is_replaced_with_new_keys(cache, sources):
    old = GuestImage.current("arm64")
    os.truncate(old.kernel, 1000)
    with pytest.raises(HostError, match="damaged"):
        GuestImage.current("arm64")
    new = ensure_image(ARM64, sources=sources)
    assert (new.folder, new.digest) == (old.folder, old.digest)
    assert new.identity != old.identity
    assert not list(images_folder("arm64").glob(".build-*"))


def test_leftovers_of_a_killed_builder_go_with_the_next_build(cache, sources):
    leftover = images_folder("arm64") / ".build-killed" / "image"
    leftover.mkdir(parents=True)
    (leftover / "vmlinuz").touch()
    # Half-written: no description, so the link to it is an image that is not whole.
    (images_folder("arm64") / "current").unlink()
    (images_folder("arm64") / "current").symlink_to(".build-killed/image")
    image = ensure_image(ARM64, sources=sources)
    assert (image.folder / METADATA_NAME).exists()
    assert not list(images_folder("arm64").glob(".build-*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, sources):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "file"))
    with pytest.raises(HostError, match="cannot be written") as caught:
        ensure_image(ARM64, sources=sources)
    assert caught.value.where.startswith(str(tmp_path / "file"))
