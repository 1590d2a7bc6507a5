"""Build guest images: whole or not at all, reproducibly, and only when something changed.

<cache>/images/<arch>/<16 digits of the digest>/    one image, see runner/qemu/image.py
<cache>/images/<arch>/current                       link to the image to use, replaced atomically
<cache>/images/<arch>/.lock                         held while one is built
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from host_setup import cpio
from host_setup.base_system import BaseSystem
from host_setup.command import run_command
from host_setup.guest_packages import PackageSource
from host_setup.image_keys import ImageKeys
from host_setup.initramfs import own_entries
from host_setup.sources import GUEST_SOURCES, sources_sha256
from runner.errors import HostError
from runner.files.durable import replace_text
from runner.files.private import make_private
from runner.qemu import image as layout
from runner.qemu.architectures import Architecture
from runner.qemu.image import GuestImage, ImageMetadata

# A dozen C files through a cross compiler take seconds.
COMPILE_TIMEOUT_S = 300.0


def ensure_image(
    arch: Architecture,
    *,
    refresh: bool = False,
    sources: Path = GUEST_SOURCES,
    report: Callable[[str], None] = print,
) -> GuestImage:
    """The current image of `arch`, built first if there is none or our sources changed since.

    Args:
        refresh: Look for newer packages as well.
        sources: Folder of the guest's own sources.
        report: Told, in a line, about every step that takes time.

    Raises:
        HostError: when it cannot be built. The image that was current before still is, and no file is left over.
    """
    if not refresh and (image := _up_to_date(arch, sources)) is not None:
        return image
    folder = layout.images_folder(arch.name)
    try:
        make_private(folder)
        with _locked(folder / ".lock", report):
            # Whoever held the lock before may have built what is wanted.
            if not refresh and (image := _up_to_date(arch, sources)) is not None:
                return image
            return _build(arch, folder, refresh=refresh, sources=sources, report=report)
    except OSError as exc:
        raise HostError(
            f"the image of {arch.name} cannot be written: {exc.strerror}",
            where=str(exc.filename or folder),
            next_step="make room or rights there, or set RTFLEET_CACHE to another folder",
        ) from exc


def _up_to_date(arch: Architecture, sources: Path) -> GuestImage | None:
    try:
        image = GuestImage.current(arch.name)
    except HostError:
        # None yet, or a damaged one: both end with a new one.
        return None
    return image if image.metadata.sources_sha256 == sources_sha256(sources) else None


@contextlib.contextmanager
def _locked(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process builds an image here, and keep others waiting."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that builds in {path.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    arch: Architecture, folder: Path, *, refresh: bool, sources: Path, report: Callable[[str], None]
) -> GuestImage:
    # Taken first: a source that is edited during the build makes the next run build again.
    built_from = sources_sha256(sources)
    for leftover in folder.glob(".build-*"):
        # Of a builder that was killed; the lock says that it is not at work any more.
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as name:
        work = Path(name)
        report(f"{arch.name}: compiling the task loader")
        task_loader = _compile(arch, sources, work / "loader")
        report(f"{arch.name}: fetching the guest's packages")
        source = PackageSource(arch, layout.cache_root())
        packages = source.current(refresh=refresh)
        report(f"{arch.name}: building the image of {packages.kernel.name} {packages.kernel.version}")
        base = BaseSystem.of(packages, source, kept=layout.cache_root() / "base" / arch.name, work=work)
        own = own_entries(init=(sources / "init").read_bytes(), task_loader=task_loader)
        # Not compressed: an emulated guest boots 0.3 s sooner, and no version of zlib has a say in the digest.
        # The kernel unpacks one archive after another.
        initrd = base.archive + cpio.archive(own)
        metadata = ImageMetadata(
            arch=arch.name,
            digest=hashlib.sha256(base.kernel + initrd).hexdigest(),
            kernel_release=packages.kernel_release,
            packages={package.name: package.version for package in packages.all},
            sources_sha256=built_from,
            sizes_bytes={},
        )
        image = _publish(metadata, base.kernel, initrd, folder=folder, work=work)
    report(f"{arch.name}: image {image.digest[:16]} is current")
    return image


def _compile(arch: Architecture, sources: Path, build: Path) -> bytes:
    run_command(
        ["make", "-C", sources, f"--jobs={os.cpu_count() or 1}", f"CC={arch.compiler}", f"BUILD={build}"],
        doing=f"compiling the task loader for {arch.name}",
        timeout_s=COMPILE_TIMEOUT_S,
        next_step=f"if {arch.compiler} is missing: python -m host_setup packages",
    )
    return (build / "taskloader").read_bytes()


def _publish(
    metadata: ImageMetadata, kernel: bytes, initrd: bytes, *, folder: Path, work: Path
) -> GuestImage:
    """Make `current` an image of this content: the one that is there already, or a new one with new keys."""
    final = folder / metadata.digest[:16]
    if (present := _present(final, kernel, initrd)) is not None:
        metadata = replace(metadata, sizes_bytes=present.metadata.sizes_bytes)
        replace_text(final / layout.METADATA_NAME, metadata.to_json(), sync=True)
    else:
        _write_image(work / "image", metadata, kernel, initrd)
        if final.exists():
            # Damaged; goes with the temporary folder.
            final.rename(work / "damaged")
        (work / "image").rename(final)
    (work / "current").symlink_to(final.name)
    (work / "current").replace(folder / "current")
    _sync(folder)
    return GuestImage.current(metadata.arch)


def _present(folder: Path, kernel: bytes, initrd: bytes) -> GuestImage | None:
    try:
        image = GuestImage.load(folder)
    except HostError:
        return None
    whole = image.kernel.read_bytes() == kernel and image.initrd.read_bytes().startswith(initrd)
    return image if whole else None


def _write_image(folder: Path, metadata: ImageMetadata, kernel: bytes, initrd: bytes) -> None:
    keys = ImageKeys.generate()
    contents = {
        layout.KERNEL_NAME: kernel,
        # The third archive, and the only one that the digest leaves out.
        layout.INITRD_NAME: initrd + cpio.archive(keys.guest_entries()),
        layout.CLIENT_KEY_NAME: keys.client_private,
        layout.HOST_KEY_NAME: f"{keys.host_public}\n".encode(),
    }
    sizes_bytes = {name: len(content) for name, content in contents.items()}
    contents[layout.METADATA_NAME] = replace(metadata, sizes_bytes=sizes_bytes).to_json().encode()
    make_private(folder)
    for name, content in contents.items():
        with open(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
