"""Config files that are small to look at, and too much to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.files import MAX_DEPTH, MAX_VALUE_BYTES, MAX_VALUES, check_size
from runner.errors import UsageError
from runner.exit_codes import ExitCode
from tests.cli import run_cli

LEVELS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
BOMB = f"# @package _global_\na0: &a0 [x, x]\n{LEVELS}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (BOMB, "unfolds to more than"),
        ("&a [*a]", "unfolds"),
        ("a: &a {b: {c: *a}}", "unfolds"),
        ("[" + "1, " * (MAX_VALUES + 1) + "]", "unfolds"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        ("x" * (MAX_VALUES * MAX_VALUE_BYTES + 1), "longer"),
    ],
)
def test_what_is_too_much_is_told_with_its_file(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=what) as caught:
        check_size(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "text",
    ["", "a: 1", "&a {b: 1}", "a: &a [1]\nb: [*a, *a]", "[" * MAX_DEPTH + "]" * MAX_DEPTH, "{", "\0", "*a"],
)
def test_everything_else_is_for_hydra(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    check_size(path)
    check_size(tmp_path / "nothing.yaml")


def test_the_command_line_refuses_them(tmp_path: Path) -> None:
    path = tmp_path / "conf" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(BOMB)
    done = run_cli(tmp_path, "--config-dir", "conf", "experiment=own")
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert done.stderr.startswith("error: own.yaml unfolds to more than")
    assert "tasksets=custom" in done.stderr
