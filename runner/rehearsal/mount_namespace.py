"""File systems that one run alone sees: by util-linux's programs, also for those who are not root."""

from __future__ import annotations

import os
from pathlib import Path


def creating() -> list[str]:
    """What has a command see file systems of its own; whoever is not root needs to be root of a namespace to mount them."""
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *rights, "--mount"]


def entering(pid: int) -> list[str]:
    """What has a command see the file systems that a process sees which was made a namespace for."""
    rights = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", "--target", str(pid), *rights, "--mount"]


def seen_by(pid: int, path: Path) -> Path:
    """A path of a process's as it is reached from here; not for whoever follows links by himself."""
    return Path(f"/proc/{pid}/root{path}")
