"""An emulator that is no QEMU, or one that a guest has taken over: a program that speaks QMP as it likes."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import GuestDied
from runner.qemu.berth import Berth
from runner.qemu.confinement import UNCONFINED
from runner.qemu.emulator import Emulator
from runner.qemu.killswitch import KillSwitch
from runner.qemu.launcher import Launcher, has_sandbox
from runner.qemu.probe import find_binary
from runner.qemu.process import Launch
from runner.specs import QemuSpec
from tests.qemu_guests import PATIENCE_S

# Greets, agrees to everything, and after `cont` raises as many events as its last argument says.
QMP = """
import json, socket, sys
if "-version" in sys.argv:
    sys.exit()
channel = socket.socket(fileno=int(sys.argv[-2]))
say = lambda message: channel.sendall(json.dumps(message).encode() + b"\\r\\n")
say({"QMP": {"version": {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}})
heard = ""
while data := channel.recv(65536):
    heard += data.decode()
    while heard.strip():
        try:
            message, end = json.JSONDecoder().raw_decode(heard.lstrip())
        except ValueError:
            break
        heard = heard.lstrip()[end:]
        say({"return": {}, **({"id": message["id"]} if "id" in message else {})})
        if message["execute"] == "cont":
            for n in range(int(sys.argv[-1])):
                say({"event": "RING", "data": {"n": n}, "timestamp": {"seconds": 0, "microseconds": 0}})
"""


def emulator(tmp_path: Path, n_events: int) -> Emulator:
    program = tmp_path / "qemu"
    program.write_text(f"#!{Path(sys.executable).resolve()} -I\n{QMP}")
    program.chmod(0o755)
    berth = Berth(name="qemu1", folder=tmp_path)
    return Emulator(
        berth,
        lambda wiring: [str(program), str(wiring.qmp_fd), str(n_events)],
        Deadline.after(PATIENCE_S),
        KillSwitch("qemu1"),
        confinement=UNCONFINED,
    )


def test_events_without_end_end_the_guest(tmp_path):
    with emulator(tmp_path, 1_000_000_000) as hostile:
        hostile.execute("cont")
        began_s = time.monotonic()
        with pytest.raises(GuestDied, match="1000 events in a row"):
            hostile.wait_for({"BELL"}, Deadline.after(10 * PATIENCE_S), goal="the bell")
        assert time.monotonic() - began_s < PATIENCE_S


def test_some_events_after_each_command_are_nothing_special(tmp_path):
    with emulator(tmp_path, 900) as chatty:
        for _ in range(5):
            chatty.execute("cont")
            for n in range(900):
                event = chatty.next_event({"RING"}, Deadline.after(PATIENCE_S))
                assert event == ("RING", {"n": n})
        assert chatty.death is None


def test_waiting_ends_at_its_deadline_though_something_else_is_heard(tmp_path):
    with emulator(tmp_path, 900) as chatty:
        chatty.execute("cont")
        assert chatty.next_event({"BELL"}, Deadline.after(0.2)) is None


def test_a_qemu_without_seccomp_runs_and_is_told_of_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    program = tmp_path / "qemu"
    program.write_text(
        "#!/bin/sh\n"
        'test "$1" = -sandbox && { echo "qemu: -sandbox on: There is no option group \'sandbox\'" >&2; exit 1; }\n'
        'exit "$1"\n'
    )
    program.chmod(0o755)
    launcher = Launcher(lambda: tmp_path / "no shim")
    for _ in range(2):
        launch = Launch(command=(str(program), "7"), pass_fds=(), stderr_path=tmp_path / "stderr")
        process = launcher.start_qemu(launch)
        assert process.wait(Deadline.after(30))
        process.join()
        assert process.returncode == 7
    assert caplog.text.count("without its sandbox") == 1


def test_a_qemu_that_fails_for_another_reason_is_started_in_its_sandbox(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho no memory today >&2; exit 1\n")
    program.chmod(0o755)
    assert has_sandbox(program)


@pytest.mark.guest
def test_debians_qemu_has_a_sandbox():
    assert has_sandbox(find_binary(QemuSpec()))
