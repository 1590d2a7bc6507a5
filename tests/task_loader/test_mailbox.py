"""`taskloader mailbox` in a real guest: one boot for all that leaves the guest as it was."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tests.task_loader.client import MS, periodic, task_line, taskset_line
from tests.task_loader.mailbox_guest import (
    FILE_ENTRY,
    HOST_HEADER,
    PAGE,
    RECORD,
    MailboxGuest,
    request,
)

pytestmark = pytest.mark.guest

SIZE = 16 << 20


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailboxGuest]:
    """A guest that waits for a request."""
    with MailboxGuest(tmp_path_factory.mktemp("machine"), mailbox_mib=SIZE >> 20) as guest:
        hello = guest.boot()
        assert (hello.state, hello.sequence, hello.tables) == (1, 0, [])
        assert hello.lines[0].startswith("hello version=2 spin_ps=4096000 cpus=1 ")
        yield guest


def spin(idx: int, n_jobs: int, period_ms: int, ns: int, **changes: object) -> str:
    return periodic(
        idx,
        n_jobs,
        period_ms,
        **({"policy": "fifo", "priority": 50, "workload": "spin", "args": ns} | changes),
    )


def shell(idx: int, command: str) -> str:
    quoted = "".join(char if char.isalnum() or char in "/-" else f"%{ord(char):02X}" for char in command)
    return task_line(idx, workload="executable", args=f"/bin/sh,-c,{quoted}")


def test_a_set_comes_out_as_records(guest: MailboxGuest) -> None:
    answer = guest.run(
        [
            spin(0, 3, 10, 2 * MS),
            periodic(1, 4, 5, workload="hey"),
            task_line(
                2,
                policy="deadline",
                dl_runtime_ns=MS,
                dl_deadline_ns=MS,
                dl_period_ns=MS // 2,
                workload="hey",
            ),
        ],
        id="first",
        stop_ns=15 * MS,
    )
    assert [line.split(" ")[0] for line in answer.lines] == [
        *("accepted", "refused", "start"),
        *["task_done"] * 3,
        "end",
    ]
    assert answer.end["id"] == "first"
    assert answer.end["reason"] == "stopped", "a release of task 0 was cut off"
    assert [record.release for record in answer.records(0)] == [0, 10 * MS]
    assert [record.release for record in answer.records(1)] == [0, 5 * MS, 10 * MS]
    for task, records in enumerate(map(answer.records, range(2))):
        assert [(record.task, record.job, record.exit, record.code) for record in records] == [
            (task, job, "EXIT", 0) for job in range(len(records))
        ]
        for record in records:
            assert record.ns("release") <= record.ns("start") < record.ns("finish") < 15 * MS
            assert (record.cpu_first, record.cpu_last, record.migrations) == (0, 0, 0)
    (refused,) = answer.records(2)
    assert (refused.task, refused.exit, refused.release, refused.exec) == (2, "NOT_SCHEDULED", None, None)


def test_a_refused_task_has_its_record_even_if_nothing_is_released(guest: MailboxGuest) -> None:
    answer = guest.run(
        [task_line(0, offset_ns=90 * MS, policy="fifo", priority=1, cpus="8000000000000000"), task_line(1)],
        stop_ns=10 * MS,
    )
    assert [record.exit for record in answer.records(0)] == ["NOT_SCHEDULED"]
    assert [record.exit for record in answer.records(1)] == ["EXIT"]


def test_spin_uses_what_it_is_told(guest: MailboxGuest) -> None:
    """To the microsecond, from one on, alone or preempted by all others, with ticks in between."""
    wanted_ns = [1_000, 7_000, 50_001, 100_000, 1_234_567, 10 * MS, 40 * MS]
    answer = guest.run(
        [
            spin(idx, 6, 100, ns, priority=90 - idx, offset_ns=(6 - idx) * MS)
            for idx, ns in enumerate(wanted_ns)
        ],
        stop_ns=1000 * MS,
    )
    for idx, ns in enumerate(wanted_ns):
        assert all(abs(record.ns("exec") - ns) <= 1000 for record in answer.records(idx)), answer.records(idx)
    assert all(record.preemptions for record in answer.records(6))


def test_twenty_sets_in_a_row(guest: MailboxGuest) -> None:
    for n_tasks in [*range(1, 20), 64]:
        answer = guest.run(
            [spin(idx, 3, 5, 20_000, priority=idx + 1) for idx in range(n_tasks)], id=f"n{n_tasks}"
        )
        assert answer.end["id"] == f"n{n_tasks}"
        assert [len(table) for table in answer.tables] == [3 * RECORD.size] * n_tasks


def test_more_records_than_a_ring_would_hold(guest: MailboxGuest) -> None:
    """200,000 in 11 MB."""
    answer = guest.run(
        [periodic(idx, 100_000, 1, period_ns=20_000, workload="hey") for idx in range(2)],
        overrun="kill_and_skip",
    )
    assert [len(table) for table in answer.tables] == [100_000 * RECORD.size] * 2
    assert [record.job for record in answer.records(1)] == list(range(100_000))


def test_a_set_that_does_not_fit_is_refused(guest: MailboxGuest) -> None:
    n_jobs = SIZE // RECORD.size
    assert guest.ask(request([spin(0, n_jobs, 1, 1000)], stop_ns=n_jobs * MS)).error == "capacity"
    assert len(guest.run([spin(0, n_jobs, 1, 1000)], stop_ns=5 * MS).records(0)) == 5, "only releases count"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "order"),
        ("run\n", "order"),
        ("dance\n", "unknown_verb"),
        ("quit\n", "order"),
        ("ping token=a\n", "order"),
        (f"{taskset_line(1)}\n{task_line(0)}\nrun", "order"),
        (f"{taskset_line(1)}\n{task_line(0)}\n", "order"),
        (f"{taskset_line(2)}\n{task_line(0)}\nrun\n", "order"),
        (f"{taskset_line(1)}\n{task_line(0)}\nrun\nrun\n", "order"),
        (f"{taskset_line(1)}\n{task_line(0, cpus='x')}\nrun\n", "bad_value"),
        (f"{taskset_line(1, version=1)}\n{task_line(0)}\nrun\n", "range"),
        ("a" * 5000 + "\n", "overlong"),
        (b"\xff\0\n", "syntax"),
        (b"\0" * 66 * PAGE, "order"),
    ],
)
def test_a_malformed_request_gets_one_error(guest: MailboxGuest, text: str | bytes, code: str) -> None:
    answer = guest.ask(text)
    assert (answer.state, answer.error, answer.tables) == (2, code, [])


def header(guest: MailboxGuest, **changes: int | bytes) -> bytes:
    """A host's header that asks for nothing, but for `changes`."""
    fields: dict[str, int | bytes] = {
        "magic": b"RTFHOST\0",
        "version": 1,
        "n_files": 0,
        "sequence": guest.answered[1] + 1,
        "region_bytes": SIZE,
        "request_bytes": 0,
        "request_crc32": 0,
    }
    return HOST_HEADER.pack(*(fields | changes).values())


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": b"RTFGUEST"},
        {"version": 2},
        {"n_files": 65},
        {"n_files": 2**32 - 1},
        {"sequence": 0},
        {"sequence": 2**64 - 1},
        {"region_bytes": SIZE * 2},
        {"request_bytes": 66 * PAGE + 1},
        {"request_bytes": 2**64 - 1},
        {"request_crc32": 1},
    ],
    ids=str,
)
def test_a_foreign_header_is_no_request(guest: MailboxGuest, changes: dict[str, int | bytes]) -> None:
    _, sequence = guest.answered
    damaged = header(guest, **changes)
    guest.put_header(damaged)
    assert guest.go_on() == "GUEST_PANICKED"
    answer = guest.answer()
    assert answer.error == "mailbox"
    assert answer.sequence == changes.get("sequence", sequence + 1), "the one that was read"
    # It does not count: the next one still is the one after the last.
    guest.put(request([task_line(0)]), sequence=sequence + 1)
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answer().end["jobs"] == "1"


