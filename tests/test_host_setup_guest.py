"""The image at work: real guests of both architectures, booted cold, and what they let in and out."""

from __future__ import annotations

import socket
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from host_setup import cpio
from runner.deadline import Deadline
from runner.qemu.architectures import ARCHITECTURES, architecture
from runner.qemu.host import QemuHost
from runner.qemu.image import GuestImage
from runner.specs import QemuSpec, Reach

pytestmark = pytest.mark.guest

# An amd64 guest boots in 4 s on an idle host; tests of others may be at work beside it.
BOOT_S = 120.0


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def host(request, tmp_path_factory) -> Iterator[QemuHost]:
    """A running guest, booted cold."""
    spec = QemuSpec(arch=request.param, reach=Reach.SSH, snapshot=False)
    with QemuHost(spec, "qemu1", tmp_path_factory.mktemp("machine")) as host:
        host.start(Deadline.after(BOOT_S))
        host.resume()
        yield host


@pytest.fixture
def connect(host: QemuHost) -> Iterator[Callable[..., paramiko.SSHClient]]:
    """Opens connections that trust the image's host key and no other, and offer nothing but what they are told to."""
    clients = []

    def open_one(**login: object) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        clients.append(client)
        address, port = host.ssh_address
        kind, key = host.credentials.host_key.split()
        pinned = paramiko.Ed25519Key(data=b64decode(key))
        client.get_host_keys().add(f"[{address}]:{port}", kind, pinned)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            address,
            port,
            "root",
            allow_agent=False,
            look_for_keys=False,
            timeout=30,
            **login,  # type: ignore[arg-type]
        )
        return client

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def shell(host: QemuHost, connect) -> Callable[[str], str]:
    """Runs a line in the guest and returns what it printed."""
    client = connect(key_filename=str(host.credentials.client_key))

    def run(line: str) -> str:
        _, output, errors = client.exec_command(line, timeout=60)
        return str((output.read() + errors.read()).decode().strip())

    return run


def test_the_kernel_is_preemptible_and_the_one_of_the_image(host, shell):
    image = GuestImage.current(host.facts.arch)
    assert shell("uname -r") == image.kernel_release
    assert "PREEMPT_RT" in shell("uname -v")


def test_another_key_is_refused(connect):
    with pytest.raises(paramiko.AuthenticationException):
        connect(pkey=paramiko.ECDSAKey.generate())


@pytest.mark.parametrize("password", ["", "root"])
def test_passwords_are_not_even_asked_for(connect, password):
    with pytest.raises(paramiko.BadAuthenticationType) as caught:
        connect(password=password)
    assert caught.value.allowed_types == ["publickey"]


def test_a_guest_with_another_host_key_is_not_trusted(host, tmp_path):
    # Not the guest's doing, but the pin would be worth nothing if every image had the same key.
    other = next(name for name in ARCHITECTURES if name != host.facts.arch)
    assert GuestImage.current(other).host_key != host.credentials.host_key


def test_nothing_is_forwarded(connect, host):
    transport = connect(key_filename=str(host.credentials.client_key)).get_transport()
    assert transport is not None
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 0), timeout=30)


def test_the_guest_reaches_nobody(shell):
    # 10.0.2.2 would be the host itself, 10.0.2.3 its name server.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        port = listening.getsockname()[1]
        assert "can't connect" in shell(f"nc -w 2 10.0.2.2 {port} < /dev/null")
        assert "no servers could be reached" in shell("nslookup -timeout=1 example.org 10.0.2.3")
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_guest_speaks_no_ipv6(shell):
    # Its autoconfiguration would talk to QEMU's network for seconds, at times that the host decides.
    assert "inet6" not in shell("ifconfig")


def test_real_time_tasks_may_have_the_whole_cpu(shell):
    assert shell("cat /proc/sys/kernel/sched_rt_runtime_us") == "-1"


