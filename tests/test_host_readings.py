"""What is read of this computer: against the real one, and against trees of files as other kernels and containers show them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.admission.capacity import MIB
from runner.admission.readings import holder_of, read_host, taken_port
from tests.fleet_samples import eventually


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A computer with 8000 MiB, 6000 of them available, and no control groups."""
    root = tmp_path / "proc"
    meminfo = f"MemTotal: {8000 << 10} kB\nMemFree: 5 kB\nMemAvailable: {6000 << 10} kB\nHugePages_Total: 0\n"
    write(root, {"meminfo": meminfo, "self/cgroup": "", "self/fd/0": "", "self/fd/1": ""})
    return root


def memory(tmp_path: Path, proc: Path) -> tuple[int, int]:
    found = read_host(tmp_path, proc=proc, cgroups=tmp_path / "cgroup")
    return found.memory_total_bytes // MIB, found.memory_available_bytes // MIB


def test_this_computer_is_read(tmp_path: Path) -> None:
    before = read_host(tmp_path / "not" / "there" / "yet", n_machines=3)
    assert before.n_machines == 3
    assert 0 < before.memory_available_bytes <= before.memory_total_bytes
    assert 0 < before.disk_free_bytes <= before.disk_total_bytes
    with socket.socket():
        assert read_host(tmp_path).descriptors < before.descriptors


def test_what_other_processes_of_ours_have_counts_as_ours(tmp_path: Path) -> None:
    """A child's child, with 40 MiB that were touched."""
    script = f"data = bytearray(b'x') * {40 * MIB}; print('ready', flush=True); input()"
    before = read_host(tmp_path).memory_used_bytes
    command = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        used_bytes = read_host(tmp_path).memory_used_bytes - before
        child.communicate()
    assert 40 * MIB <= used_bytes < 80 * MIB
    assert read_host(tmp_path).memory_used_bytes <= before


def test_without_groups_the_computer_counts(tmp_path: Path, proc: Path) -> None:
    assert memory(tmp_path, proc) == (8000, 6000)
    assert read_host(tmp_path, proc=proc).descriptors > 0


def test_a_limit_of_version_2_counts_wherever_it_is_above(tmp_path: Path, proc: Path) -> None:
    stat = f"anon 5\ninactive_file {100 * MIB}\n"
    write(proc, {"self/cgroup": "0::/user/run\n"})
    write(
        tmp_path / "cgroup",
        {
            "memory.stat": "",  # the root has no limit
            "user/memory.max": f"{2000 * MIB}\n",
            "user/memory.high": "max\n",
            "user/memory.current": f"{700 * MIB}\n",
            "user/memory.stat": stat,
            "user/run/memory.max": "max\n",
            "user/run/memory.current": f"{600 * MIB}\n",
            "user/run/memory.stat": stat,
        },
    )
    assert memory(tmp_path, proc) == (2000, 1400)
    write(tmp_path / "cgroup", {"user/run/memory.high": f"{650 * MIB}\n"})
    assert memory(tmp_path, proc) == (650, 150)


def test_a_limit_of_version_1_counts_also_where_a_container_sees_its_own_group_only(
    tmp_path: Path, proc: Path
) -> None:
    write(proc, {"self/cgroup": "5:cpu:/x\n4:memory:/docker/0123\n0::/\n"})
    write(
        tmp_path / "cgroup" / "memory",
        {
            "memory.limit_in_bytes": f"{1000 * MIB}\n",
            "memory.usage_in_bytes": f"{900 * MIB}\n",
            "memory.stat": f"cache 1\ntotal_inactive_file {50 * MIB}\n",
        },
    )
    assert memory(tmp_path, proc) == (1000, 150)
    write(tmp_path / "cgroup" / "memory", {"memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"})
    assert memory(tmp_path, proc) == (8000, 6000)


@contextmanager
def group_of_version_1() -> Iterator[Path]:
    group = Path("/sys/fs/cgroup/memory") / f"rtfleet-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory group can be made here; the trees of files above stand for it")
    try:
        yield group
    finally:
        group.rmdir()


def test_a_real_group_limits_a_real_process(tmp_path: Path) -> None:
    script = (
        "import sys; sys.stdin.readline()\n"
        "from pathlib import Path; from runner.admission.readings import read_host\n"
        "found = read_host(Path('.')); print(found.memory_total_bytes, found.memory_available_bytes)"
    )
    with group_of_version_1() as group:
        (group / "memory.limit_in_bytes").write_text(str(300 * MIB))
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            (group / "cgroup.procs").write_text(str(child.pid))
            out, _ = child.communicate("go\n", timeout=60)
        total, available = map(int, out.split())
        eventually(lambda: (group / "cgroup.procs").read_text() == "")
    assert total == 300 * MIB
    assert 0 < available < 300 * MIB


def test_memory_that_is_shared_with_a_child_counts_too(tmp_path: Path) -> None:
    """As a mailbox: a file without a name."""
    fd = os.memfd_create("mailbox")
    os.ftruncate(fd, 16 * MIB)
    script = f"import mmap; m = mmap.mmap({fd}, 0); m.write(bytes({16 * MIB})); print(1, flush=True); input()"
    before = read_host(tmp_path).memory_used_bytes
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,)
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used_bytes = read_host(tmp_path).memory_used_bytes - before
        child.communicate()
    os.close(fd)
    assert used_bytes >= 16 * MIB


def test_a_port_that_somebody_has_is_found_and_its_holder_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert taken_port([port]) == port
        assert holder_of(port).endswith(f"(process {os.getpid()})")
    assert taken_port([port]) is None
    assert holder_of(port) == ""


def test_a_port_of_every_address_is_taken_too() -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        assert taken_port(range(port, port + 1)) == port
        assert str(os.getpid()) in holder_of(port)


def test_what_a_connection_left_behind_is_in_nobodys_way() -> None:
    """The side that closes first waits for a minute; QEMU takes the port all the same."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    accepted.close()
    assert client.recv(1) == b""
    client.close()
    server.close()
    assert taken_port([port]) is None
