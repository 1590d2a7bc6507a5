"""A built guest image on this computer: where its files are, and what it takes to trust them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.errors import HostError
from runner.files.durable import MAX_BYTES, parse_json, read_start
from runner.qemu.architectures import ARCHITECTURES, architecture

# What the fields of image.json mean; another number is another layout.
IMAGE_VERSION = 1

KERNEL_NAME = "vmlinuz"
INITRD_NAME = "initrd"
CLIENT_KEY_NAME = "client_key"
HOST_KEY_NAME = "host_key.pub"
METADATA_NAME = "image.json"
FILE_NAMES = (KERNEL_NAME, INITRD_NAME, CLIENT_KEY_NAME, HOST_KEY_NAME)


def cache_root() -> Path:
    """The folder of all that can be made again: `$RTFLEET_CACHE`, else `rtfleet` in the user's cache folder."""
    if own := os.environ.get("RTFLEET_CACHE"):
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification wants relative paths ignored.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "rtfleet"


def images_folder(arch: str) -> Path:
    """Where the images of an architecture lie, a folder each, with the link `current` to one of them."""
    return cache_root() / "images" / arch


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """What `image.json` says.

    Attributes:
        arch: A row of `ARCHITECTURES`.
        digest: SHA-256 over kernel and RAM disk, without the keys: equal on every computer that built the same image.
        kernel_release: What `uname -r` prints in the guest.
        packages: Versions of the Debian packages that the image was built from, by name.
        sources_sha256: Which sources of ours it was built from.
        sizes_bytes: Size of each of `FILE_NAMES`.
        version: Of this form.
    """

    arch: str
    digest: str
    kernel_release: str
    packages: dict[str, str]
    sources_sha256: str
    sizes_bytes: dict[str, int]
    version: int = IMAGE_VERSION

    def to_json(self) -> str:
        """The file's whole content."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ImageMetadata:
        """The opposite of `to_json`.

        Raises:
            ValueError: when the text is something else, or of another version; says what is wrong.
        """
        fields = parse_json(text)
        if not isinstance(fields, dict) or fields.get("version") != IMAGE_VERSION:
            raise ValueError(f"it is not of version {IMAGE_VERSION}")
        words = ("arch", "digest", "kernel_release", "sources_sha256")
        if fields.keys() != {*words, "packages", "sizes_bytes", "version"}:
            raise ValueError("it has other keys than an image's")
        packages, sizes_bytes = fields["packages"], fields["sizes_bytes"]
        if not all(isinstance(fields[word], str) for word in words) or fields["arch"] not in ARCHITECTURES:
            raise ValueError("it names no architecture, digest, kernel or sources")
        if not isinstance(packages, dict) or not all(isinstance(value, str) for value in packages.values()):
            raise ValueError("its packages are no versions by name")
        if not isinstance(sizes_bytes, dict) or sizes_bytes.keys() != set(FILE_NAMES):
            raise ValueError("its sizes are not those of an image's files")
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class GuestImage:
    """One image: never changed once it is there, so equal digests boot the same guest.

    Attributes:
        folder: Holds all of the image's files.
        metadata: What it was built from.
        host_key: The guest's own public key, `ssh-ed25519 AAAA…`.
    """

    folder: Path
    metadata: ImageMetadata
    host_key: str

    @property
    def arch(self) -> str:
        """A row of `ARCHITECTURES`."""
        return self.metadata.arch

    @property
    def digest(self) -> str:
        """SHA-256 over kernel and RAM disk, without the keys: equal on every computer that built the same image."""
        return self.metadata.digest

    @property
    def kernel_release(self) -> str:
        """What `uname -r` prints in the guest."""
        return self.metadata.kernel_release

    @property
    def kernel(self) -> Path:
        """For QEMU's `-kernel`."""
        return self.folder / KERNEL_NAME

    @property
    def initrd(self) -> Path:
        """For QEMU's `-initrd`; ends with the image's keys."""
        return self.folder / INITRD_NAME

    @property
    def client_key(self) -> Path:
        """OpenSSH private key that opens the guest."""
        return self.folder / CLIENT_KEY_NAME

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that change with content *or* keys: fit to name a booted snapshot by."""
        return hashlib.sha256(f"{self.digest}\n{self.host_key}\n".encode()).hexdigest()[:16]

    @classmethod
    def current(cls, arch: str) -> GuestImage:
        """The image that `python -m host_setup image` built or confirmed last.

        Raises:
            UsageError: when there is no such architecture.
            HostError: when there is no image, or as `load`.
        """
        architecture(arch)
        link = images_folder(arch) / "current"
        if not link.is_symlink():
            raise _unusable(link, f"no guest image of {arch} has been built yet", arch)
        image = cls.load(link.resolve(), arch=arch)
        if image.arch != arch:
            raise _unusable(link, f"the current image of {arch} is one of {image.arch}", arch)
        return image

    @classmethod
    def load(cls, folder: Path, *, arch: str = "") -> GuestImage:
        """The image in `folder`, which must be whole: every file there, and of the size that it was built with.

        Takes about a millisecond: kernel and RAM disk are not read.

        Args:
            arch: The architecture to build again if the image turns out to be unusable; for the message.

        Raises:
            HostError: when a file is missing, unreadable, cut off or not ours; names it.
        """
        folder = folder.absolute()
        path = folder / METADATA_NAME
        try:
            metadata = ImageMetadata.from_json(read_start(path, MAX_BYTES + 1))
            for name, size_bytes in metadata.sizes_bytes.items():
                path = folder / name
                status = path.stat()
                if not stat.S_ISREG(status.st_mode) or status.st_size != size_bytes:
                    raise ValueError(f"it has {status.st_size} bytes instead of {size_bytes}")
            path = folder / CLIENT_KEY_NAME
            if not os.access(path, os.R_OK):
                raise PermissionError(None, "Permission denied")
            path = folder / HOST_KEY_NAME
            host_key = path.read_text(encoding="ascii").strip()
        except FileNotFoundError as exc:
            raise _unusable(path, "the guest image is not whole: a file is missing", arch) from exc
        except OSError as exc:
            raise _unusable(path, f"the guest image cannot be read: {exc.strerror}", arch) from exc
        except ValueError as exc:
            raise _unusable(path, f"the guest image is damaged: {exc}", arch) from exc
        return cls(folder=folder, metadata=metadata, host_key=host_key)


def _unusable(path: Path, what: str, arch: str) -> HostError:
    return HostError(
        what,
        where=str(path),
        next_step=f"python -m host_setup image --arch {arch or '|'.join(ARCHITECTURES)}",
    )
