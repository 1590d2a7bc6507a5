"""`manifest.json`: what it takes to repeat a run."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.config.plan import RunPlan
from runner.run_folder.guests import first_line, guests
from runner.simulator import SIMULATOR_VERSION

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
        "guest": guests(plan),
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


def _git() -> dict[str, Any] | None:
    source = Path(__file__).resolve()
    git = ["git", "-C", str(source.parent)]
    # An installed package may lie inside somebody else's repository.
    if first_line([*git, "ls-files", source.name]) is None:
        return None
    return {
        "revision": first_line([*git, "rev-parse", "HEAD"]),
        "dirty": first_line([*git, "status", "--porcelain"]) is not None,
    }


def _cpu_model() -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None
