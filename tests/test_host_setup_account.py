"""The user that QEMU runs as where the runner is root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from host_setup.account import ensure_account, has_account
from runner.qemu.confinement import QEMU_USER, qemu_account

PROJECT = Path(__file__).parents[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
def test_root_has_it_made_once_and_qemu_runs_as_it():
    reported: list[str] = []
    was_there = has_account()
    assert ensure_account(report=reported.append) is not was_there
    assert not ensure_account(report=reported.append)
    assert len(reported) == (0 if was_there else 1)
    entry = pwd.getpwnam(QEMU_USER)
    assert entry.pw_uid != 0
    assert not Path(entry.pw_dir).exists()
    assert entry.pw_shell.endswith("nologin")
    account = qemu_account()
    assert account is not None
    assert (account.name, account.uid) == (QEMU_USER, entry.pw_uid)


AS_NOBODY = """
import os
from host_setup.account import ensure_account
from runner.qemu.confinement import qemu_account
if os.geteuid() == 0:
    os.seteuid(65534)
print(ensure_account(), qemu_account())
"""


def test_nobody_else_needs_it():
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], check=True, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stdout == "False None\n"
