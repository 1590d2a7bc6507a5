"""The parts of a rehearsal: what it injects with, and that it would see what is wrong."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import socket
import socketserver
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from runner.data.reuse import RESULTS_NAME
from runner.errors import UsageError
from runner.hosts.base import AbstractHost
from runner.rehearsal.catalogue import FAULTS, named
from runner.rehearsal.clock_shift import VARIABLE, build, shift
from runner.rehearsal.comparison import differences, read_data_set
from runner.rehearsal.leftovers import leftovers
from runner.rehearsal.link import Call, ask
from runner.rehearsal.processes import console_of, descendants
from runner.rehearsal.qmp_sockets import shut_monitors
from runner.rehearsal.relay import Relay
from runner.rehearsal.setup import Reached, Setup
from runner.rehearsal.source import FirstSets
from runner.rehearsal.switchboard import Switchboard
from runner.rehearsal.tampered_host import TamperedHost
from runner.rehearsal.trial import planned
from tests.cli import run_cli
from tests.fleet_samples import HANG_S, Sets

SIMULATED = ("machines=simulation", "tasksets.sets_per_utilization=1")


# The line


def test_a_run_is_answered_what_the_rehearsal_says(tmp_path):
    heard: list[Call] = []

    def answer(call: Call) -> str:
        heard.append(call)
        return f"{call.what} it is"

    with Switchboard(tmp_path / "link", answer):
        assert ask(str(tmp_path / "link"), "start", host_pid=7, machine="qemu1") == "start it is"
    assert heard == [Call("start", os.getpid(), {"host_pid": 7, "machine": "qemu1"})]
    assert heard[0].host_pid == 7


def test_a_run_goes_on_when_there_is_no_rehearsal_any_more(tmp_path):
    assert ask(str(tmp_path / "link"), "start") == ""


# The relay


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says everything back."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while data := self.request.recv(4096):
                    self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
    thread.join()


def connected(relay: Relay) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", relay.port), timeout=HANG_S)
    client.sendall(b"hey")
    assert client.recv(16) == b"hey"
    return client


def test_a_relay_passes_on(echo):
    with Relay(echo) as relay, connected(relay), connected(relay):
        pass


def test_a_relay_resets_its_connections_and_takes_new_ones(echo):
    with Relay(echo) as relay, connected(relay) as client:
        relay.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(16)
        connected(relay).close()


def test_a_relay_swallows_without_a_word(echo):
    with Relay(echo) as relay, connected(relay) as client:
        relay.swallow()
        client.sendall(b"ho")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(16)
        connected(relay).close()


def test_a_relay_spoils_and_tears_what_the_guest_says(echo):
    with Relay(echo) as relay, connected(relay) as client:
        relay.spoil()
        client.sendall(b"ho")
        assert client.recv(16) == bytes(byte ^ 0x5A for byte in b"ho")
        relay.tear()
        client.sendall(b"12345678")
        assert client.recv(16) == b"1234"
        assert client.recv(16) == b""


# Faults


def test_every_fault_says_what_it_is_and_why_it_must_be_noticed():
    assert len({one.name for one in FAULTS}) == len(FAULTS) >= 14
    assert all(one.what and one.source for one in FAULTS)


def test_faults_are_called_by_their_names():
    assert [one.name for one in named("qemu_killed, clock_jump")] == ["qemu_killed", "clock_jump"]
    with pytest.raises(UsageError, match="no fault is called 'flood'"):
        named("flood")


def test_when_faults_happen_repeats_with_the_seed():
    two = named("qemu_killed,clock_jump")
    first, again, other = planned(two, 6, 1), planned(two, 6, 1), planned(two, 6, 2)
    assert [(one.at, one.seed) for one in first] == [(one.at, one.seed) for one in again]
    assert [one.seed for one in first] != [one.seed for one in other]
    assert all(2 <= one.at <= 5 for one in (*first, *other))
    assert [one.at for one in planned(two, 1, 1)] == [1, 1]


def test_the_clock_jumps_for_one_process_alone(tmp_path):
    build(tmp_path)
    shift(tmp_path / "shift", -86_400 * 10**9 + 1)
    code = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_REALTIME))"
    env = {
        **os.environ,
        "LD_PRELOAD": str(tmp_path / "clock_shift.so"),
        VARIABLE: str(tmp_path / "shift"),
    }
    before_s, before_monotonic_s = time.time(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    realtime_s, monotonic_s, same_s = map(float, done.stdout.split())
    assert -86_400 <= realtime_s - before_s < -86_400 + HANG_S
    assert abs(same_s - realtime_s) < HANG_S
    assert 0 <= monotonic_s - before_monotonic_s < HANG_S


def test_monitors_are_shut_and_nothing_else():
    """A connection of which both ends are here is left alone."""
    ours, theirs = socket.socketpair()
    both = socket.socketpair()
    code = f"import socket; print(len(socket.socket(fileno={theirs.fileno()}).recv(1)))"
    with ours, both[0], both[1]:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
            )
        try:
            assert shut_monitors() == 1
            output, _ = child.communicate(timeout=HANG_S)
        finally:
            child.kill()
            child.wait()
        assert output == b"0\n"
        both[0].sendall(b"x")
        assert both[1].recv(1) == b"x"


def test_a_console_is_found_by_the_process_that_has_it():
    ours, theirs = os.openpty()
    try:
        assert console_of(os.getpid()) == Path(os.ttyname(theirs))
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_tampered_host_is_the_host_in_everything_else():
    """Whatever an `AbstractHost` can be asked, the true one answers."""
    own = {name for name in vars(AbstractHost) if not name.startswith("_")}
    assert own - set(vars(TamperedHost)) == set()
    for name in own:
        ours, theirs = vars(TamperedHost)[name], vars(AbstractHost)[name]
        if inspect.isfunction(theirs):
            assert str(inspect.signature(ours)) == str(inspect.signature(theirs)), name


# Setups


def setup(session: str, *, reset: str = "taskset", clock: str = "icount") -> Setup:
    machines = {"session": {"_target_": session}, "reset": reset, "qemu": {"clock": clock}}
    return Setup({"machines": machines, "tasksets": {"_target_": "x"}, "monitors": {}}, 3)


def test_a_config_is_known_by_its_session():
    assert setup("runner.sessions.mailbox.MailboxSession").repeats
    assert not setup("runner.sessions.mailbox.MailboxSession", reset="machine").repeats
    assert setup("runner.sessions.simulation.SimulationSession", clock="host").repeats
    assert not setup("runner.sessions.ssh.SshSession").repeats
    assert setup("my.Session").reached is Reached.OTHER
    assert all(one.applies_to(setup("my.Session")) for one in named("qemu_killed,guest_panic,ssh_reset"))


def test_without_a_data_set_there_is_nothing_to_rehearse(tmp_path):
    with pytest.raises(UsageError, match="no monitor keeps a data set"):
        setup("my.Session").write(tmp_path, tmp_path / "link")


def test_the_first_sets_of_a_source():
    module = Sets.__module__
    assert len(list(FirstSets(f"{module}.Sets", {"n": 5}, 3).variants())) == 3
    assert FirstSets(f"{module}.Sets", {"n": 2}, 3).n_variants == 2
    endless = FirstSets(f"{module}.Sets", {"n": None}, 3)
    assert endless.n_variants is None
    assert len(list(endless.variants())) == 3
    with pytest.raises(UsageError, match="has no variants"):
        FirstSets("pathlib.Path", {}, 3)


# What is seen


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of five measurements."""
    folder = tmp_path_factory.mktemp("measured")
    done = run_cli(folder, *SIMULATED)
    assert done.returncode == 0, done.stderr
    return folder / "run" / RESULTS_NAME


