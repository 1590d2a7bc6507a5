"""Stems: shared, replaced, gone in the end; what cannot be one is started plainly."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.deadline import Deadline
from runner.errors import GuestDied, HostError, HostShortage
from runner.qemu.host import QemuHost
from runner.qemu.stem import PROTOCOL, encode_request, shim_path
from tests.qemu_guests import PATIENCE_S, eventually, guest_spec, process_exists
from tests.stems import Starter, built_shim, own_keepers, parent_of

READY, STARTED, REFUSED, ENDED = 1, 2, 3, 4
EINVAL, E2BIG, EBADMSG = 22, 7, 74


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def starter(tmp_path: Path, shim: Path) -> Iterator[Starter]:
    yield Starter(tmp_path, shim)
    assert not own_keepers()


def test_processes_share_a_stem_that_goes_with_the_last(starter):
    processes = [starter.start("/bin/sleep", "600") for _ in range(3)]
    stems = {parent_of(process.pid) for process in processes}
    assert len(stems) == 1
    assert os.getpid() not in stems
    for process in processes:
        assert all(process_exists(stem) for stem in stems)
        process.signal(signal.SIGKILL)
        process.join()
    assert not any(process_exists(stem) for stem in stems)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3


def test_a_stem_that_dies_takes_its_processes_along_and_is_replaced(starter):
    processes = [starter.start("/bin/sleep", "600") for _ in range(2)]
    stem = parent_of(processes[0].pid)
    os.kill(stem, signal.SIGKILL)
    for process in processes:
        assert process.wait(Deadline.after(10))
        assert process.returncode == -signal.SIGKILL
        assert not process_exists(process.pid)
    another = starter.start("/bin/sleep", "600")
    assert parent_of(another.pid) not in (stem, os.getpid())
    for process in (*processes, another):
        process.signal(signal.SIGKILL)
        process.join()


def test_a_stem_that_was_stopped_keeps_nobody_waiting(starter):
    processes = [starter.start("/bin/sleep", "600") for _ in range(2)]
    os.kill(parent_of(processes[0].pid), signal.SIGSTOP)
    processes[0].signal(signal.SIGKILL)
    for process in processes:
        assert process.wait(Deadline.after(30))
        process.join()
    assert starter.run("/bin/sh", "-c", "exit 3") == 3


def test_a_stem_that_is_not_trusted_any_more_goes_with_its_last_process(starter):
    old = starter.start("/bin/sleep", "600")
    starter.launcher.renew(Path("/bin/sleep"))
    new = starter.start("/bin/sleep", "600")
    assert parent_of(new.pid) != parent_of(old.pid)
    stem = parent_of(old.pid)
    for process in (old, new):
        process.signal(signal.SIGKILL)
        process.join()
    assert not process_exists(stem)
    assert not own_keepers()


def test_a_program_that_was_replaced_gets_a_new_stem(starter, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    old = starter.start(str(program), "600")
    program.unlink()
    program.write_bytes(Path("/bin/false").read_bytes())
    program.chmod(0o755)
    assert starter.run(str(program)) == 1
    old.signal(signal.SIGKILL)
    old.join()


def compiled(path: Path, source: str, *options: str) -> Path:
    subprocess.run(["gcc", "-xc", "-", "-o", path, *options], input=source, text=True, check=True, timeout=60)
    return path


def test_a_static_program_a_script_and_a_missing_or_damaged_shim_mean_a_plain_start(tmp_path, shim, caplog):
    caplog.set_level(logging.INFO)
    static = compiled(tmp_path / "static", "int main(int n, char **v) { return n + 4; }", "-static")
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\nexec /bin/sh -c "exit $(($# + 5))"\n')
    script.chmod(0o755)
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(shim.read_bytes()[:1000])
    for program, of, code in (
        (str(static), shim, 6),
        (str(script), shim, 6),
        ("/bin/false", tmp_path / "missing.so", 1),
        ("/bin/false", damaged, 1),
    ):
        caplog.clear()
        starter = Starter(tmp_path, of)
        assert [starter.run(program, "x") for _ in range(2)] == [code] * 2
        # What a QEMU that counts would be given is not given to it damaged.
        assert starter.run(program, "-icount") == code
        assert ("not every measurement repeats exactly" in caplog.text) == (of is not shim)
        told = [record.message for record in caplog.records if "loaded anew" in record.message]
        assert len(told) == 1
        assert Path(program).name in told[0]
    assert not own_keepers()


CONSTRUCTORS = {
    "a library has opened a file": 'open("/dev/null", 0);',
    "a library has started a thread": "pthread_t t; pthread_create(&t, 0, (void *(*)(void *))pause, 0);",
    "": "",
}


@pytest.mark.parametrize("reason", CONSTRUCTORS)
def test_what_a_fork_would_undo_is_not_forked(starter, tmp_path, monkeypatch, caplog, reason):
    caplog.set_level(logging.INFO)
    library = compiled(
        tmp_path / "own.so",
        "#include <fcntl.h>\n#include <pthread.h>\n#include <unistd.h>\n"
        f"__attribute__((constructor)) static void begin(void) {{ {CONSTRUCTORS[reason]} }}",
        *("-shared", "-fPIC", "-pthread"),
    )
    monkeypatch.setenv("LD_PRELOAD", str(library))
    # What the user preloads is there for the program itself, too.
    assert starter.run("/bin/sh", "-c", f'test "$LD_PRELOAD" = {library} && exit 5') == 5
    assert ("loaded anew" in caplog.text) == bool(reason)
    assert reason in caplog.text


@contextmanager
def bare_stem(shim: Path) -> Iterator[socket.socket]:
    """A stem of `sh` that is talked to directly, and has said that it is ready."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    with ours, shim.open("rb") as file:
        fds = (theirs.fileno(), file.fileno())
        environment = {"LD_PRELOAD": f"/proc/self/fd/{fds[1]}", "RTFLEET_STEM": f"{fds[0]},{fds[1]}"}
        with theirs:
            # Whatever else this process may have open is not for the stem.
            process = subprocess.Popen(
                ["/bin/sh", "--version"], env=environment, pass_fds=fds, stdin=subprocess.DEVNULL
            )
        assert answer(ours) == (READY, process.pid, PROTOCOL)
        yield ours
    assert process.wait(10) == 0


