"""A guest's root file system, as the list of entries of its initial RAM disk."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from host_setup import cpio
from host_setup.command import run_command
from host_setup.kernel_modules import load_order
from runner.errors import HostError

# A network card on PCI; all else that a guest needs is built into Debian's kernels.
WANTED_MODULES = ("virtio_pci", "virtio_net")
# By which a guest on a bridge asks for its address; no other guest loads it.
DHCP_MODULES = ("af_packet",)

# Dropbear accepts a shell only if the system lists it.
_TEXT_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hostname": "rtfleet\n",
}
_EMPTY_FOLDERS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777, "var": 0o755}


def base_entries(unpacked: Path, *, release: str) -> list[cpio.Entry]:
    """Everything in the guest that comes from Debian, and the few texts that its programs look for.

    Args:
        unpacked: The guest's packages, unpacked over one another.
        release: The kernel's release, names its folder of modules.

    Raises:
        HostError: when a package does not hold what it is expected to.
    """
    return [
        *(cpio.folder(path, permissions) for path, permissions in _EMPTY_FOLDERS.items()),
        # The kernel opens the console before init can mount /dev.
        cpio.character_device("dev/console", 5, 1),
        cpio.character_device("dev/null", 1, 3),
        *(cpio.file(path, text.encode()) for path, text in _TEXT_FILES.items()),
        cpio.file("bin/busybox", _read(unpacked / "bin/busybox"), 0o755),
        cpio.link("bin/sh", "busybox"),
        *_program(unpacked, "usr/sbin/dropbear"),
        *_modules(unpacked / "lib/modules" / release),
    ]


def own_entries(*, init: bytes, task_loader: bytes) -> list[cpio.Entry]:
    """What is ours: the script that the kernel starts first, and the program that runs task sets."""
    return [cpio.file("init", init, 0o755), cpio.file("bin/taskloader", task_loader, 0o755)]


def _modules(folder: Path) -> Iterator[cpio.Entry]:
    modules = load_order(folder, WANTED_MODULES)
    further = load_order(folder, DHCP_MODULES)
    for order, listed in (("order", modules), ("order-dhcp", further)):
        yield cpio.file(f"lib/modules/{order}", "".join(f"{module.name}\n" for module in listed).encode())
    for module in dict.fromkeys((*modules, *further)):
        yield cpio.file(f"lib/modules/{module.name}.ko", module.content)


def _program(unpacked: Path, path: str) -> Iterator[cpio.Entry]:
    """A dynamically linked program, its interpreter and every library that it needs, however indirectly."""
    yield cpio.file(path, _read(unpacked / path), 0o755)
    seen: set[str] = set()
    queue = deque([unpacked / path])
    while queue:
        dynamic = run_command(
            ["readelf", "--wide", "--dynamic", "--program-headers", queue.popleft()],
            doing=f"reading which libraries {path} needs",
            timeout_s=30.0,
        )
        for interpreter in re.findall(r"program interpreter: /(\S+)\]", dynamic):
            yield cpio.file(interpreter, _read(unpacked / interpreter), 0o755)
        for library in re.findall(r"\(NEEDED\)\s+Shared library: \[(\S+)\]", dynamic):
            if library not in seen:
                seen.add(library)
                found = _find_library(unpacked, library)
                yield cpio.file(f"lib/{library}", _read(found), 0o755)
                queue.append(found)


def _find_library(unpacked: Path, name: str) -> Path:
    for pattern in ("lib/*", "usr/lib/*", "lib", "usr/lib"):
        for found in sorted(unpacked.glob(f"{pattern}/{name}")):
            return found
    raise HostError(f"no package of the guest holds the library {name}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise HostError(
            f"the guest's packages do not hold {path.name}: {exc.strerror}", where=str(path)
        ) from exc
