"""The user that emulators run as where the runner is root: it owns nothing, and nobody logs in as it."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable

from host_setup.command import run_command
from runner.qemu.confinement import QEMU_USER

_TIMEOUT_S = 60.0


def ensure_account(*, report: Callable[[str], None] = print) -> bool:
    """Make the user if root asks for it and there is none; whether it was made.

    For everybody else QEMU runs as who has started the runner. Where no user can be made, it runs as `nobody`.

    Raises:
        HostError: the user could not be made, though there is a program for it.
    """
    if os.geteuid() != 0 or has_account() or shutil.which("useradd") is None:
        return False
    report(f"making the user {QEMU_USER}, as whom QEMU will run")
    nowhere = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    run_command(
        ["useradd", "--system", "--user-group", *nowhere, QEMU_USER],
        doing=f"making the user {QEMU_USER}",
        timeout_s=_TIMEOUT_S,
        next_step="without it QEMU runs as nobody",
    )
    return True


def has_account() -> bool:
    """Whether the user is there."""
    try:
        pwd.getpwnam(QEMU_USER)
    except KeyError:
        return False
    return True
