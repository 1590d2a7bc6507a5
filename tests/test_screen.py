"""Consoles in GNU screen: real sessions, real terminals, a real guest."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from runner import Distributor, qemu_by_mailbox, simulated, with_screens
from runner.deadline import Deadline
from runner.errors import HostError, UsageError
from runner.operator.attachment import attach
from runner.operator.screen import ScreenSession, check_screen
from runner.qemu.console_link import read_link, write_link
from runner.qemu.genode_host import GenodeHost
from runner.qemu.host import QemuHost
from runner.specs import GenodeSpec, Reach
from tests.cli import run_cli
from tests.fleet_samples import Sets, Tally
from tests.qemu_guests import PATIENCE_S, eventually, guest_spec, process_exists
from tests.screens import listed
from tests.talking_image import write_talking_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def sockets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sessions of this test's own; nothing may be left in it."""
    folder = tmp_path_factory.mktemp("s")
    folder.chmod(0o700)
    monkeypatch.setenv("SCREENDIR", str(folder))
    yield folder
    assert not list(folder.iterdir())


def has(n_sessions: int) -> bool:
    return len(listed()) == n_sessions


def ask(name: str, *command: str) -> None:
    """Have a session do something."""
    subprocess.run(["screen", "-S", name, "-X", *command], check=False, timeout=30, stdout=subprocess.DEVNULL)


def shown(name: str, folder: Path, wanted: str) -> str:
    """What the session's window shows, as soon as that is there."""
    copy = folder / f"{name}.hardcopy"

    def look() -> bool:
        ask(name, "hardcopy", str(copy))
        return copy.exists() and wanted in copy.read_text(errors="replace")

    assert eventually(look, within_s=PATIENCE_S), copy.read_text(errors="replace") if copy.exists() else ""
    return copy.read_text(errors="replace")