DAMAGE = {
    "a job is missing": (
        "DELETE FROM jobs WHERE rowid IN (SELECT rowid FROM jobs LIMIT 1)",
        "number of jobs",
    ),
    "another start": ("UPDATE jobs SET start_ns = start_ns + 1 WHERE job_idx = 0 AND task_idx = 0", "differ"),
    "another label": ("UPDATE runs SET schedulable = 1 - schedulable", "differ"),
    "a set is pending": ("UPDATE ledger SET state = 'pending', run_id = NULL WHERE set_idx = 1", "pending"),
    "a set is bad": ("UPDATE ledger SET state = 'bad', run_id = NULL WHERE set_idx = 1", "are bad"),
    "another identity": ("UPDATE runs SET identity = 'x' || identity", "differ"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen(measured, tmp_path, damage):
    sql, words = DAMAGE[damage]
    if "rowid" in sql:  # the table is stored by its key
        sql = "DELETE FROM jobs WHERE task_idx = 0 AND job_idx = 0"
    copy = Path(shutil.copy(measured, tmp_path))
    with contextlib.closing(sqlite3.connect(copy)) as database:
        database.execute(sql)
        database.commit()
    found = differences(read_data_set(copy), read_data_set(measured), repeats=True)
    assert any(words in one for one in found)


def test_equal_data_are_equal(measured):
    data = read_data_set(measured)
    assert len(data.measured) == 5
    assert list(differences(data, data, repeats=True)) == []


def test_where_nothing_repeats_other_jobs_are_no_difference(measured, tmp_path):
    copy = Path(shutil.copy(measured, tmp_path))
    with contextlib.closing(sqlite3.connect(copy)) as database:
        database.execute("UPDATE runs SET identity = NULL, n_missed = n_missed + 1")
        database.commit()
    reference = read_data_set(measured)
    assert list(differences(read_data_set(copy), reference, repeats=False)) == []
    assert list(differences(read_data_set(copy), reference, repeats=True)) != []


def test_what_is_left_is_seen(tmp_path):
    run, temporary = tmp_path / "run", tmp_path / "tmp"
    run.mkdir()
    temporary.mkdir()
    (run / "results.sqlite").touch()
    assert list(leftovers(run, temporary, killed=False)) == []
    (run / ".status.json.abcd").touch()
    (temporary / "x").touch()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(run / "socket"))
    found = list(leftovers(run, temporary, killed=False))
    assert len(found) == 3
    assert list(leftovers(run, temporary, killed=True)) == []


def test_processes_are_seen_with_those_that_they_started():
    child = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True)
    try:
        end_s = time.monotonic() + HANG_S
        while len(descendants(child.pid)) < 1 and time.monotonic() < end_s:
            time.sleep(0.01)
        assert list(descendants(child.pid).values()) == ["sleep 1000"]
    finally:
        os.killpg(child.pid, 9)
        child.wait()
    assert child.pid not in descendants(os.getpid())
