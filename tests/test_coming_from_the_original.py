"""The page for those who come from the original: its session is typed into a real Python shell, line by line."""

from __future__ import annotations

import doctest
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "coming-from-the-original.md"
PATIENCE_S = 120.0
PROMPT = ">>> "


class Shell:
    """`python3 -i` at a terminal."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._screen_fd, terminal_fd = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT), "SCREENDIR": str(sockets)}
        self.program = subprocess.Popen(
            [sys.executable, "-i", "-q"],
            cwd=folder,
            env=environment,
            stdin=terminal_fd,
            stdout=terminal_fd,
            stderr=terminal_fd,
            start_new_session=True,
        )
        os.close(terminal_fd)
        self._until_prompt()

    def type(self, line: str) -> str:
        """What comes back until the next prompt, without the line itself."""
        os.write(self._screen_fd, line.encode() + b"\n")
        return self._until_prompt().replace("\r", "").partition("\n")[2]

    def _until_prompt(self) -> str:
        shown = b""
        end_s = time.monotonic() + PATIENCE_S
        while not shown.endswith(PROMPT.encode()):
            assert time.monotonic() < end_s, shown.decode(errors="replace")
            if select.select([self._screen_fd], [], [], 1.0)[0]:
                shown += os.read(self._screen_fd, 4096)
        return shown.decode(errors="replace").removesuffix(PROMPT)

    def leave(self) -> None:
        os.write(self._screen_fd, b"\x04")
        try:
            assert self.program.wait(PATIENCE_S) == 0
        finally:
            self.program.kill()
            self.program.wait()
            os.close(self._screen_fd)


@pytest.fixture
def shell(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    sockets = tmp_path_factory.mktemp("s")
    sockets.chmod(0o700)
    shell = Shell(tmp_path, sockets)
    yield shell
    shell.leave()
    assert not list(sockets.iterdir())


def examples() -> list[tuple[str, str]]:
    """The lines of the page's session, each with what the page says that it answers (`...` stands for anything)."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        for text in block.splitlines():
            if text.startswith(PROMPT):
                found.append((text.removeprefix(PROMPT), ""))
            else:
                line, answer = found.pop()
                found.append((line, f"{answer}{text}\n"))
    return found


@pytest.mark.guest
def test_the_session_of_the_page_works_line_by_line(shell):
    checker = doctest.OutputChecker()
    for line, wanted in examples():
        answer = shell.type(line)
        end_s = time.monotonic() + PATIENCE_S
        # What goes on by itself may take a moment: a person looks again.
        while not checker.check_output(wanted, answer, doctest.ELLIPSIS):
            assert "Traceback" not in answer, answer
            assert line.startswith("_ = subprocess"), f"{line} answers {answer}"
            assert time.monotonic() < end_s, f"{line} answers {answer}"
            time.sleep(0.2)
            answer = shell.type(line)


def test_whatever_the_page_names_is_there():
    text = PAGE.read_text()
    imported = re.search(r"from runner import (.*)", text)
    assert imported
    assert set(imported[1].split(", ")) <= set(runner.__all__)
    for name in re.findall(r"`((?:runner|host_setup)/[\w/]+)/?`", text):
        assert (ROOT / name).exists(), name
    for call in re.findall(r"`(\w+_machine\w*|add_job|resume)\(", text):
        assert hasattr(runner.Distributor, call), call
