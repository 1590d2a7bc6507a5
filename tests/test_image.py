"""Images on disk: found, trusted, or refused with the file's name and the next step."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import HostError, UsageError
from runner.qemu import image as layout
from runner.qemu.image import GuestImage, ImageMetadata, cache_root

CONTENTS = {
    layout.KERNEL_NAME: b"kernel",
    layout.INITRD_NAME: b"initrd",
    layout.CLIENT_KEY_NAME: b"key",
    layout.HOST_KEY_NAME: b"ssh-ed25519 AAAA\n",
}


def make_image(folder: Path, *, arch: str = "arm64", digest: str = "d" * 64) -> ImageMetadata:
    """An image that no guest boots from, whole in every other respect."""
    folder.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    metadata = ImageMetadata(
        arch=arch,
        digest=digest,
        kernel_release="6.1.0-1-rt",
        packages={"dropbear-bin": "1"},
        sources_sha256="s" * 64,
        sizes_bytes={name: len(content) for name, content in CONTENTS.items()},
    )
    (folder / layout.METADATA_NAME).write_text(metadata.to_json())
    return metadata


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    return layout.images_folder("arm64")


def test_a_whole_image_loads_as_it_was_described(tmp_path):
    metadata = make_image(tmp_path / "image")
    image = GuestImage.load(tmp_path / "image")
    assert image.metadata == metadata
    assert (image.arch, image.kernel_release) == ("arm64", "6.1.0-1-rt")
    assert image.host_key == "ssh-ed25519 AAAA"
    assert image.kernel.read_bytes() == b"kernel"
    assert image.initrd.read_bytes() == b"initrd"
    assert image.client_key.read_bytes() == b"key"


def test_paths_are_absolute_wherever_it_was_loaded_from(tmp_path, monkeypatch):
    # QEMU and SSH may run in another folder.
    make_image(tmp_path / "image")
    monkeypatch.chdir(tmp_path)
    assert GuestImage.load(Path("image")).kernel == tmp_path / "image" / "vmlinuz"


@pytest.mark.parametrize("name", [*CONTENTS, layout.METADATA_NAME])
def test_a_missing_file_is_named(tmp_path, name):
    make_image(tmp_path / "image")
    (tmp_path / "image" / name).unlink()
    with pytest.raises(HostError) as caught:
        GuestImage.load(tmp_path / "image", arch="arm64")
    assert caught.value.where == str(tmp_path / "image" / name)
    assert caught.value.next_step == "python -m host_setup image --arch arm64"


@pytest.mark.parametrize("name", [layout.KERNEL_NAME, layout.INITRD_NAME])
def test_a_cut_off_file_is_named(tmp_path, name):
    make_image(tmp_path / "image")
    (tmp_path / "image" / name).write_bytes(b"k")
    with pytest.raises(HostError, match="1 bytes instead of 6") as caught:
        GuestImage.load(tmp_path / "image")
    assert name in caught.value.where


def test_a_folder_where_a_file_should_be_is_refused(tmp_path):
    make_image(tmp_path / "image")
    (tmp_path / "image" / layout.CLIENT_KEY_NAME).unlink()
    (tmp_path / "image" / layout.CLIENT_KEY_NAME).mkdir()
    with pytest.raises(HostError, match="damaged"):
        GuestImage.load(tmp_path / "image")


@contextmanager
def as_somebody_else():
    """Root reads everything: be nobody for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