def test_timers_and_clock_are_precise(host, shell):
    # Else a wake-up would come with the next tick, 4 ms late, and reading the clock would be a system call.
    assert "hres_active    : 1" in shell("grep hres_active /proc/timer_list")
    clock = {"arm64": "arch_sys_counter", "amd64": "tsc"}[host.facts.arch]
    assert shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == clock


def test_the_kernel_has_random_numbers_when_the_guest_is_ready(shell):
    # The first connection would wait for them, a second of the guest's time.
    ready_s = float(shell("dmesg | grep 'crng init done' | tr -d '[]' | cut -c 1-13"))
    started_s = float(
        shell("awk '{print $22 / 100}' /proc/$(pidof dropbear | tr ' ' '\\n' | sort -n | head -1)/stat")
    )
    assert ready_s <= started_s + 0.01


def test_what_programs_expect_is_there(shell):
    assert (
        shell(
            "echo hello > /tmp/a; cat /tmp/a; ls -d /sys/kernel/debug/sched /dev/pts/ptmx /run"
        ).splitlines()[0]
        == "hello"
    )
    assert shell("stat -c %a /tmp") == "1777"
    assert shell("mount").count("tmpfs") >= 2
    assert shell("hostname") == "rtfleet"


def test_orphans_are_collected(shell):
    shell("(sleep 0.2 &)")
    assert shell("sleep 1; ps -o stat,comm | grep -c '^Z'; true") == "0"


# --- without the runner in between: a plain QEMU, its console, and no network card


def qemu(arch: str, initrd: Path, *options: str) -> list[str]:
    row, image = architecture(arch), GuestImage.current(arch)
    arguments = f"console={row.console} quiet panic=-1 cryptomgr.notests {' '.join(row.kernel_args)}"
    return [
        *(
            row.qemu_binary,
            "-M",
            row.machine,
            "-cpu",
            row.cpu,
            "-m",
            "128",
            "-nodefaults",
            "-display",
            "none",
        ),
        *("-kernel", str(image.kernel), "-initrd", str(initrd), "-append", arguments, "-no-reboot"),
        *("-icount", "shift=3,align=off,sleep=off", "-serial", "stdio", "-device", "pvpanic-pci", *options),
    ]


class Console:
    """A guest's console, read and written as a person would."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._watchdog = threading.Timer(BOOT_S, self._process.kill)
        self._watchdog.start()
        self._seen = ""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    def read_until(self, text: str) -> str:
        """Everything so far, once it holds `text`; or everything there was, if the guest ended before."""
        assert self._process.stdout is not None
        while text not in self._seen and (byte := self._process.stdout.read(1)):
            self._seen += byte.decode(errors="replace")
        return self._seen

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def exit_code(self) -> int:
        return self._process.wait(BOOT_S)


def test_without_a_network_card_the_guest_gets_ready_and_gives_a_shell():
    with Console(qemu("arm64", GuestImage.current("arm64").initrd)) as console:
        for said in ("rtfleet: ready", "activate this console"):
            assert said in console.read_until(said)
        console.type("\n")
        console.read_until("# ")
        # The terminal echoes what is typed: only a shell that computes says 42.
        console.type("pidof dropbear || echo no $((6 * 7)) server\n")
        assert "no 42 server" in console.read_until("no 42 server")


def test_what_goes_wrong_is_said_and_rung(tmp_path):
    # A later archive overrides an earlier one: this one damages the network card's driver.
    image = GuestImage.current("arm64")
    broken = tmp_path / "initrd"
    broken.write_bytes(
        image.initrd.read_bytes() + cpio.archive([cpio.file("lib/modules/virtio_net.ko", b"not a module")])
    )
    with Console(qemu("arm64", broken)) as console:
        said = console.read_until("refused the module virtio_net")
        assert "rtfleet: panic: the kernel refused the module virtio_net" in said
        # QEMU ends by itself: the bell was heard as a panic.
        assert console.exit_code() == 0
