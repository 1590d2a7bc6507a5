"""The command line of `python -m host_setup`, as its users call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def host_setup(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "host_setup", *words],
        check=False,
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["packages", "--help"], ["stem", "--help"], ["image", "--help"], ["check", "--help"]],
)
def test_every_verb_explains_itself(words):
    done = host_setup(*words)
    assert done.returncode == 0
    assert "--arch" in done.stdout
    assert len(done.stdout.splitlines()) <= 24


@pytest.mark.parametrize("words", [["imgae"], ["image", "--arch", "vax"], ["check", "--refresh"]])
def test_a_wrong_command_line_is_refused(words):
    done = host_setup(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_doctor_names_what_to_do_without_an_image(tmp_path):
    done = host_setup("check", RTFLEET_CACHE=str(tmp_path))
    assert done.returncode == 4
    assert "missing  arm64 image: no guest image of arm64 has been built yet" in done.stdout
    assert "next: python -m host_setup image --arch arm64" in done.stdout
    assert "This host cannot run the default run yet." in done.stdout


def test_the_doctor_works_where_nothing_is_installed(tmp_path):
    done = host_setup("check", RTFLEET_CACHE=str(tmp_path / "cache"), PATH=str(tmp_path))
    assert done.returncode == 4
    assert "missing  arm64 QEMU: QEMU is missing" in done.stdout
    assert done.stderr == ""


@pytest.mark.guest
def test_the_doctor_is_content_with_a_host_that_is_ready():
    done = host_setup("check", "--arch", "all")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok       amd64 instruction-counted time" in done.stdout
    assert "This host can run the default run." in done.stdout


def test_an_image_that_cannot_be_written_is_a_matter_of_the_host(tmp_path):
    (tmp_path / "file").touch()
    done = host_setup("image", RTFLEET_CACHE=str(tmp_path / "file"))
    assert done.returncode == 4
    assert str(tmp_path / "file") in done.stderr
    assert "RTFLEET_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
