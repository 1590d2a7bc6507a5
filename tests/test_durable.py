"""Small files: read whatever they are, or refused as what they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.files.durable import MAX_BYTES, read_json, read_start, replace_text
from runner.qemu.probe import remembered


def test_what_is_written_is_read(tmp_path: Path) -> None:
    replace_text(tmp_path / "a", '{"a": [1, null]}')
    assert read_json(tmp_path / "a") == {"a": [1, None]}
    assert read_start(tmp_path / "a", 2) == b'{"'


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff", b"{" + b" " * MAX_BYTES, b"9" * 5000], ids=range(5)
)
def test_what_is_no_json_is_a_wrong_value(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is
        read_json(tmp_path / "a")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "nothing"):
        with pytest.raises(OSError):  # noqa: PT011 - whichever it is
            read_start(path, 10)


@pytest.mark.parametrize("text", ["[]", "null", "7", "[" * 100_000, '{"accel": []}', '{"accel": "kvm"}', ""])
def test_a_probe_that_was_not_kept_is_made_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "probe.json").write_text(text)
    assert remembered(tmp_path / "probe.json") is None