def test_a_torn_header_is_no_request(guest: MailboxGuest) -> None:
    guest.put(request([task_line(0)]))
    guest.memory[0x28] ^= 1
    assert guest.go_on() == "GUEST_PANICKED"
    answer = guest.answer()
    assert answer.error == "mailbox"
    guest.put(request([task_line(0)]), sequence=answer.sequence)
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answer().end["jobs"] == "1"


def test_the_same_request_twice_is_refused(guest: MailboxGuest) -> None:
    guest.run([task_line(0)])
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answer().error == "mailbox"


@pytest.mark.parametrize(
    "entry",
    [
        {"offset": PAGE + 8},
        {"offset": 0},
        {"offset": SIZE + PAGE},
        {"offset": 2**64 - PAGE},
        {"bytes": SIZE},
        {"bytes": 2**64 - 1},
        {"zero": 1},
    ],
    ids=str,
)
def test_a_file_has_to_lie_in_a_place_of_its_own(guest: MailboxGuest, entry: dict[str, int]) -> None:
    fields = {"name": 1, "offset": 2 * PAGE, "bytes": 0, "crc32": 0, "zero": 0} | entry
    guest.put_header(header(guest, n_files=1), FILE_ENTRY.pack(*fields.values()))
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answer().error == "mailbox"


def stored(name: int) -> str:
    return f"/run/workloads/{name:016x}"


