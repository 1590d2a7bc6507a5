"""What QEMU starts quickly from: the same bytes each time, built once, and never half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from host_setup.stem import ensure_stem, is_current
from runner.errors import HostError
from runner.qemu.stem import shim_path
from tests.stems import Starter

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fail_if_told(line: str) -> None:
    pytest.fail(f"something was done: {line}")


def quiet(line: str) -> None:
    pass


def test_it_is_reproducible_and_built_once(cache, tmp_path, monkeypatch):
    first = ensure_stem(report=quiet)
    assert shim_path().resolve() == first
    assert ensure_stem(report=fail_if_told) == first
    assert is_current()
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, "current.so"])
    content = first.read_bytes()
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "another cache"))
    assert ensure_stem(report=quiet).read_bytes() == content


def fake_compiler(folder: Path, version: str, script: str) -> str:
    path = folder / f"cc-{version}"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo {version}\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_another_compiler_builds_another(cache, tmp_path):
    first = ensure_stem(report=quiet)
    other = ensure_stem(compiler=fake_compiler(tmp_path, "13", 'exec gcc "$@"'), report=quiet)
    assert other != first
    assert shim_path().resolve() == other
    assert not is_current()
    assert ensure_stem(report=fail_if_told) == first
    assert is_current()


@pytest.mark.parametrize("script", ["echo 'stem.c: no space' >&2; exit 1", "kill -9 $$", ": no output"])
def test_a_broken_compiler_leaves_what_was_there(cache, tmp_path, script):
    first = ensure_stem(report=quiet)
    with pytest.raises(HostError):
        ensure_stem(compiler=fake_compiler(tmp_path, "0", script), report=quiet)
    assert shim_path().resolve() == first
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, "current.so"])


def test_a_missing_compiler_is_named_and_does_no_harm(cache, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "host_setup", "stem"],
        check=False,
        cwd=PROJECT,
        env={"PATH": str(tmp_path), "RTFLEET_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "gcc was not found" in done.stderr
    assert "not every measurement repeats exactly" in done.stderr
    assert not shim_path().exists()
    assert Starter(tmp_path, shim_path()).run("/bin/sh", "-c", "exit 3") == 3


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "file"))
    with pytest.raises(HostError, match="cannot be written") as caught:
        ensure_stem(report=quiet)
    assert "RTFLEET_CACHE" in caught.value.next_step
