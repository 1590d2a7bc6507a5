"""Logs that are appended to for ever, and stay short."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runner.qemu.berth import Berth
from runner.qemu.bounded_log import old_log, open_log, size_bytes

LONG = 5 << 20


def append(path: Path, text: bytes) -> None:
    fd = open_log(path)
    os.write(fd, text)
    os.close(fd)


def test_it_is_appended_to_and_the_users_alone(tmp_path):
    before = os.umask(0)
    try:
        append(tmp_path / "log", b"one\n")
    finally:
        os.umask(before)
    append(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_long_one_is_put_aside_and_only_the_last_of_them_is_kept(tmp_path):
    log = tmp_path / "log"
    for letter in (b"a", b"b", b"c"):
        append(log, letter * LONG)
    assert log.read_bytes()[:1] == b"c"
    assert old_log(log).read_bytes()[:1] == b"b"
    assert len(list(tmp_path.iterdir())) == 2


def test_who_still_writes_the_old_one_does_so_there(tmp_path):
    log = tmp_path / "log"
    writer = open_log(log)
    os.write(writer, b"a" * LONG)
    append(log, b"new")
    os.write(writer, b"last words")
    os.close(writer)
    assert log.read_bytes() == b"new"
    assert old_log(log).read_bytes().endswith(b"last words")


def test_what_an_emulator_said_last_is_found_after_another_one_has_begun_a_new_log(tmp_path):
    berth = Berth(name="qemu1", folder=tmp_path)
    append(berth.console_log, b"a\n" * 1000)
    start_byte = size_bytes(berth.console_log)
    append(berth.console_log, b"x" * LONG + b"\nlast words\n")
    append(berth.console_log, b"another guest\n")
    assert berth.evidence(start_byte).splitlines()[-1] == "last words"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").touch()
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        open_log(tmp_path / "log")


def test_none_is_empty(tmp_path):
    assert size_bytes(tmp_path / "none") == 0
