"""A machine at work, looked at from outside as `ps`, `ss` and `ls` show it; and a guest that means harm."""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from runner.deadline import Deadline
from runner.errors import GuestDied, SessionLost
from runner.hosts.base import SshCredentials
from runner.qemu import confinement
from runner.qemu.architectures import ARCHITECTURES
from runner.qemu.host import QemuHost
from runner.qemu.image import cache_root
from runner.sessions.ssh import SshSession
from runner.specs import Reach
from tests.qemu_guests import PATIENCE_S, eventually, guest_spec, measures, type_on_console
from tests.ssh_endpoint import Endpoint, new_key, public_line
from tests.stems import parent_of

pytestmark = pytest.mark.guest

SHELLS = {"sh", "dash", "bash", "busybox", "zsh", "ksh"}
BOTH = [pytest.param(arch, reach, id=f"{arch}-{reach.value}") for arch in ARCHITECTURES for reach in Reach]


@pytest.fixture(params=["stem", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """How QEMU is started."""
    if request.param == "plain":
        monkeypatch.setattr("runner.qemu.launcher.LAUNCHER._shim", lambda: tmp_path / "no shim")
    return str(request.param)


def field(pid: int, name: str) -> list[str]:
    """The words of a line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:(.*)$", text, re.M)
    assert found is not None, name
    return found[1].split()


def threads(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [
        int(word)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(path))
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listening(pid: int) -> list[str]:
    """The addresses at which a process can be reached, as the kernel's tables have them: `0100007F:1F90` is 127.0.0.1:8080."""
    own, found = sockets_of(pid), []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in own and (not table.startswith("tcp") or words[3] == "0A"):
                found.append(words[1])
    return found


def named_sockets_of(pid: int) -> list[str]:
    """Sockets of a process that have a place in the file system, or a name that anybody can call."""
    own = sockets_of(pid)
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return [words[7] for words in rows if len(words) > 7 and words[6] in own]


def open_to_others(folder: Path) -> list[str]:
    """Files that others may write, or that nobody keeps them from."""
    found = []
    for path in folder.rglob("*"):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o002:
            found.append(f"{path} {stat.filemode(status.st_mode)}")
    return found


@pytest.mark.parametrize(("arch", "reach"), BOTH)
def test_a_machine_as_ps_and_ss_see_it(tmp_path, way, arch, reach):
    folder = tmp_path / "machines" / "qemu1"
    before = os.umask(0)  # the worst that a shell could have
    try:
        with QemuHost(guest_spec(arch, reach=reach), "qemu1", folder) as host:
            host.start(Deadline.after(PATIENCE_S))
            pid = host.pid
            assert pid is not None
            assert (parent_of(pid) == os.getpid()) is (way == "plain")
            for thread in threads(pid):
                assert field(thread, "Seccomp") == ["2"]
                assert field(thread, "NoNewPrivs") == ["1"]
                assert field(thread, "CapEff") == field(thread, "CapPrm") == ["0000000000000000"]
                assert "0" not in field(thread, "Uid") + field(thread, "Gid") + field(thread, "Groups")
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            sandbox = words[words.index("-sandbox") + 1]
            assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
            names = {one: Path(f"/proc/{one}/comm").read_text().strip() for one in family(os.getpid())[1:]}
            assert names[pid].startswith("qemu")
            assert not set(names.values()) & SHELLS
            loopback = [address.rpartition(":")[0] for address in listening(pid)]
            assert loopback == ["0100007F"] * {Reach.MAILBOX: 0, Reach.SSH: 1, Reach.GENODE: 2}[reach]
            assert named_sockets_of(pid) == []
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"Max file size +\d+ +\d+", limits)
            assert re.search(r"Max data size +\d+ +\d+", limits)
            assert re.search(r"Max core file size +0 +0", limits)
            assert open_to_others(tmp_path) == open_to_others(cache_root()) == []
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for path in folder.iterdir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            snapshots = cache_root() / "snapshots"
            assert stat.S_IMODE(snapshots.stat().st_mode) == 0o700
            if reach is Reach.MAILBOX:
                assert measures(host)
            terminal = Path(host_terminal(folder))
            assert not terminal.stat().st_mode & 0o077
    finally:
        os.umask(before)


def host_terminal(folder: Path) -> str:
    """The console's terminal."""
    found = re.search(r'"pty": "([^"]+)"', (folder / "console.json").read_text())
    assert found is not None
    return found[1]


def test_what_is_made_anew_is_closed_to_others(tmp_path, monkeypatch):
    """A cache and a snapshot of one's own, whatever the umask is."""
    spec = guest_spec()
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0)
    try:
        with QemuHost(spec, "qemu1", tmp_path / "run" / "qemu1") as host:
            host.start(Deadline.after(PATIENCE_S))
            assert measures(host)
    finally:
        os.umask(before)
    for top in ("new", "run"):
        for path in (tmp_path / top, *(tmp_path / top).rglob("*")):
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.fixture(params=ARCHITECTURES)
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QemuHost]:
    """A guest over SSH that runs."""
    with QemuHost(guest_spec(request.param, reach=Reach.SSH), "qemu1", tmp_path / "qemu1") as host:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        yield host


def log_in(host: QemuHost) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    address, port = host.ssh_address
    client.connect(
        address,
        port,
        username=host.credentials.user,
        pkey=paramiko.Ed25519Key.from_private_key_file(str(host.credentials.client_key)),
        allow_agent=False,
        look_for_keys=False,
        timeout=PATIENCE_S,
        banner_timeout=PATIENCE_S,
        auth_timeout=PATIENCE_S,
    )
    return client


def in_guest(client: paramiko.SSHClient, command: str) -> tuple[int, str]:
    """Exit status and output of a command in a guest."""
    _, out, err = client.exec_command(command, timeout=PATIENCE_S)
    text = (out.read() + err.read()).decode(errors="replace")
    return out.channel.recv_exit_status(), text


def test_a_guest_reaches_neither_this_computer_nor_the_network(guest):
    """What QEMU's user network would lead to: this computer's loopback as 10.0.2.2, a name server, and all others."""
    with socket.create_server(("127.0.0.1", 0)) as server, log_in(guest) as client:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        assert in_guest(client, "busybox ip addr show eth0")[1].count("10.0.2.15") == 1
        for address, number in (("10.0.2.2", port), ("10.0.2.3", 53), ("192.0.2.1", 80)):
            status, text = in_guest(client, f"echo x | busybox timeout 3 busybox nc {address} {number}")
            assert (status != 0, address) == (True, address), text
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_guest_with_another_host_key_is_refused(guest, tmp_path):
    stranger = public_line(new_key(tmp_path / "another"))
    known = guest.credentials
    session = SshSession(Endpoint(guest.ssh_address, replace(known, host_key=stranger)))
    with pytest.raises(SessionLost, match="another host key"):
        session.open(Deadline.after(PATIENCE_S))
    session.close()
    session = SshSession(
        Endpoint(guest.ssh_address, SshCredentials(known.user, tmp_path / "another", known.host_key))
    )
    with pytest.raises(SessionLost, match="does not accept"):
        session.open(Deadline.after(PATIENCE_S))
    session.close()


def test_a_guest_that_rings_without_end_is_ended(guest):
    deaths: list[GuestDied] = []
    guest.watch(deaths.append)
    ring = "while taskloader bell ready; do :; done"
    with log_in(guest) as client, suppress(paramiko.SSHException, EOFError, OSError):
        client.exec_command(f"for n in 1 2 3 4; do ({ring}) & done; wait")
        assert eventually(lambda: bool(deaths), within_s=2 * PATIENCE_S)
    assert "events in a row" in deaths[0].what


def test_a_console_that_never_stops_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(confinement, "_FILE_BYTES", 50_000)
    folder = tmp_path / "qemu1"
    with QemuHost(guest_spec(reach=Reach.SSH), "qemu1", folder) as host:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        flood = shlex.quote("x" * 100)
        type_on_console(folder, f"yes {flood} | head -n 2000")
        log = folder / "console.log"
        assert eventually(lambda: log.stat().st_size == 50_000, within_s=PATIENCE_S)
        with log_in(host) as client:  # and it goes on
            assert in_guest(client, "echo here") == (0, "here\n")
        assert log.stat().st_size == 50_000