def test_programs_come_with_the_request(guest: MailboxGuest) -> None:
    files = [(0xABC, b"#!/bin/sh\nexit 7\n"), (2**64 - 1, b"#!/bin/sh\ntest $# -eq 2\n" + b"#" * 300_000)]
    tasks = [
        task_line(0, workload="executable", args=stored(0xABC)),
        task_line(1, workload="executable", args=f"{stored(2**64 - 1)},a%20b,c"),
    ]
    answer = guest.ask(request(tasks), files)
    assert [answer.records(task)[0].code for task in range(2)] == [7, 0]
    # They stay; and a file of a name that is there is not looked at.
    assert guest.run(tasks[:1]).records(0)[0].code == 7
    assert guest.ask(request(tasks[:1]), [(0xABC, b"other")]).records(0)[0].code == 7
    mode = guest.run([shell(0, f"exit $(stat -c %a {stored(0xABC)} | cut -c 1-2)")])
    assert mode.records(0)[0].code == 75


def test_a_damaged_file_is_not_stored(guest: MailboxGuest) -> None:
    text = request([task_line(0, workload="executable", args=stored(0xBAD))])
    guest.put(text, [(0xBAD, b"#!/bin/sh\nexit 0\n")])
    guest.memory[2 * PAGE] ^= 1
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answer().error == "file"
    assert guest.run([task_line(0, workload="executable", args=stored(0xBAD))]).records(0)[0].code == 127


def test_what_crashes_is_recorded(guest: MailboxGuest) -> None:
    answer = guest.run([shell(0, "kill -SEGV $$; sleep 9"), spin(1, 5, 10, MS)])
    (dead,) = answer.records(0)
    assert (dead.exit, dead.code) == ("EXIT_ERROR", 139)
    assert len(answer.records(1)) == 5


def test_a_program_gets_nothing_of_the_task_loaders(guest: MailboxGuest) -> None:
    """No blocked signal, no file, and not its safety when memory runs out."""
    checks = [
        'grep -q "SigBlk:.0*$" /proc/$$/status',
        'test "$(cat /proc/self/oom_score_adj)" = 1000',
        "for fd in 0 1 2; do test $(readlink /proc/$$/fd/$fd) = /dev/null || exit 1; done",
        "for fd in 3 4 5 6 7 8 9 10; do test ! -e /proc/$$/fd/$fd || exit 1; done",
    ]
    answer = guest.run([shell(idx, f"{check} || exit 1") for idx, check in enumerate(checks)])
    assert [answer.records(idx)[0].code for idx in range(len(checks))] == [0] * len(checks)


def test_a_thread_brings_nothing_from_one_set_to_the_next(guest: MailboxGuest) -> None:
    """Neither CPU nor policy, nor what is left of a budget: the same set gives the same response times after others."""
    plain = [spin(idx, 10, 10, MS, priority=50 + idx) for idx in range(2)]
    other = [
        [
            task_line(
                idx,
                policy="deadline",
                workload="spin",
                args=MS,
                **{f"dl_{key}_ns": 40 * MS for key in ("deadline", "period")},
                dl_runtime_ns=10 * MS,
            )
            for idx in range(2)
        ],
        [spin(idx, 3, 10, MS, policy="rr", cpus=1) for idx in range(2)],
        [task_line(idx, workload="idle", kill_after_start_ns=MS) for idx in range(2)],
    ]

    def responses(tasks: list[str]) -> list[int]:
        answer = guest.run(tasks)
        return [
            record.ns("finish") - record.ns("release") for idx in range(2) for record in answer.records(idx)
        ]

    first = responses(plain)
    for tasks in other:
        guest.run(tasks)
        for before, now in zip(first, responses(plain), strict=True):
            assert abs(before - now) < MS // 4


def test_the_mailbox_is_the_task_loaders_alone(guest: MailboxGuest) -> None:
    """Checksums are of the records as they lie there: what a set left is not in the next one's table."""
    first = guest.run([spin(0, 50, 1, 1000)])
    second = guest.run([spin(0, 5, 1, 1000)])
    assert len(first.tables[0]) == 10 * len(second.tables[0])
    assert zlib.crc32(first.tables[0]) != zlib.crc32(second.tables[0])


def test_no_set_meets_what_another_leaves_of_the_bandwidth(guest: MailboxGuest) -> None:
    """The kernel remembers a SCHED_DEADLINE task for a period, and for ever one that is taken out of it asleep."""

    def share(idx: int, percent: int, **changes: object) -> str:
        parameters = {
            "dl_runtime_ns": 10 * MS * percent,
            "dl_deadline_ns": 1000 * MS,
            "dl_period_ns": 1000 * MS,
        }
        return task_line(idx, policy="deadline", **(parameters | changes))

    for _ in range(3):
        guest.run([share(idx, 70, workload="idle") for idx in range(2)], admission_control=0, stop_ns=10 * MS)
        answer = guest.run(
            [share(idx, 40, workload="spin", args=MS) for idx in range(2)], admission_control=1
        )
        assert [answer.records(idx)[0].exit for idx in range(2)] == ["EXIT", "EXIT"]
