"""The process and its keeper, with programs that are no QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import MachineKilled
from runner.qemu.killswitch import KillSwitch
from runner.qemu.process import QemuProcess
from tests.qemu_guests import eventually, process_exists


def keep(tmp_path: Path, *command: str, fds: Sequence[int] = ()) -> tuple[QemuProcess, list[int]]:
    codes: list[int] = []
    process = QemuProcess(command, pass_fds=fds, stderr_path=tmp_path / "stderr", on_exit=codes.append)
    return process, codes


def test_end_stderr_and_code_are_told(tmp_path):
    process, codes = keep(tmp_path, "/bin/sh", "-c", "echo so long >&2; exit 7")
    assert process.wait(Deadline.after(10))
    process.join()
    assert codes == [7]
    assert (tmp_path / "stderr").read_text() == "so long\n"


def test_arguments_arrive_as_they_are(tmp_path):
    # The wrapper that ties the process to us goes through a shell: nothing may be expanded by it.
    nasty = ["", "two words", "$HOME", "`id`", "a'b\"c", "--", "-c", "\n", "*"]
    target = tmp_path / "out"
    program = "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]))"
    process, codes = keep(tmp_path, sys.executable, "-c", program, str(target), *nasty)
    assert process.wait(Deadline.after(30))
    process.join()
    assert (codes, target.read_text()) == ([0], repr(nasty))


def test_signals_reach_the_program_itself(tmp_path):
    process, codes = keep(tmp_path, "/bin/sleep", "600")
    assert not process.wait(Deadline.after(0.05))
    assert eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    process.signal(signal.SIGTERM)
    assert process.wait(Deadline.after(10))
    process.signal(signal.SIGTERM)
    process.join()
    assert codes == [-signal.SIGTERM]


def test_only_the_given_descriptors_are_inherited(tmp_path):
    given, secret = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    listing = tmp_path / "listing"
    try:
        process, _ = keep(tmp_path, "/bin/sh", "-c", f"ls /proc/self/fd > {listing}", fds=[given])
        assert process.wait(Deadline.after(10))
        process.join()
    finally:
        os.close(given)
        os.close(secret)
    inherited = {int(number) for number in listing.read_text().split()}
    assert given in inherited
    assert secret not in inherited


def test_it_lives_on_when_the_thread_that_started_it_ends(tmp_path):
    # The death signal is tied to the thread that forks; that has to be the keeper, not ours.
    made: list[QemuProcess] = []
    thread = threading.Thread(target=lambda: made.append(keep(tmp_path, "/bin/sleep", "600")[0]))
    thread.start()
    thread.join()
    assert not made[0].wait(Deadline.after(0.2))
    made[0].signal(signal.SIGKILL)
    assert made[0].wait(Deadline.after(10))
    made[0].join()


RUNNER = """
import sys, time
from pathlib import Path
from runner.qemu.process import QemuProcess
process = QemuProcess(["/bin/sleep", "600"], pass_fds=[], stderr_path=Path(sys.argv[1]), on_exit=print)
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_the_runner(tmp_path, number):
    command = [sys.executable, "-c", RUNNER, str(tmp_path / "stderr")]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        assert process_exists(pid)
        runner.send_signal(number)
        runner.wait()
    assert eventually(lambda: not process_exists(pid), within_s=2.0)


def test_kill_switch_calls_each_action_once_and_refuses_later_ones():
    switch = KillSwitch("qemu1")
    called: list[str] = []
    with switch.attached(lambda: called.append("gone")):
        pass
    with switch.attached(lambda: called.append("there")):
        switch.pull()
        switch.pull()
    assert called == ["there"]
    with pytest.raises(MachineKilled, match="qemu1"), switch.attached(lambda: called.append("late")):
        called.append("ran")
    with pytest.raises(MachineKilled):
        switch.sleep(60)
    assert called == ["there"]