class Line:
    """A console without a guest behind it: the test is the guest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.guest_fd, self._terminal_fd = pty.openpty()
        tty.setraw(self._terminal_fd)
        self._remove = write_link(folder, os.ttyname(self._terminal_fd), os.getpid())

    def say(self, text: bytes) -> None:
        os.write(self.guest_fd, text)

    def heard(self) -> bytes:
        assert select.select([self.guest_fd], [], [], PATIENCE_S)[0]
        return os.read(self.guest_fd, 4096)

    def end(self) -> None:
        self._remove()
        os.close(self._terminal_fd)
        os.close(self.guest_fd)


def test_a_session_follows_the_console_from_guest_to_guest(tmp_path):
    folder = tmp_path / "machines" / "qemu1"
    with ScreenSession("qemu1", folder):
        assert eventually(lambda: listed() == ["qemu1"], within_s=PATIENCE_S)
        shown("qemu1", tmp_path, "leaves")
        for number in range(3):
            line = Line(folder)
            line.say(b"I am %d\r\n" % number)
            shown("qemu1", tmp_path, f"I am {number}")
            ask("qemu1", "stuff", f"to {number}")
            assert line.heard().startswith(b"t")
            line.end()
        text = shown("qemu1", tmp_path, "I am 2")
        assert text.count("a new guest") == 2
    assert listed() == []


def test_a_session_that_screen_cannot_end_is_ended_by_force(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.operator.screen._END_TIMEOUT_S", 0.5)
    with ScreenSession("qemu1", tmp_path / "machines" / "qemu1") as session:
        assert eventually(lambda: listed() == ["qemu1"], within_s=PATIENCE_S)
        assert session.pid is not None
        pid = session.pid
        os.kill(pid, signal.SIGSTOP)
    assert not process_exists(pid)
    assert listed() == []


def test_a_session_that_its_user_ended_is_no_harm(tmp_path):
    with ScreenSession("qemu1", tmp_path / "machines" / "qemu1"):
        assert eventually(lambda: listed() == ["qemu1"], within_s=PATIENCE_S)
        ask("qemu1", "quit")
        assert eventually(lambda: listed() == [], within_s=PATIENCE_S)


def test_kill_9_of_the_runner_leaves_no_session(tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from runner.operator.screen import ScreenSession
with ScreenSession("qemu1", Path({str(tmp_path)!r}) / "machines" / "qemu1"):
    print("up", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline()
        assert eventually(lambda: listed() == ["qemu1"], within_s=PATIENCE_S)
        shown("qemu1", tmp_path, "leaves")
        runner.kill()
    assert eventually(lambda: listed() == [], within_s=PATIENCE_S)


def test_sessions_follow_the_number_of_machines(tmp_path):
    kind = with_screens(simulated(realtime_factor=1.0))  # cheap: no guest behind them
    names = [f"qemu{n}" for n in range(1, 8)]
    with Distributor(max_machine=1, kind=kind, folder=tmp_path) as distributor:
        distributor.add_job(Sets(None, period_ms=100), Tally())
        for n_machines in (1, 7, 2):
            distributor.set_max_machine_value(n_machines)
            assert eventually(partial(has, n_machines), within_s=PATIENCE_S)
            assert set(listed()) <= set(names)
        distributor.kill_all_machines()
    assert listed() == []


def test_a_terminal_that_stands_still_does_not_hold_up_the_guest(tmp_path):
    line = Line(tmp_path)
    screen_fd, terminal_fd = pty.openpty()  # nobody reads it
    gone_fd, runner_fd = os.pipe()
    keyboard_fd, keys_fd = os.pipe()
    viewer = threading.Thread(
        target=attach, args=(tmp_path, keyboard_fd, terminal_fd), kwargs={"runner_fd": gone_fd}
    )
    viewer.start()
    try:
        for _ in range(200):
            # It would wait for ever here.
            assert select.select([], [line.guest_fd], [], PATIENCE_S)[1]
            line.say(b"x" * 1000)
    finally:
        os.close(runner_fd)
        viewer.join(PATIENCE_S)
        assert not viewer.is_alive()
        line.end()
        for fd in (screen_fd, terminal_fd, gone_fd, keyboard_fd, keys_fd):
            os.close(fd)


def test_the_guest_that_runs_is_shown_not_the_one_that_waits(tmp_path):
    other = subprocess.Popen(["sleep", "600"])
    try:
        first = write_link(tmp_path, "/dev/pts/1", os.getpid(), take_over=False)
        second = write_link(tmp_path, "/dev/pts/2", other.pid, take_over=False)
        assert read_link(tmp_path).pty == "/dev/pts/1"
        write_link(tmp_path, "/dev/pts/2", other.pid)  # it runs now
        assert read_link(tmp_path).pty == "/dev/pts/2"
        first()
        assert read_link(tmp_path).pty == "/dev/pts/2"
        second()
        with pytest.raises(UsageError, match="does not run"):
            read_link(tmp_path)
    finally:
        other.kill()
        other.wait()


def test_without_screen_it_is_refused(tmp_path, monkeypatch):
    check_screen()
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    monkeypatch.setenv("SCREENDIR", str(shared))
    with pytest.raises(HostError, match="cannot keep its sessions"):
        check_screen()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="there is no screen"):
        check_screen()


def test_machines_without_a_console_have_none_in_screen(tmp_path):
    for machines in (["machines=simulation"], ["machines=genode_board", "machines.board.addresses=[board1]"]):
        done = run_cli(tmp_path, *machines, "machines.limit=1", "machines.console=screen")
        assert done.returncode == 2
        assert "machines.console" in done.stderr


@pytest.mark.guest
def test_a_guest_answers_in_screen(tmp_path):
    folder = tmp_path / "machines" / "qemu1"
    with ExitStack() as stack:
        stack.enter_context(ScreenSession("qemu1", folder))
        host = stack.enter_context(QemuHost(guest_spec(reach=Reach.SSH), "qemu1", folder))
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        shown("qemu1", tmp_path, "leaves")
        ask("qemu1", "stuff", "\r")
        shown("qemu1", tmp_path, "/ #")
        ask("qemu1", "stuff", "expr 40 + 2\r")
        shown("qemu1", tmp_path, "\n42")
    assert listed() == []


@pytest.mark.guest
def test_genodes_board_is_seen_in_screen(tmp_path):
    folder = tmp_path / "machines" / "qemu1"
    spec = GenodeSpec(image=write_talking_image(tmp_path / "image.elf"), vcpus=1)
    with ExitStack() as stack:
        stack.enter_context(ScreenSession("qemu1", folder))
        host = stack.enter_context(GenodeHost(spec, "qemu1", folder))
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        shown("qemu1", tmp_path, "OK")
    assert listed() == []


@pytest.mark.guest
def test_being_looked_at_changes_no_table(tmp_path):
    tables: list[object] = []
    for wrap in (lambda kind: kind, with_screens):
        kind = wrap(qemu_by_mailbox(guest_spec()))
        monitor = Tables()
        with Distributor(max_machine=1, kind=kind, folder=tmp_path / str(len(tables))) as distributor:
            distributor.add_job(Sets(100, period_ms=50), monitor)
            if wrap is with_screens:
                shown("qemu1", tmp_path, "leaves")
                assert not distributor.wait(0.0)  # there is more to look at
            assert distributor.wait(PATIENCE_S)
        tables.append(monitor.tables)
    assert tables[0] == tables[1]
    assert monitor.tables


class Tables(Tally):
    """Keeps the job tables, by task set."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, object] = {}

    def __taskset_finish__(self, run, result) -> None:
        self.tables[run.taskset.taskset_id] = result.jobs
