"""What a process that was started for a guest may do, from a stem and plainly: next to nothing."""

from __future__ import annotations

import os
import pwd
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.qemu.confinement import (
    UNCONFINED,
    Account,
    Confinement,
    can_open,
    device_group,
    for_qemu,
    qemu_account,
)
from runner.qemu.process import Launch, Process
from tests.qemu_guests import eventually, process_exists
from tests.stems import Starter, built_shim, own_keepers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = Account("nobody", *pwd.getpwnam("nobody")[2:4])


@pytest.fixture(scope="module")
def stem_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["stem", "plain"])
def shim(request: pytest.FixtureRequest, stem_shim: Path, tmp_path: Path) -> Path:
    return stem_shim if request.param == "stem" else tmp_path / "not there"


@pytest.fixture
def starter(tmp_path: Path, shim: Path) -> Iterator[Starter]:
    yield Starter(tmp_path, shim)
    assert not own_keepers()


def start(starter: Starter, *command: str, confinement: Confinement) -> Process:
    return starter.launcher.start(
        Launch(command=command, pass_fds=(), stderr_path=starter.stderr, confinement=confinement)
    )


def said(starter: Starter, script: str, confinement: Confinement = UNCONFINED) -> str:
    """What a shell that is confined says on stderr."""
    process = start(starter, "/bin/sh", "-c", f"{{ {script}; }} >&2", confinement=confinement)
    assert process.wait(Deadline.after(30))
    process.join()
    return starter.stderr.read_text()


def limits(text: str) -> dict[str, tuple[str, str]]:
    """Soft and hard, by name, of /proc/PID/limits."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[1:])
    return {row[0]: (row[1], row[2]) for row in rows}


def test_no_process_gains_rights_leaves_a_core_or_opens_many_files(starter):
    assert re.search(r"NoNewPrivs:\s*1\n", said(starter, "cat /proc/self/status"))
    starter.stderr.unlink()
    found = limits(said(starter, "cat /proc/self/limits"))
    assert found["Max core file size"] == ("0", "0")
    assert found["Max open files"] == ("256", "256")
    unlimited = "unlimited"
    assert found["Max file size"][1] in (unlimited, str(resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_bounds_are_those_that_were_given(starter):
    bounds = Confinement(file_bytes=1 << 20, memory_bytes=1 << 30, n_open=40)
    found = limits(said(starter, "cat /proc/self/limits", bounds))
    assert found["Max file size"] == (str(1 << 20),) * 2
    assert found["Max data size"] == (str(1 << 30),) * 2
    assert found["Max open files"] == ("40", "40")


def ignored(status: str) -> int:
    """The signals that a process ignores, of /proc/PID/status: signal n is bit n - 1."""
    found = re.search(r"^SigIgn:\s*(\w+)$", status, re.M)
    assert found is not None
    return int(found[1], 16)


def test_of_the_signals_only_that_of_a_full_file_is_ignored(starter):
    # Python ignores two signals itself; what its own parent had ignored, it inherits and hands on.
    pipe, full = (1 << (one - 1) for one in (signal.SIGPIPE, signal.SIGXFSZ))
    inherited = ignored(Path("/proc/self/status").read_text()) & ~(pipe | full)
    assert ignored(said(starter, "cat /proc/self/status")) == inherited | full


def test_a_log_that_is_full_is_an_error_to_its_writer_and_not_his_end(starter):
    text = said(
        starter, "yes | head -c 100000; echo more; kill -0 $$ && exit 3", Confinement(file_bytes=5000)
    )
    assert len(text) == 5000


@as_root
def test_it_runs_as_another_user_without_that_users_groups(starter):
    text = said(starter, "cat /proc/self/status", Confinement(account=NOBODY))
    for name, number in (("Uid", NOBODY.uid), ("Gid", NOBODY.gid)):
        assert re.search(rf"^{name}:(\s+{number}){{4}}$", text, re.M)
    assert re.search(r"^Groups:\s*$", text, re.M)
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert re.search(rf"^{name}:\s*0+$", text, re.M)


@as_root
def test_one_group_can_be_left_to_it(starter):
    text = said(starter, "cat /proc/self/status", Confinement(account=NOBODY, group=4711))
    assert re.search(r"^Groups:\s*4711\s*$", text, re.M)


@as_root
def test_a_program_in_a_folder_that_is_closed_to_its_user_starts(starter, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    script = closed / "program"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    process = start(starter, str(script), confinement=Confinement(account=NOBODY))
    assert process.wait(Deadline.after(30))
    process.join()
    assert process.returncode == 7


RUNNER = """
import sys, time
from pathlib import Path
from runner.qemu.confinement import Account, Confinement
from runner.qemu.launcher import Launcher
from runner.qemu.process import Launch
launcher = Launcher(lambda: Path(sys.argv[2]))
launch = Launch(command=("/bin/sleep", "600"), pass_fds=(), stderr_path=Path(sys.argv[1]),
                confinement=Confinement(account=Account("nobody", int(sys.argv[3]), int(sys.argv[4]))))
process = launcher.start(launch)
print(process.pid, flush=True)
time.sleep(600)
"""


@as_root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_as_another_user_it_dies_with_the_runner(tmp_path, shim, number):
    command = [
        *(sys.executable, "-c", RUNNER, str(tmp_path / "stderr"), str(shim)),
        *map(str, (NOBODY.uid, NOBODY.gid)),
    ]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        status = Path(f"/proc/{pid}/status")
        assert eventually(lambda: f"Uid:\t{NOBODY.uid}\t" in status.read_text())
        assert eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        runner.send_signal(number)
        runner.wait()
    assert eventually(lambda: not process_exists(pid))


@as_root
def test_processes_of_one_stem_cannot_look_into_one_another(tmp_path, stem_shim):
    starter = Starter(tmp_path, stem_shim)
    other = start(starter, "/bin/sleep", "600", confinement=Confinement(account=NOBODY))
    try:
        assert "Permission denied" in said(
            starter, f"cat /proc/{other.pid}/environ", Confinement(account=NOBODY)
        )
    finally:
        other.signal(signal.SIGKILL)
        other.join()


def test_qemu_is_root_only_where_root_can_be_nobody_else():
    account = qemu_account()
    if os.geteuid() == 0:
        assert account is not None
        assert account.uid != 0
        assert account.gid != 0
    else:
        assert account is None
    bounds = for_qemu(memory_mib=128)
    assert bounds.account == account
    assert bounds.group is None
    assert bounds.file_bytes is not None
    assert bounds.memory_bytes is not None


@as_root
@pytest.mark.parametrize(
    ("mode", "gid", "group", "opened"),
    [
        (0o660, 4711, 4711, True),
        (0o666, 4711, None, True),
        (0o600, 4711, None, False),
        (0o640, 4711, None, False),
        (0o660, 0, None, False),  # no emulator gets root's own group
    ],
)
def test_a_device_is_opened_by_its_group_alone(tmp_path, mode, gid, group, opened):
    device = tmp_path / "device"
    device.touch()
    os.chown(device, 0, gid)
    device.chmod(mode)
    assert device_group(device, NOBODY) == group
    assert can_open(device, NOBODY) is opened
    assert not can_open(tmp_path / "none", NOBODY)
    assert can_open(device, None)
