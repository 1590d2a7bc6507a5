"""Attaching to a console, through a real terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from runner import console
from runner.deadline import Deadline
from runner.errors import ProtocolError, UsageError
from runner.operator.attachment import LEAVE
from runner.qemu.console_link import LINK_NAME, read_link, write_link
from runner.qemu.host import QemuHost
from runner.specs import Reach
from tests.qemu_guests import PATIENCE_S, guest_spec

ROOT = Path(__file__).parents[1]


class Person:
    """Sits at a terminal, on which `python -m runner.console qemu1 RUN` runs."""

    def __init__(self, run: Path) -> None:
        self._screen, terminal = pty.openpty()
        command = [sys.executable, "-m", "runner.console", "qemu1", str(run)]
        self._program = subprocess.Popen(command, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        assert b"Ctrl-]" in self.read_until(b"leaves")

    def type(self, text: bytes) -> None:
        os.write(self._screen, text)

    def read_until(self, wanted: bytes) -> bytes:
        shown = b""
        end_s = time.monotonic() + 30.0
        while wanted not in shown and time.monotonic() < end_s:
            if select.select([self._screen], [], [], 1.0)[0]:
                try:
                    shown += os.read(self._screen, 4096)
                except OSError:  # nobody has the terminal open any more: that was all
                    break
        return shown

    def exit_code(self) -> int:
        return self._program.wait(30.0)

    def go(self) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._screen)


@pytest.mark.guest
def test_a_person_attaches_works_and_leaves(tmp_path):
    folder = tmp_path / "machines" / "qemu1"
    with QemuHost(guest_spec(reach=Reach.SSH), "qemu1", folder) as host, ExitStack() as stack:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        person = Person(tmp_path)
        stack.callback(person.go)
        person.type(b"\r")
        assert b"# " in person.read_until(b"# ")
        person.type(b"echo $((6 * 7))!\r")
        assert b"42!" in person.read_until(b"42!")
        person.type(LEAVE)
        assert person.exit_code() == 0
        # Leaving is no harm to the machine.
        host.pause()
    assert "42!" in (folder / "console.log").read_text()
    assert console.main(["qemu1", str(tmp_path)]) == 2


@pytest.mark.guest
def test_the_end_of_the_machine_ends_the_attachment(tmp_path):
    with ExitStack() as stack:
        with QemuHost(guest_spec(), "qemu1", tmp_path / "machines" / "qemu1") as host:
            host.start(Deadline.after(PATIENCE_S))
            person = Person(tmp_path)
            stack.callback(person.go)
        assert b"has ended" in person.read_until(b"ended")
        assert person.exit_code() == 0


def test_a_machine_that_does_not_run_points_to_its_log(tmp_path, capsys):
    (tmp_path / "machines" / "qemu1").mkdir(parents=True)
    assert console.main(["qemu1", str(tmp_path)]) == 2
    assert f"{tmp_path}/machines/qemu1/console.log" in capsys.readouterr().err


def test_a_process_number_used_again_is_no_running_machine(tmp_path):
    # Its terminal may be somebody else's by now.
    remove = write_link(tmp_path, "/dev/pts/99999", os.getpid())
    assert read_link(tmp_path).pid == os.getpid()
    fields = json.loads((tmp_path / LINK_NAME).read_text())
    (tmp_path / LINK_NAME).write_text(json.dumps({**fields, "started_ticks": fields["started_ticks"] - 1}))
    with pytest.raises(UsageError, match="does not run"):
        read_link(tmp_path)
    remove()
    remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pty": 1, "pid": "x", "started_ticks": 0}'])
def test_a_damaged_link_is_no_running_machine(tmp_path, content):
    (tmp_path / LINK_NAME).write_text(content)
    with pytest.raises(UsageError, match="does not run"):
        read_link(tmp_path)


def test_the_newest_run_with_that_machine_is_taken(tmp_path):
    for number, run in enumerate(
        ("2024-01-02/10-00-00", "2024-01-01/10-00-00", "multirun/2023-01-01/10-00-00/0")
    ):
        folder = tmp_path / run / "machines" / "qemu1"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    assert console.newest_run_with("qemu1", tmp_path) == tmp_path / "multirun/2023-01-01/10-00-00/0"
    with pytest.raises(UsageError, match="qemu9"):
        console.newest_run_with("qemu9", tmp_path)


@pytest.mark.parametrize(
    "path", ["/dev/sda", "/etc/passwd", "/dev/pts/../sda", "/dev/pts/1/x", "/dev/pts/\u0661", ""]
)
def test_a_console_is_nothing_but_a_terminal(tmp_path, path):
    with pytest.raises(ProtocolError, match="terminal"):
        write_link(tmp_path, path, os.getpid())
    write_link(tmp_path, "/dev/pts/1", os.getpid())
    link = tmp_path / LINK_NAME
    link.write_text(json.dumps({**json.loads(link.read_text()), "pty": path}))
    with pytest.raises(UsageError, match="does not run"):
        read_link(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "7", '{"pty": "/dev/pts/1", "pid": 1e999, "started_ticks": 1}', '{"pid": 1}'],
)
def test_a_link_that_is_none_leads_nowhere(tmp_path: Path, text: str) -> None:
    (tmp_path / LINK_NAME).write_text(text)
    with pytest.raises(UsageError, match="does not run"):
        read_link(tmp_path)
