"""Processes and who keeps them, started from a stem and plainly, with programs that are no QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import HostError, MachineKilled
from runner.qemu.killswitch import KillSwitch
from runner.qemu.process import Process
from tests.qemu_guests import eventually, process_exists
from tests.stems import Starter, built_shim, own_keepers


@pytest.fixture(scope="module")
def stem_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A space and a colon would part the path where the dynamic linker reads it.
    return built_shim(tmp_path_factory.mktemp("a cache: mine"))


@pytest.fixture(params=["stem", "plain"])
def shim(request: pytest.FixtureRequest, stem_shim: Path, tmp_path: Path) -> Path:
    return stem_shim if request.param == "stem" else tmp_path / "not there"


@pytest.fixture
def starter(tmp_path: Path, shim: Path) -> Iterator[Starter]:
    yield Starter(tmp_path, shim)
    assert not own_keepers()


def test_end_stderr_and_code_are_told(starter, tmp_path):
    assert starter.run("/bin/sh", "-c", "echo so long >&2; exit 7") == 7
    assert (tmp_path / "stderr").read_text() == "so long\n"


def test_arguments_arrive_as_they_are(starter, tmp_path):
    # One way goes through another program, the other through a message: nothing may be expanded, parted or lost.
    nasty = ["", "two words", "$HOME", "`id`", "a'b\"c", "--", "-c", "\n", "*", "ö", "x" * 5000]
    target = tmp_path / "out"
    program = "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]))"
    assert starter.run(sys.executable, "-c", program, str(target), *nasty) == 0
    assert target.read_text() == repr(nasty)


def test_ps_shows_its_own_arguments(starter):
    process = starter.start("/bin/sleep", "600", "0")
    shown = Path(f"/proc/{process.pid}/cmdline")
    assert eventually(lambda: shown.read_bytes() == b"/bin/sleep\x00600\x000\x00")
    process.signal(signal.SIGKILL)
    process.join()


def test_signals_reach_the_program_itself(starter):
    process = starter.start("/bin/sleep", "600")
    assert not process.wait(Deadline.after(0.05))
    assert eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    process.signal(signal.SIGTERM)
    assert process.wait(Deadline.after(10))
    process.signal(signal.SIGTERM)
    process.join()
    assert process.returncode == -signal.SIGTERM


def test_only_the_given_descriptors_are_inherited(starter, tmp_path):
    given, secret = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    high = os.dup2(given, 200, inheritable=False)
    listing = tmp_path / "listing"
    try:
        starter.run("/bin/sh", "-c", f"ls -l /proc/$$/fd > {listing}", fds=[high, given])
    finally:
        for fd in (given, secret, high):
            os.close(fd)
    inherited = dict(line.split()[-3::2] for line in listing.read_text().splitlines()[1:])
    # 1 is the listing itself, for the time of `ls`, and dash keeps what it was at 10.
    assert inherited.keys() - {"1", "10"} == {"0", "2", str(given), str(high)}
    assert inherited["0"] == "/dev/null"
    assert inherited["2"] == str(tmp_path / "stderr")
    assert inherited[str(given)] == inherited[str(high)] == str(tmp_path)


STATE = """
import os, signal, sys, threading
print(sorted(os.sched_getaffinity(0)), os.getsid(0) == os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, ()),
      signal.getsignal(signal.SIGCHLD), "RTFLEET_STEM" in os.environ, os.environ.get("LD_PRELOAD"),
      threading.get_native_id() == os.getpid(), os.getcwd(), file=sys.stderr)
"""


@pytest.mark.parametrize("cpu", [None, max(os.sched_getaffinity(0))])
def test_it_starts_as_any_program_does(starter, tmp_path, cpu):
    assert starter.run(sys.executable, "-c", STATE, cpu=cpu) == 0
    cpus = sorted(os.sched_getaffinity(0) if cpu is None else {cpu})
    clean = [cpus, True, set[int](), signal.Handlers.SIG_DFL, False, None, True, os.getcwd()]
    assert (tmp_path / "stderr").read_text().split() == " ".join(map(str, clean)).split()


def test_a_program_that_is_not_there_ends_at_once(starter, tmp_path):
    assert starter.run("/no/such/program") == 127
    assert "/no/such/program" in (tmp_path / "stderr").read_text()


def test_a_log_that_cannot_be_written_is_an_error_of_the_host(starter, tmp_path):
    (tmp_path / "stderr").mkdir()
    with pytest.raises(HostError, match="Is a directory"):
        starter.start("/bin/sleep", "600")


def test_it_lives_on_when_the_thread_that_started_it_ends(starter):
    # The death signal is tied to the thread that forks; that has to be the keeper, not ours.
    made: list[Process] = []
    thread = threading.Thread(target=lambda: made.append(starter.start("/bin/sleep", "600")))
    thread.start()
    thread.join()
    assert not made[0].wait(Deadline.after(0.2))
    made[0].signal(signal.SIGKILL)
    assert made[0].wait(Deadline.after(10))
    made[0].join()


def test_many_at_once_are_kept_apart(starter):
    def live(code: int) -> list[int | None]:
        return [starter.run("/bin/sh", "-c", f"exit {code}") for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(live, range(8))) == [[code] * 10 for code in range(8)]


RUNNER = """
import sys, time
from pathlib import Path
from runner.qemu.process import Launch
launcher = Launcher(lambda: Path(sys.argv[2]))
launch = Launch(command=("/bin/sleep", "600"), pass_fds=(), stderr_path=Path(sys.argv[1]))
process = launcher.start(launch)
print(process.pid, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_the_runner(tmp_path, shim, number):
    command = [sys.executable, "-c", RUNNER, str(tmp_path / "stderr"), str(shim)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        # The process and its parent: the stem, where there is one.
        pids = {int(word) for word in runner.stdout.readline().split()}
        assert all(process_exists(pid) for pid in pids)
        runner.send_signal(number)
        runner.wait()
    assert eventually(lambda: not any(process_exists(pid) for pid in pids), within_s=10.0)


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
