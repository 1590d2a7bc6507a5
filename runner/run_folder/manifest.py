"""`manifest.json`: what it takes to repeat a run."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.config.plan import RunPlan
from runner.qemu.architectures import architecture
from runner.qemu.genode_command import check_genode_spec
from runner.qemu.image import GuestImage
from runner.simulator import SIMULATOR_VERSION
from runner.specs import BoardSpec, GenodeSpec, QemuSpec

MANIFEST_VERSION = 1
_PACKAGES = (
    "rtfleet",
    "hydra-core",
    "omegaconf",
    "fabric",
    "paramiko",
    "qemu.qmp",
    "numpy",
    "tqdm",
    "watchfiles",
    "pyarrow",
    "matplotlib",
)
_TIMEOUT_S = 10.0


def manifest(plan: RunPlan, *, overrides: Sequence[str]) -> dict[str, Any]:
    """Everything about program, guest and computer that a result may depend on.

    Args:
        overrides: What was given on the command line.

    Raises:
        HostError: when the guest image that the plan names is not there.
        UsageError: when the settings of Genode's guests contradict each other.
    """
    return {
        "version": MANIFEST_VERSION,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "overrides": list(overrides),
        "seed": plan.seed,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git(),
        "simulator": SIMULATOR_VERSION,
        "guest": _guest(plan),
        "host": {
            "name": platform.node(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpu": _cpu_model(),
            "cpus": os.cpu_count(),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _guest(plan: RunPlan) -> dict[str, Any] | None:
    spec = plan.qemu or plan.genode or plan.boards
    match spec:
        case QemuSpec():
            facts = _own_guest(spec)
        case GenodeSpec():
            facts = _genode_guest(spec)
        case BoardSpec():
            facts = {"host": "genode_board"}
        case None:
            return None
    settings = {key: _plain(value) for key, value in asdict(spec).items()}
    return {"settings": {**settings, "reset": plan.reset.value}, **facts}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever specs hold
    """As JSON gives it back: a resumed run compares."""
    match value:
        case Path():
            return str(value)
        case tuple():
            return list(value)
        case _:
            return value


def _own_guest(spec: QemuSpec) -> dict[str, Any]:
    image = GuestImage.load(spec.image, arch=spec.arch) if spec.image else GuestImage.current(spec.arch)
    return {
        "host": "qemu",
        "image_sha256": image.digest,
        "kernel_release": image.kernel_release,
        "qemu": _version_of(spec.qemu_binary or architecture(spec.arch).qemu_binary),
    }


def _genode_guest(spec: GenodeSpec) -> dict[str, Any]:
    check_genode_spec(spec)
    with spec.image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"host": "genode_pbxa9", "image_sha256": digest, "qemu": _version_of(spec.qemu_binary)}


def _version_of(qemu_binary: str) -> str | None:
    path = shutil.which(qemu_binary)
    return _first_line([path, "--version"]) if path else None


def _git() -> dict[str, Any] | None:
    source = Path(__file__).resolve()
    git = ["git", "-C", str(source.parent)]
    # An installed package may lie inside somebody else's repository.
    if _first_line([*git, "ls-files", source.name]) is None:
        return None
    return {
        "revision": _first_line([*git, "rev-parse", "HEAD"]),
        "dirty": _first_line([*git, "status", "--porcelain"]) is not None,
    }


def _first_line(command: list[str]) -> str | None:
    """What a short command prints first; None if it fails, or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    return lines[0] if lines else None


def _cpu_model() -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None
