"""What is built: the same bytes everywhere, without libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.task_loader.client import make


def test_same_bytes_wherever_it_is_built(binary: Path, tmp_path: Path) -> None:
    """The image's digest rests on it."""
    assert make(tmp_path / "elsewhere" / "taskloader").read_bytes() == binary.read_bytes()


def test_needs_no_library(binary: Path) -> None:
    """The guest has none: a program interpreter in the header would make it fail to start."""
    headers = subprocess.run(["readelf", "-lW", binary], check=True, capture_output=True, text=True).stdout
    assert "INTERP" not in headers


def test_version_and_usage(binary: Path) -> None:
    version = subprocess.run([binary, "version"], check=True, capture_output=True, text=True)
    assert version.stdout == "taskloader, protocol 2\n"
    usage = subprocess.run([binary, "dance"], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "serve" in usage.stderr


def test_bell_without_a_device_says_what_to_add(binary: Path) -> None:
    devices = Path("/sys/bus/pci/devices").glob("*/modalias")
    if any(device.read_text().startswith("pci:v00001B36d00000011") for device in devices):
        pytest.skip("this computer has one: it is a QEMU guest")
    bell = subprocess.run([binary, "bell", "ready"], capture_output=True, text=True, check=False)
    assert bell.returncode == 1
    assert "pvpanic-pci" in bell.stderr
