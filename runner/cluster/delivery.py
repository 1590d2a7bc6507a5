"""The guests' image on its way to a worker whose computer does not have it: once, and whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from runner.errors import HostError
from runner.files.durable import sync_folder, sync_tree
from runner.files.private import make_private
from runner.qemu.image import FILE_NAMES, METADATA_NAME, GuestImage, images_folder

_CHUNK_BYTES = 8 << 20


def send(image: GuestImage, take: Callable[[str, bytes], object]) -> dict[str, str]:
    """Hand over all files of an image, chunk by chunk; the SHA-256 of each, for the other end to check.

    Raises:
        OSError: one cannot be read.
    """
    digests = {}
    for name in (*FILE_NAMES, METADATA_NAME):
        digest = hashlib.sha256()
        with (image.folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                take(name, chunk)
        digests[name] = digest.hexdigest()
    return digests


class Delivery:
    """Where an image arrives: the cache of images, in a folder that has its identity for a name.

    It may have been built here, too, with the same digest and other keys: that one keeps its place.

    Guarantees: a folder of the cache holds the whole image, or is not there; after `finish()` or `drop()` nothing else is left.
    Threads: one at a time; others, and other processes, may take the same image in at the same time.

    Args:
        identity: Of the image, its content and keys.
        arch: Its architecture.
        name: Of its folder at the other end.
    """

    def __init__(self, identity: str, arch: str, name: str) -> None:
        self._identity = identity
        self._images = images_folder(arch)
        self._name = name
        self._partial: Path | None = None

    def find(self) -> Path | None:
        """The image's folder in this computer's cache; None: it has to be sent."""
        for name in (self._name, self._identity):
            if self._is_image(self._images / name):
                return self._images / name
        return None

    def take(self, name: str, chunk: bytes) -> None:
        """Append to one of its files.

        Raises:
            OSError: the cache cannot be written.
        """
        if self._partial is None:
            make_private(self._images)
            self._partial = Path(tempfile.mkdtemp(prefix=".image-", dir=self._images))
        with open(self._partial / name, "ab", opener=_private) as file:
            file.write(chunk)

    def finish(self, digests: Mapping[str, str]) -> Path:
        """All files were sent, with these SHA-256; the image's folder.

        Raises:
            HostError: what arrived is something else; it is removed.
            OSError: the cache cannot be written.
        """
        partial = self._partial
        try:
            damaged = [
                name
                for name in sorted(digests)
                if partial is None or _sha256(partial / name) != digests[name]
            ]
            if partial is None or damaged or not self._is_image(partial):
                raise HostError(
                    f"the image did not arrive whole: {', '.join(damaged) or 'it is not the one that was announced'}",
                    where=str(self._images),
                    next_step="it is sent again when the worker joins anew, or with the next run",
                )
            sync_tree(partial)
            self._publish(partial)
        finally:
            self.drop()
        return self._images / self._identity

    def drop(self) -> None:
        """Forget what has arrived so far; again does nothing."""
        partial, self._partial = self._partial, None
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path) -> None:
        final = self._images / self._identity
        if final.exists() and not self._is_image(final):
            shutil.rmtree(final)  # damaged, and of no use to anybody
        try:
            partial.rename(final)
        except OSError:
            if not self._is_image(final):  # else another worker of this computer was first
                raise
        sync_folder(self._images)

    def _is_image(self, folder: Path) -> bool:
        try:
            return GuestImage.load(folder).identity == self._identity
        except HostError:
            return False


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
