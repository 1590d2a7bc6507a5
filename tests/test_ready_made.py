"""Vagrantfile and Containerfile: that what they name is there, and that they do no more than the README says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What each instruction of the file may be; there are more, which nothing here needs.
INSTRUCTIONS = ("FROM", "RUN", "WORKDIR", "COPY", "CMD")


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's, in order, with their arguments."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def provisioning() -> list[str]:
    """The commands that the Vagrantfile has a fresh machine run."""
    found = re.search(r"<<-SHELL\n(.*?)\n *SHELL", (ROOT / "Vagrantfile").read_text(), re.S)
    assert found
    return [line.strip() for line in found[1].splitlines()]


def check_command(command: str) -> None:
    """That it is known, and what it names exists."""
    words = [word for word in shlex.split(command) if word != "sudo"]
    match words:
        case ["set", "-eu"] | ["apt-get", "update", "--quiet=2"]:
            pass
        case ["apt-get", "install", "--quiet=2", "--yes", *packages]:
            assert packages == ["git", "make", "python3"]
            assert all(f"`{package}`" in README for package in packages)
        case ["cd", folder]:
            assert f'"{folder}"' in (ROOT / "Vagrantfile").read_text()
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
        case _:
            pytest.fail(f"{command!r} is none of the README's commands")


def test_the_container_is_made_by_the_readmes_commands():
    named = instructions()
    assert named[0][0] == "FROM"
    assert {name for name, _ in named} == set(INSTRUCTIONS)
    for name, rest in named:
        if name == "RUN":
            for command in rest.split("&&"):
                check_command(command.strip())
        if name == "CMD":
            check_command(shlex.join(json.loads(rest)))


def test_the_container_has_all_that_the_project_needs():
    copied = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    sources = {source for words in copied for source in words[:-1]}
    assert all((ROOT / source).exists() for source in sources)
    # A folder is copied under its own name, not its content beside the others'.
    assert all(len(words) == 2 and words[0] == words[1] for words in copied if (ROOT / words[0]).is_dir())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    left_out = {name.split("/")[0] for name in tracked.split()} - sources
    assert left_out <= {
        ".ci", ".containerignore", ".gitignore", "CHANGELOG.md", "Containerfile", "Vagrantfile", "benchmarks", "tests",
    }  # fmt: skip


def test_the_virtual_machine_is_made_by_the_readmes_commands():
    commands = provisioning()
    assert commands[-1] == "make setup"
    for command in commands:
        check_command(command)


def test_the_vagrantfile_is_ruby():
    if shutil.which("ruby") is None:
        pytest.skip("there is no ruby here to ask")
    subprocess.run(["ruby", "-c", ROOT / "Vagrantfile"], check=True, capture_output=True, timeout=60)
