"""Which of a kernel's modules a guest loads, and in which order."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.errors import HostError


@dataclass(frozen=True)
class KernelModule:
    """A module as `insmod` takes it: its name and its content, not compressed."""

    name: str
    content: bytes


def load_order(modules: Path, wanted: Iterable[str]) -> tuple[KernelModule, ...]:
    """The wanted modules and all that they depend on, each after its own dependencies; built-in ones are left out.

    Debian writes `modules.dep` when a kernel is installed, not into the package, so the dependencies are read where
    `depmod` reads them: from the modules' own `.modinfo`.

    Args:
        modules: `lib/modules/<release>` of an unpacked kernel package.

    Raises:
        HostError: when a module is neither there nor built in.
    """
    built_in = {_name(Path(line)) for line in (modules / "modules.builtin").read_text().splitlines()}
    files = {_name(path): path for path in (modules / "kernel").rglob("*.ko*")}
    ordered: dict[str, KernelModule] = {}

    def add(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise HostError(
                f"the kernel {modules.name} has no module {name}",
                next_step="the guest's list of modules in host_setup/initramfs.py must follow the kernel",
            )
        content = _content(files[name])
        for dependency in _dependencies(content):
            add(dependency)
        ordered[name] = KernelModule(name, content)

    for name in wanted:
        add(name)
    return tuple(ordered.values())


def _name(path: Path) -> str:
    # A file may be called virtio-rng.ko; the kernel calls the module virtio_rng.
    return path.name.split(".ko")[0].replace("-", "_")


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    # From Debian 13 on, modules are compressed.
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _dependencies(content: bytes) -> list[str]:
    match = re.search(rb"\0depends=([^\0]*)\0", content)
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []
