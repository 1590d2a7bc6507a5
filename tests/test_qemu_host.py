"""The life of a QEMU guest, on real ones: started, paused, lost, stopped, killed."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import (
    BootFailed,
    Fault,
    GuestDied,
    HostError,
    HostShortage,
    MachineKilled,
    SessionLost,
    UsageError,
)
from runner.hosts.base import BootKind, HostPhase
from runner.mailbox import write_request
from runner.qemu.console_link import read_link
from runner.qemu.host import QemuHost
from runner.specs import Accelerator, Clock, Reach
from tests.qemu_guests import (
    PATIENCE_S,
    eventually,
    guest_spec,
    measures,
    own_children,
    process_exists,
    ssh_banner,
    type_on_console,
)
from tests.session_contract import endless

pytestmark = pytest.mark.guest


@pytest.fixture
def started(tmp_path):
    """A paused guest that is reached over SSH, from the snapshot that all tests share with the user's runs."""
    with QemuHost(guest_spec(reach=Reach.SSH), "qemu1", tmp_path / "qemu1") as host:
        host.start(Deadline.after(PATIENCE_S))
        yield host


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_cold_boot_reaches_the_ssh_server(tmp_path, arch):
    with QemuHost(guest_spec(arch, reach=Reach.SSH, snapshot=False), "qemu1", tmp_path) as host:
        phases = [host.phase]
        host.start(Deadline.after(PATIENCE_S))
        phases.append(host.phase)
        assert host.facts.boot is BootKind.COLD
        assert (host.facts.arch, host.facts.accel, host.facts.vcpus) == (arch, Accelerator.TCG, 1)
        assert host.facts.qemu_version[0].isdigit()
        assert arch in host.facts.kernel_release
        host.resume()
        phases.append(host.phase)
        assert ssh_banner(host.ssh_address).startswith(b"SSH-2.0-")
        assert "ready" in (tmp_path / "console.log").read_text()
    assert [*phases, host.phase] == [
        HostPhase.NEW,
        HostPhase.PAUSED,
        HostPhase.RUNNING,
        HostPhase.STOPPED,
    ]


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_start_from_the_snapshot_reaches_the_ssh_server(tmp_path, arch):
    with QemuHost(guest_spec(arch, reach=Reach.SSH), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        assert host.facts.boot is BootKind.SNAPSHOT
        host.resume()
        assert ssh_banner(host.ssh_address).startswith(b"SSH-2.0-")


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
@pytest.mark.parametrize("boot", BootKind)
def test_a_guest_with_a_mailbox_stands_still_until_it_is_asked(tmp_path, arch, boot):
    spec = guest_spec(arch, snapshot=boot is BootKind.SNAPSHOT)
    with QemuHost(spec, "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        facts = host.facts
        assert (facts.boot, facts.cpu_mips, facts.icount_shift) == (boot, 125.0, 3)
        assert host.phase is HostPhase.PAUSED
        assert host.mailbox[0x80:0x88] == b"RTFGUEST"
        assert measures(host)
        assert host.phase is HostPhase.PAUSED
        assert measures_nothing_twice(host)


def measures_nothing_twice(host: QemuHost) -> bool:
    """Whether a guest that is let go without a new request says so at once, rather than running on."""
    host.run_until_bell(Deadline.after(PATIENCE_S))
    reply_offset, reply_bytes = struct.unpack_from("<QQ", host.mailbox, 0x98)
    return host.mailbox[reply_offset : reply_offset + reply_bytes].startswith(b"error code=mailbox ")


def test_restored_guests_have_the_same_memory_and_mailbox(tmp_path):
    """Copies of one moment: the hello says the same, and each has its own."""
    hellos = []
    with ExitStack() as stack:
        hosts = [stack.enter_context(QemuHost(guest_spec(), f"qemu{n}", tmp_path / str(n))) for n in (1, 2)]
        for host in hosts:
            host.start(Deadline.after(PATIENCE_S))
            hellos.append(host.mailbox[:0x2000])
        assert hellos[0] == hellos[1]
        assert measures(hosts[0])
        assert hosts[1].mailbox[:0x2000] == hellos[1]


def test_a_bell_that_does_not_ring_is_given_up_at_the_deadline(tmp_path):
    """The guest may still be running then, and ends all the same."""
    with QemuHost(guest_spec(), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        write_request(host.mailbox, endless(), sequence=1, files={})
        with pytest.raises(SessionLost, match=r"qemu1: .* within 0.5 s of real time") as caught:
            host.run_until_bell(Deadline.after(0.5))
        assert caught.value.fault is Fault.TASKSET
        assert "machines.policy.taskset_timeout_s" in caught.value.next_step
        assert host.phase is HostPhase.RUNNING


def test_a_kill_wakes_who_waits_for_the_bell(tmp_path):
    with QemuHost(guest_spec(), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        write_request(host.mailbox, endless(), sequence=1, files={})
        killer = threading.Timer(0.3, host.kill)
        killer.start()
        began_s = time.monotonic()
        with pytest.raises(MachineKilled):
            host.run_until_bell(Deadline.after(PATIENCE_S))
        killer.join()
        assert time.monotonic() - began_s < 3.0


def test_a_qemu_that_dies_wakes_who_waits_for_the_bell(tmp_path):
    with QemuHost(guest_spec(), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        write_request(host.mailbox, endless(), sequence=1, files={})
        assert host.pid == read_link(tmp_path).pid
        killer = threading.Timer(0.3, os.kill, [host.pid, signal.SIGKILL])
        killer.start()
        with pytest.raises(GuestDied, match="SIGKILL"):
            host.run_until_bell(Deadline.after(PATIENCE_S))
        killer.join()
        assert host.phase is HostPhase.DEAD


def test_the_mailbox_is_for_guests_that_have_one(started):
    with pytest.raises(UsageError, match="mailbox") as caught:
        started.mailbox  # noqa: B018 - the property raises
    assert "Reach.MAILBOX" in caught.value.next_step


@pytest.mark.parametrize("reach", Reach)
def test_of_two_that_start_at_once_one_makes_the_snapshot_and_both_use_it(tmp_path, monkeypatch, reach):
    spec = guest_spec(reach=reach)
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache, with a comma"))
    hosts = [QemuHost(spec, name, tmp_path / name) for name in ("qemu1", "qemu2")]
    threads = [threading.Thread(target=host.start, args=(Deadline.after(PATIENCE_S),)) for host in hosts]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [host.facts.boot for host in hosts] == [BootKind.SNAPSHOT] * 2
        assert len(list(tmp_path.glob("cache*/snapshots/*/ram"))) == 1
        assert len(list(tmp_path.glob("qemu*/snapshot-console.log"))) == 1
        if reach is Reach.MAILBOX:
            assert all(measures(host) for host in hosts)
            return
        assert len({host.ssh_address for host in hosts}) == 2
        for host in hosts:
            host.resume()
        assert all(ssh_banner(host.ssh_address) for host in hosts)
    finally:
        for host in hosts:
            host.stop()
        assert not list(tmp_path.glob("cache*/snapshots/*.partial"))


def test_clock_host_takes_several_cpus(tmp_path):
    with QemuHost(guest_spec(clock=Clock.HOST, reach=Reach.SSH, vcpus=2), "qemu1", tmp_path) as host:
        host.start(Deadline.after(PATIENCE_S))
        assert host.facts.icount_shift is host.facts.cpu_mips is None
        host.resume()
        type_on_console(tmp_path, "echo cpus $(nproc).")
        assert eventually(lambda: "cpus 2." in (tmp_path / "console.log").read_text())


def test_paused_guest_costs_nothing_and_answers_when_resumed(started, tmp_path):
    def cpu_s() -> float:
        fields = (
            Path(f"/proc/{read_link(tmp_path / 'qemu1').pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    for _ in range(3):
        started.resume()
        started.resume()
        assert ssh_banner(started.ssh_address)
        started.pause()
        started.pause()
        assert started.phase is HostPhase.PAUSED
    before_s = cpu_s()
    time.sleep(0.5)
    assert cpu_s() - before_s < 0.1


def test_wrong_order_names_host_method_phase_and_next_step(tmp_path):
    host = QemuHost(guest_spec(), "qemu1", tmp_path)
    calls = (
        host.pause,
        host.resume,
        lambda: host.run_until_bell(Deadline.after(1.0)),
        lambda: host.facts,
        lambda: host.ssh_address,
        lambda: host.mailbox,
    )
    for wrong in calls:
        with pytest.raises(UsageError, match=r"qemu1: \w+ .* new") as caught:
            wrong()
        assert "start()" in caught.value.next_step
    host.stop()
    host.stop()
    with pytest.raises(UsageError, match="stopped"):
        host.start(Deadline.after(PATIENCE_S))


def test_kernel_panic_is_death_with_the_console_as_evidence(started, tmp_path):
    deaths: list[GuestDied] = []
    started.watch(deaths.append)
    started.resume()
    type_on_console(tmp_path / "qemu1", "echo c > /proc/sysrq-trigger")
    assert eventually(lambda: bool(deaths))
    assert "reset itself" in deaths[0].what
    assert "Kernel panic" in deaths[0].evidence
    assert started.phase is HostPhase.DEAD
    with pytest.raises(GuestDied, match="reset itself"):
        started.pause()
    late: list[GuestDied] = []
    started.watch(late.append)
    assert late == deaths


def test_killed_qemu_is_death_told_once(started, tmp_path):
    deaths: list[GuestDied] = []
    started.watch(deaths.append)
    started.resume()
    os.kill(read_link(tmp_path / "qemu1").pid, signal.SIGKILL)
    assert eventually(lambda: bool(deaths), within_s=1.0)
    with pytest.raises(GuestDied, match="SIGKILL"):
        started.pause()
    started.stop()
    assert len(deaths) == 1


def test_stop_and_kill_are_no_death(started, tmp_path):
    pid = read_link(tmp_path / "qemu1").pid
    deaths: list[GuestDied] = []
    started.watch(deaths.append)
    started.kill()
    assert eventually(lambda: not process_exists(pid), within_s=1.0)
    with pytest.raises(MachineKilled, match="qemu1"):
        started.resume()
    started.stop()
    assert deaths == []


def test_stop_ends_a_qemu_that_does_not_answer(started, tmp_path):
    pid = read_link(tmp_path / "qemu1").pid
    os.kill(pid, signal.SIGSTOP)
    began_s = time.monotonic()
    started.stop()
    assert time.monotonic() - began_s < 8.0
    assert not process_exists(pid)


def test_kill_during_the_boot_raises_in_start(tmp_path):
    host = QemuHost(guest_spec(snapshot=False), "qemu1", tmp_path)
    threading.Timer(0.5, host.kill).start()
    began_s = time.monotonic()
    with pytest.raises(MachineKilled), host:
        host.start(Deadline.after(PATIENCE_S))
    assert time.monotonic() - began_s < 2.0
    assert host.phase is HostPhase.STOPPED


def test_kill_before_start_raises_in_start(tmp_path):
    host = QemuHost(guest_spec(), "qemu1", tmp_path)
    host.kill()
    with pytest.raises(MachineKilled):
        host.start(Deadline.after(PATIENCE_S))


def test_boot_deadline_shows_the_console(tmp_path):
    spec = guest_spec(snapshot=False, boot_timeout_s=0.8)
    with QemuHost(spec, "qemu1", tmp_path) as host, pytest.raises(BootFailed) as caught:
        host.start(Deadline.after(PATIENCE_S))
    assert "waited 0.8 s for the guest to report ready" in caught.value.what
    assert "boot_timeout_s" in caught.value.next_step
    assert caught.value.log_path == tmp_path / "console.log"


@pytest.mark.parametrize("snapshot", [False, True])
def test_port_in_use_says_so(tmp_path, snapshot):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # The second machine takes the second port.
        spec = guest_spec(snapshot=snapshot, ssh_port=taken.getsockname()[1] - 1)
        with QemuHost(spec, "qemu2", tmp_path) as host, pytest.raises(HostShortage) as caught:
            host.start(Deadline.after(PATIENCE_S))
    assert "port" in caught.value.what
    assert "machines.qemu.ssh_port" in caught.value.next_step


def test_missing_qemu_names_the_package(tmp_path):
    spec = guest_spec(qemu_binary="qemu-system-nowhere")
    with (
        QemuHost(spec, "qemu1", tmp_path) as host,
        pytest.raises(HostError, match="qemu-system-nowhere") as caught,
    ):
        host.start(Deadline.after(PATIENCE_S))
    assert "host_setup packages" in caught.value.next_step
    assert "qemu-system-arm" in caught.value.next_step


def test_qemu_that_cannot_run_shows_its_own_words(tmp_path):
    broken = tmp_path / "qemu"
    broken.write_text("#!/bin/sh\necho no such machine today >&2\nexit 3\n")
    broken.chmod(0o755)
    spec = guest_spec(qemu_binary=str(broken), snapshot=False)
    with QemuHost(spec, "qemu1", tmp_path) as host, pytest.raises(HostError) as caught:
        host.start(Deadline.after(PATIENCE_S))
    assert "no such machine today" in str(caught.value)
    assert "code 3" in str(caught.value)
    assert not isinstance(caught.value, HostShortage), "it would say the same tomorrow"


@pytest.mark.parametrize(("number", "fault"), [("KILL", Fault.HOST), ("SEGV", Fault.GUEST)])
def test_a_qemu_that_is_ended_before_it_runs_is_tried_again(tmp_path, number, fault):
    broken = tmp_path / "qemu"
    broken.write_text(f"#!/bin/sh\nkill -{number} $$\n")
    broken.chmod(0o755)
    spec = guest_spec(qemu_binary=str(broken), snapshot=False)
    with QemuHost(spec, "qemu1", tmp_path) as host, pytest.raises(BootFailed, match=number) as caught:
        host.start(Deadline.after(PATIENCE_S))
    assert caught.value.fault is fault


@pytest.mark.parametrize("snapshot", [False, True])
def test_more_memory_than_there_is_says_so(tmp_path, monkeypatch, snapshot):
    spec = guest_spec(memory_mib=1 << 27, snapshot=snapshot)
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    with QemuHost(spec, "qemu1", tmp_path) as host, pytest.raises(HostShortage) as caught:
        host.start(Deadline.after(PATIENCE_S))
    assert "no room" in caught.value.what if snapshot else "memory" in caught.value.what


def test_image_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(HostError, match="image") as caught:
        QemuHost(guest_spec(image=tmp_path), "qemu1", tmp_path)
    assert "host_setup image" in caught.value.next_step


@pytest.mark.parametrize("reach", Reach)
def test_nothing_is_left_open(tmp_path, reach):
    def belongings() -> tuple[int, int, dict[int, str]]:
        return len(os.listdir("/proc/self/fd")), threading.active_count(), own_children()

    def live_and_die(name: str, *, kill: bool) -> None:
        with QemuHost(guest_spec(reach=reach), name, tmp_path / name) as host:
            host.start(Deadline.after(PATIENCE_S))
            if reach is Reach.MAILBOX:
                assert measures(host)
            else:
                host.resume()
            if kill:
                host.kill()

    live_and_die("qemu1", kill=False)
    before = belongings()
    for number in range(4):
        live_and_die("qemu1", kill=number % 2 == 0)
    assert belongings() == before
    # Whoever comes first makes the snapshot, and has the logs of that as well.
    names = {path.name.removeprefix("snapshot-") for path in (tmp_path / "qemu1").iterdir()}
    assert names == {"console.log", "qemu.stderr"}


STARTER = """
import sys, time
from pathlib import Path
from runner.deadline import Deadline
from runner.qemu.host import QemuHost
from runner.specs import Reach
from tests.qemu_guests import guest_spec
host = QemuHost(guest_spec(reach=Reach(sys.argv[2])), "qemu1", Path(sys.argv[1]))
host.start(Deadline.after(60))
host.resume()
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("reach", Reach)
def test_killing_the_runner_kills_its_guests(tmp_path, reach):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", STARTER, str(tmp_path), reach]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        link = read_link(tmp_path)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert eventually(lambda: not process_exists(link.pid), within_s=2.0)
    with pytest.raises(UsageError, match="does not run"):
        read_link(tmp_path)