def answer(channel: socket.socket) -> tuple[int, int, int]:
    data, fds, _, _ = socket.recv_fds(channel, 64, 4)
    for fd in fds:
        os.close(fd)
    kind, pid, value = struct.unpack("=3i", data)
    assert (kind == STARTED) == (len(fds) == 1)
    return kind, pid, value


def ends_as_asked(channel: socket.socket) -> bool:
    channel.sendall(encode_request(["sh", "-c", "exit 9"], [], None))
    kind, pid, _ = answer(channel)
    return kind == STARTED and answer(channel) == (ENDED, pid, 9 << 8)


def test_requests_that_make_no_sense_are_refused(shim):
    good = encode_request(["sh", "-c", "exit 9"], [], None)
    head = len(encode_request([], [], None))
    bad = {
        "cut off in its head": (good[: head - 1], EBADMSG),
        "without arguments": (good[:head], EBADMSG),
        "an argument without end": (good[:-1], EINVAL),
        "another number of descriptors": (encode_request(["sh"], [5], None), EINVAL),
        "too many descriptors": (struct.pack("=iI", -1, 1 << 31) + good[8:], EINVAL),
        "no such CPU": (encode_request(["sh"], [], 1 << 20), EINVAL),
        "a negative CPU": (encode_request(["sh"], [], -2), EINVAL),
        "too many arguments": (encode_request(["x"] * 1025, [], None), E2BIG),
        "too long": (encode_request(["x" * (1 << 16)], [], None), E2BIG),
    }
    with bare_stem(shim) as stem:
        for what, (message, error) in bad.items():
            stem.sendall(message)
            assert (what, answer(stem)) == (what, (REFUSED, 0, error))
        for numbers in ([2, 2], [3, 2], [1, 2], [-1, 2]):
            socket.send_fds(stem, [encode_request(["sh"], numbers, None)], [0, 0])
            assert answer(stem) == (REFUSED, 0, EINVAL)
        socket.send_fds(stem, [good], [0] * 40)
        assert answer(stem) == (REFUSED, 0, E2BIG)
        assert ends_as_asked(stem)


def test_no_message_ends_a_stem(shim):
    with bare_stem(shim) as stem:
        # Nothing that starts a process: an odd number of descriptors is asked for, and none is there.
        @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
        @given(st.binary(min_size=1, max_size=200), st.integers(0, 3))
        def check(noise: bytes, n_fds: int) -> None:
            message = noise[:4] + struct.pack("=I", 17) + noise[4:]
            socket.send_fds(stem, [message], [0] * n_fds)
            assert answer(stem)[0] == REFUSED

        check()
        assert ends_as_asked(stem)


def test_an_argument_with_a_nul_is_refused_before_it_is_sent(starter):
    with pytest.raises(ValueError, match="no process"):
        starter.start("/bin/echo", "a\0b")


def test_a_runner_without_descriptors_left_is_told_so_and_keeps_what_runs(starter):
    process = starter.start("/bin/sleep", "600")
    # Room for the log and the socket's copies in the stem, none for what refers to the new process.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 1, limits[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        os.close(taken.pop())  # for the log
        with pytest.raises(HostShortage, match="Too many open files"):
            starter.start("/bin/sleep", "600")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)
    assert not process.wait(Deadline.after(0.1))
    assert starter.run("/bin/sh", "-c", "exit 3") == 3
    process.signal(signal.SIGKILL)
    process.join()


def test_a_command_beyond_all_bounds_is_an_error_of_the_host(starter):
    with pytest.raises(HostError, match="could not be started"):
        starter.start("/bin/echo", "x" * (1 << 17))


@pytest.mark.guest
def test_a_guest_comes_from_a_stem_and_dies_with_it(tmp_path):
    assert shim_path().exists(), "python -m host_setup stem"
    deaths: list[GuestDied] = []
    with QemuHost(guest_spec(), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        assert host.pid is not None
        stem = parent_of(host.pid)
        assert stem != os.getpid()
        host.watch(deaths.append)
        os.kill(stem, signal.SIGKILL)
        assert eventually(lambda: bool(deaths))
    assert not own_keepers()