def test_an_unreadable_key_is_refused():
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_image(folder / "image")
        (folder / "image" / layout.CLIENT_KEY_NAME).chmod(0)
        with as_somebody_else(), pytest.raises(HostError, match="cannot be read: Permission denied"):
            GuestImage.load(folder / "image")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 99),
        ("arch", "vax"),
        ("digest", None),
        ("packages", ["busybox"]),
        ("packages", {"busybox": 1}),
        ("sizes_bytes", {}),
        ("unheard_of", 1),
    ],
)
def test_a_foreign_description_is_refused(tmp_path, key, value):
    fields = json.loads(make_image(tmp_path / "image").to_json()) | {key: value}
    (tmp_path / "image" / layout.METADATA_NAME).write_text(json.dumps(fields))
    with pytest.raises(HostError, match="damaged") as caught:
        GuestImage.load(tmp_path / "image")
    assert caught.value.where.endswith("image.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.text() | JSON.map(json.dumps))
def test_no_text_at_all_gets_past_the_description(text):
    with pytest.raises(ValueError, match=r"\S"):
        ImageMetadata.from_json(text)


@given(
    st.dictionaries(st.sampled_from(["arch", "digest", "packages", "sizes_bytes", "sources_sha256"]), JSON)
)
def test_a_description_with_other_values_never_causes_another_error(changes):
    good = ImageMetadata(
        arch="amd64",
        digest="d",
        kernel_release="6",
        packages={},
        sources_sha256="s",
        sizes_bytes=dict.fromkeys(layout.FILE_NAMES, 1),
    )
    fields = json.loads(good.to_json()) | changes
    try:
        found = ImageMetadata.from_json(json.dumps(fields))
    except ValueError:
        return
    assert json.loads(found.to_json()) == fields


def test_current_follows_the_link(images):
    make_image(images / "old")
    make_image(images / "new", digest="e" * 64)
    (images / "current").symlink_to("new")
    assert GuestImage.current("arm64").folder == images / "new"


def test_without_an_image_the_next_step_is_to_build_one(images):
    with pytest.raises(HostError, match="no guest image of arm64") as caught:
        GuestImage.current("arm64")
    assert caught.value.next_step == "python -m host_setup image --arch arm64"


def test_a_dangling_link_is_an_image_that_is_not_whole(images):
    images.mkdir(parents=True)
    (images / "current").symlink_to("gone")
    with pytest.raises(HostError, match="a file is missing"):
        GuestImage.current("arm64")


def test_the_image_of_another_architecture_is_refused(images):
    make_image(images / "wrong", arch="amd64")
    (images / "current").symlink_to("wrong")
    with pytest.raises(HostError, match="is one of amd64"):
        GuestImage.current("arm64")


def test_an_unknown_architecture_is_the_callers_mistake(images):
    with pytest.raises(UsageError, match="vax"):
        GuestImage.current("vax")


def test_loading_is_quick(tmp_path):
    # Each machine loads it once per start; the best of several, as the host may be busy.
    make_image(tmp_path / "image")
    times_s = []
    for _ in range(20):
        began_s = time.perf_counter()
        GuestImage.load(tmp_path / "image")
        times_s.append(time.perf_counter() - began_s)
    assert min(times_s) < 0.005


def test_the_identity_changes_with_content_and_with_keys(tmp_path):
    # A booted snapshot holds the guest's keys: after a rebuild with the same content it must not be used.
    for name in ("one", "same", "other_content", "other_key"):
        make_image(tmp_path / name, digest=("e" if name == "other_content" else "d") * 64)
    (tmp_path / "other_key" / layout.HOST_KEY_NAME).write_bytes(b"ssh-ed25519 BBBB\n")
    identities = {path.name: GuestImage.load(path).identity for path in tmp_path.iterdir()}
    assert identities["one"] == identities["same"]
    assert len(set(identities.values())) == 3


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RTFLEET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / ".cache" / "rtfleet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == tmp_path / ".cache" / "rtfleet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache_root() == Path("/var/xdg/rtfleet")
    monkeypatch.setenv("RTFLEET_CACHE", "~/own")
    assert cache_root() == tmp_path / "own"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "7", "[]", '{"version": ' + "9" * 5000 + "}", " " * (2 << 20)]
)
def test_a_description_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    make_image(tmp_path / "image")
    (tmp_path / "image" / layout.METADATA_NAME).write_text(text)
    with pytest.raises(HostError, match="damaged"):
        GuestImage.load(tmp_path / "image")
