"""Packages and the commands that bring them: only when missing, only with leave, and with apt's own words on failure."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_setup.command import EVIDENCE_LINES, run_command
from host_setup.guest_packages import Package, parse_uris
from host_setup.packages import Requirement, ensure_packages, missing_packages, requirements
from runner.errors import HostError
from runner.qemu.architectures import ARCHITECTURES, architecture

PROJECT = Path(__file__).parents[1]


def put_program(folder: Path, name: str, script: str) -> None:
    """A program of a few shell lines, for hosts on which the real one would do too much."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder on the PATH, readable for everybody: empty but for a few programs that every Debian has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for tool in ("dpkg-query", "env"):
            (folder / tool).symlink_to(Path("/usr/bin") / tool)
        monkeypatch.setenv("PATH", name)
        yield folder


def as_nobody() -> subprocess.CompletedProcess[str]:
    """Make packages sure as a user without rights, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY], check=False, cwd=PROJECT, capture_output=True, text=True
    )


AS_NOBODY = """
import os
from host_setup.packages import ensure_packages
from runner.errors import HostError
from runner.qemu.architectures import architecture
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    ensure_packages([architecture("arm64")])
except HostError as error:
    print(error)
"""


def test_a_command_returns_what_it_printed():
    assert run_command(["printf", "one\\ntwo"], doing="printing", timeout_s=10) == "one\ntwo"


def test_a_failing_command_shows_its_last_words_and_no_more(tmp_path):
    put_program(tmp_path, "tool", "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i >&2; done; exit 3")
    with pytest.raises(HostError, match=r"compiling: .* failed with exit code 3") as caught:
        run_command([tmp_path / "tool"], doing="compiling", timeout_s=10, next_step="look")
    assert caught.value.evidence.splitlines()[-1] == "line 100"
    assert len(caught.value.evidence.splitlines()) == EVIDENCE_LINES
    assert caught.value.next_step == "look"


def test_a_command_that_hangs_is_ended():
    began_s = time.monotonic()
    with pytest.raises(HostError, match=r"still running after 0\.2 s"):
        run_command(["sleep", "60"], doing="waiting", timeout_s=0.2)
    assert time.monotonic() - began_s < 10


def test_a_missing_tool_is_named():
    with pytest.raises(HostError, match="unpacking: no-such-tool was not found") as caught:
        run_command(["no-such-tool"], doing="unpacking", timeout_s=1)
    assert "host_setup packages" in caught.value.next_step


def test_a_tool_that_may_not_be_run_is_an_error_of_the_host(tmp_path):
    (tmp_path / "tool").write_text("")
    with pytest.raises(HostError, match="Permission denied"):
        run_command([tmp_path / "tool"], doing="trying", timeout_s=1)


def test_adding_an_architecture_is_adding_a_row():
    needed = requirements(ARCHITECTURES.values())
    for row in ARCHITECTURES.values():
        assert Requirement(row.qemu_package, row.qemu_binary) in needed
        assert {*row.compiler_packages} <= {one.package for one in needed}
    assert len(set(needed)) == len(needed)


def test_what_is_there_is_not_missing(programs):
    put_program(programs, "thing", "")
    put_program(programs, "apt-get", "exit 1")
    # dpkg itself is installed on every Debian; nothing else has to be run to know about a program.
    wanted = [Requirement("things", "thing"), Requirement("dpkg"), Requirement("others", "other")]
    assert missing_packages([*wanted, Requirement("libnothing-dev")]) == ["others", "libnothing-dev"]


def test_looking_is_quick():
    # It is part of every `make run`.
    began_s = time.perf_counter()
    missing_packages(requirements(ARCHITECTURES.values()))
    assert time.perf_counter() - began_s < 0.5


def test_another_distribution_is_told_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"qemu-system-aarch64.* no apt") as caught:
        ensure_packages([architecture("arm64")])
    assert "gcc-aarch64-linux-gnu" in caught.value.next_step


@pytest.mark.parametrize("sudo", ["none", "refuses"])
def test_without_rights_the_message_holds_the_command(programs, sudo):
    put_program(programs, "apt-get", f"echo called >> {programs}/called")
    if sudo == "refuses":
        put_program(programs, "sudo", "echo 'a password is required' >&2; exit 1")
    done = as_nobody()
    assert done.stderr == ""
    assert "missing: make, binutils, qemu-system-arm, gcc-aarch64-linux-gnu" in done.stdout
    assert "next:  sudo apt-get update && sudo apt-get install" in done.stdout
    assert not (programs / "called").exists()


def test_with_sudo_only_what_is_missing_is_installed_without_questions(programs):
    put_program(programs, "make", "")
    put_program(programs, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {programs}/called')
    put_program(programs, "sudo", f'echo sudo >> {programs}/called; shift; [ "$1" = true ] || exec "$@"')
    (programs / "called").touch(mode=0o666)
    (programs / "called").chmod(0o666)
    done = as_nobody()
    assert (done.stderr, done.stdout.startswith("installing binutils")) == ("", True)
    calls = [line for line in (programs / "called").read_text().splitlines() if line != "sudo"]
    assert calls[0].endswith(" update")
    install = calls[1].split()
    assert install[0] == "noninteractive"
    assert {"install", "--yes", "--no-install-recommends", "qemu-system-arm"} < set(install)
    assert "make" not in install


def test_an_apt_that_fails_is_quoted(programs):
    put_program(programs, "apt-get", "echo 'E: The repository is not signed.' >&2; exit 100")
    put_program(programs, "sudo", 'shift; [ "$1" = true ] || exec "$@"')
    done = as_nobody()
    assert "| E: The repository is not signed." in done.stdout
    assert "exit code 100" in done.stdout


NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True)
VERSIONS = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,20}", fullmatch=True)
HASHES = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@given(st.lists(st.builds(Package, name=NAMES, version=VERSIONS, sha256=HASHES), max_size=5), st.text())
def test_what_apt_would_download_is_read_back(packages, noise):
    lines = [
        f"'http://host/pool/{one.name}.deb' {one.name}_{one.version.replace(':', '%3a')}_arm64.deb 10 SHA256:{one.sha256}"
        for one in packages
    ]
    assert parse_uris("\n".join([*lines, f"W: {noise}"])) == packages


def test_a_weak_hash_is_no_answer():
    assert parse_uris("'http://host/a.deb' a_1_arm64.deb 10 MD5Sum:" + "0" * 32) == []
