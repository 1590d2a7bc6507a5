"""The task loader as a Genode host: what it runs for a client, and what it tells."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.task_loader.client import processes_of
from tests.task_loader.genode_client import (
    AVAILABLE,
    CLEAR,
    OPTIMIZE,
    REBOOT,
    SEND_BINARIES,
    SEND_DESCS,
    START,
    STOP,
    GenodeClient,
    document,
    genode_loader,
    sized,
    task,
    types_of,
    word,
)

pytestmark = pytest.mark.skipif(not os.access("/run", os.W_OK), reason="it keeps programs in /run/genode")


@pytest.fixture
def address(binary: Path) -> Iterator[tuple[str, int]]:
    with genode_loader(binary) as (_, address):
        yield address


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[GenodeClient]:
    with GenodeClient(address) as client:
        yield client


def test_jobs_start_and_end_in_order_and_on_time(realtime: None, client: GenodeClient) -> None:
    client.start(task(7, "hey", period=100, numberofjobs=3), task(3, "cond_42", 42, priority=5))
    events = client.await_done([7, 3])
    assert types_of(events, 7) == ["START", "EXIT"] * 3 + ["JOBS_DONE"]
    assert types_of(events, 3) == ["START", "EXIT", "JOBS_DONE"]
    starts = [event.ms for event in events if event.task == 7 and event.type == "START"]
    assert [after - starts[0] for after in starts] == pytest.approx([0, 100, 200], abs=60)


@pytest.mark.parametrize(
    ("pkg", "args"),
    [
        ("namaste", ()),
        ("pi", (8192,)),
        ("tumatmul", (4096,)),
        ("linpack", (10,)),
        ("cond_mod", (2,)),
        ("idle", (5,)),
    ],
)
def test_every_known_name_runs(realtime: None, client: GenodeClient, pkg: str, args: tuple[int, ...]) -> None:
    client.start(task(0, pkg, *args))
    assert types_of(client.await_done([0]), 0) == ["START", "EXIT", "JOBS_DONE"]


def test_critical_time_counts_from_the_start_and_the_next_release_kills_and_is_skipped(
    realtime: None, client: GenodeClient
) -> None:
    client.start(
        task(0, "idle", criticaltime=50, period=200),
        task(1, "idle", period=100, numberofjobs=4),
        task(2, "tumatmul", 1 << 20, quota="1K"),
    )
    events = client.await_done([0, 1, 2])
    assert types_of(events, 0) == ["START", "EXIT_CRITICAL", "JOBS_DONE"]
    assert types_of(events, 1) == ["START", "EXIT_PERIOD"] * 2 + ["JOBS_DONE"]
    assert types_of(events, 2) == ["START", "OUT_OF_QUOTA", "JOBS_DONE"]
    start, end = (event.ms for event in events if event.task == 0 and event.type != "JOBS_DONE")
    assert end - start == pytest.approx(50, abs=20)


def test_offsets_add_up(realtime: None, client: GenodeClient) -> None:
    client.start(*(task(idx, offset=100) for idx in range(3)))
    events = client.await_done(range(3))
    first, second, third = (next(e.ms for e in events if e.task == idx) for idx in range(3))
    assert (second - first, third - first) == pytest.approx((100, 200), abs=60)


def test_the_earliest_deadline_goes_first_without_a_priority(realtime: None, client: GenodeClient) -> None:
    client.start(task(0, "hey", priority=128, period=100, deadline=50, criticaltime=20, numberofjobs=2))
    types = types_of(client.await_done([0]), 0)
    if types[0] == "NOT_SCHEDULED":
        pytest.skip("this computer gives nobody SCHED_DEADLINE")
    assert types == ["START", "EXIT"] * 2 + ["JOBS_DONE"]


def test_a_goal_has_the_kernel_admit(realtime: None, client: GenodeClient) -> None:
    client.send(sized(OPTIMIZE, b"<goal><fairness>1</fairness></goal>\0"))
    client.start(*(task(idx, priority=128, period=100) for idx in range(2 * (os.cpu_count() or 1))))
    events = client.await_done(range(2 * (os.cpu_count() or 1)))
    assert "NOT_SCHEDULED" in [event.type for event in events]


def test_stop_ends_what_runs_and_the_next_set_starts_after_it(realtime: None, client: GenodeClient) -> None:
    client.start(task(0, "idle", period=60_000), task(1, "hey", priority=1))
    client.await_event(1, "EXIT")
    client.send(word(STOP))
    client.ask_available()
    assert types_of(client.events, 0) == ["START", "EXIT_EXTERNAL"]
    client.events.clear()
    client.start(task(1))
    assert types_of(client.await_done([1]), 1) == ["START", "EXIT", "JOBS_DONE"]
    client.send(word(START), word(START))
    assert types_of(client.await_done([1]), 1) == ["START", "EXIT", "JOBS_DONE"], "the queue is still there"
    client.send(word(CLEAR), word(START))
    client.ask_available()
    assert client.events == []


def test_uploaded_programs_run_and_others_are_errors(
    realtime: None, client: GenodeClient, program: Path
) -> None:
    name = f"own{os.getpid()}"
    client.send_binaries({name: program.read_bytes(), "hey": b"of another system", "../evil": b"x"})
    client.start(
        task(0, name, "x", quota="100M"),
        task(1, name, "crash", quota="100M"),
        task(2, "nowhere"),
        task(3, "hey"),
        task(4, "pi"),
        task(5, "executable", "/bin/true"),
        task(6, name, "greedy", quota="16M"),
    )
    events = client.await_done(range(7))
    ends = [types_of(events, idx)[1] for idx in range(7)]
    assert ends == ["EXIT", "EXIT_ERROR", "EXIT_ERROR", "EXIT", "EXIT_ERROR", "EXIT_ERROR", "OUT_OF_QUOTA"]
    (Path("/run/genode") / name).unlink()
    assert not Path("/run/evil").exists()


def test_programs_outlive_the_client_and_what_it_started_does_not(
    realtime: None, address: tuple[str, int], program: Path
) -> None:
    name = f"own{os.getpid()}"
    stored = Path("/run/genode") / name
    with GenodeClient(address) as first:
        first.send_binaries({name: program.read_bytes()})
        first.start(task(0, name, "hang", quota="100M", period=60_000))
        first.ask_available()
    with GenodeClient(address) as second:
        second.ask_available()
        assert processes_of(stored) == []
        second.send(word(START))
        second.ask_available()
        second.start(task(0, name, quota="100M"))
        assert types_of(second.await_done([0]), 0) == ["START", "EXIT", "JOBS_DONE"]
    stored.unlink()


def test_byte_by_byte(realtime: None, client: GenodeClient) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    exchange = word(CLEAR) + sized(OPTIMIZE, b"") + sized(SEND_DESCS, document(task(1))) + word(START)
    for byte in exchange:
        client.send(bytes([byte]))
    assert types_of(client.await_done([1]), 1) == ["START", "EXIT", "JOBS_DONE"]


def test_a_thousand_jobs_arrive(realtime: None, client: GenodeClient) -> None:
    client.start(task(0, "hey", period=1, numberofjobs=1000))
    types = types_of(client.await_done([0]), 0)
    assert types[-1] == "JOBS_DONE"
    assert types.count("START") == (len(types) - 1) / 2


def test_one_client_at_a_time(address: tuple[str, int]) -> None:
    with GenodeClient(address) as second:
        with GenodeClient(address) as first:
            second.ask_available()
            first.send(word(AVAILABLE))
            first.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                first.socket.recv(1)
        second.ask_available()


@pytest.mark.parametrize(
    "data",
    [
        word(0),
        word(0xFFFFFFFF) * 3,
        word(SEND_DESCS) + word(0xFFFFFFFF),
        word(SEND_DESCS) + word(0),
        word(SEND_BINARIES) + word(65),
        sized(SEND_DESCS, b"<taskset>"),
        sized(SEND_DESCS, b"\xff\xfe" * 40),
        sized(SEND_DESCS, document(task(0), task(0))),
        sized(SEND_DESCS, document(task(0, pkg="../../bin/sh"))),
        sized(SEND_DESCS, document(task(0, priority=129))),
        sized(SEND_DESCS, document(task(0, numberofjobs=0))),
        sized(SEND_DESCS, document(task(0, period=10**18))),
        sized(SEND_DESCS, document(*(task(idx) for idx in range(65)))),
    ],
)
def test_what_makes_no_sense_ends_the_connection_and_nothing_else(binary: Path, data: bytes) -> None:
    with genode_loader(binary) as (process, address):
        with GenodeClient(address) as client:
            client.send(data)
            assert client.is_dropped()
        with GenodeClient(address) as client:
            client.ask_available()
        assert process.poll() is None


def test_a_reboot_ends_it_with_a_code_of_its_own(binary: Path) -> None:
    with genode_loader(binary) as (process, address), GenodeClient(address) as client:
        client.send(word(REBOOT))
        assert client.is_dropped()
        assert process.wait(10) == 4


def test_a_port_that_is_none(binary: Path) -> None:
    for arguments in (["x"], ["65536"], ["-1"], ["0", "nowhere"]):
        ended = subprocess.run([binary, "genode", *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert "Invalid argument" in ended.stderr
