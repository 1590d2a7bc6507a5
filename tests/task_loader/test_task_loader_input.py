"""Hostile input: an error for each request, and never more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.task_loader.client import TaskLoader, task_line, taskset_line

A_TASK = task_line(0)

MALFORMED: list[tuple[list[str | bytes], str]] = [
    (["dance"], "unknown_verb"),
    ([""], "unknown_verb"),
    (["run now=1"], "unknown_key"),
    ([b"ping token=\x00\n"], "syntax"),
    ([b"ping token=\xff\n"], "syntax"),
    (["ping token=a\r"], "syntax"),
    (["ping  token=a"], "syntax"),
    (["ping token"], "syntax"),
    (["ping"], "missing_key"),
    (["ping token="], "bad_value"),
    (["ping token=" + "a" * 65], "bad_value"),
    (["ping token=a token=b"], "repeated_key"),
    (["ping token=" + "a" * 5000], "overlong"),
    ([b"x" * 100_000 + b"\n"], "overlong"),
    ([taskset_line(1, version=1)], "range"),
    ([taskset_line(0)], "range"),
    ([taskset_line(65)], "range"),
    ([taskset_line(1, overrun="maybe")], "bad_value"),
    ([taskset_line(1, id="a b")], "syntax"),
    ([taskset_line(1, id="a/b")], "bad_value"),
    ([taskset_line(1, stop_ns=0)], "range"),
    ([taskset_line(1, stop_ns=-1)], "bad_value"),
    ([taskset_line(1, stop_ns=10**40)], "range"),
    ([A_TASK], "order"),
    (["run"], "order"),
    ([taskset_line(1), "run"], "order"),
    ([taskset_line(2), A_TASK, "run"], "order"),
    ([taskset_line(1), A_TASK, task_line(1), "run"], "order"),
    ([taskset_line(1), task_line(1), "run"], "order"),
    ([taskset_line(1), taskset_line(1)], "order"),
    ([taskset_line(1), task_line(0, period_ns=0)], "range"),
    ([taskset_line(1), task_line(0, n_jobs=2)], "bad_value"),
    ([taskset_line(1), task_line(0, n_jobs=10_000_001, period_ns=1)], "range"),
    ([taskset_line(1), task_line(0, n_jobs=10_000_000, period_ns=10**17)], "range"),
    ([taskset_line(1), task_line(0, policy="fifo")], "range"),
    ([taskset_line(1), task_line(0, policy="fifo", priority=99)], "range"),
    ([taskset_line(1), task_line(0, priority=1)], "range"),
    ([taskset_line(1), task_line(0, policy="deadline")], "bad_value"),
    ([taskset_line(1), task_line(0, dl_runtime_ns=1)], "bad_value"),
    ([taskset_line(1), task_line(0, cpus=0)], "bad_value"),
    ([taskset_line(1), task_line(0, cpus="1ffffffffffffffff")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="format_disk")], "bad_value"),
    ([taskset_line(1), task_line(0, args=1)], "bad_value"),
    ([taskset_line(1), task_line(0, workload="spin")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="spin", args="1,2")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="linpack", args=10**6)], "range"),
    ([taskset_line(1), task_line(0, workload="executable")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="executable", args="bin/true")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="executable", args="/bin/true,%00")], "bad_value"),
    ([taskset_line(1), task_line(0, workload="executable", args="/bin/true%2")], "bad_value"),
    (
        [
            taskset_line(1),
            task_line(
                0,
                policy="deadline",
                dl_runtime_ns=1,
                dl_deadline_ns=1,
                dl_period_ns=1,
                workload="executable",
                args="/x",
            ),
        ],
        "unsupported",
    ),
]


@pytest.mark.parametrize(("requests", "code"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_requests_get_one_error(loader: TaskLoader, requests: list[str | bytes], code: str) -> None:
    replies = loader.replies_to(requests)
    assert [reply.split(" detail=")[0] for reply in replies] == [f"error code={code}"]
    assert loader.run([A_TASK]).exits(0) == ["EXIT"], "the next set is not affected"


def test_requests_while_a_set_runs(loader: TaskLoader) -> None:
    loader.begin([task_line(0, workload="idle", args=200)])
    assert loader.replies_to([taskset_line(1), A_TASK, "run", "nonsense"]) == [
        *["error code=busy detail=a%20set%20is%20running"] * 3,
        "error code=unknown_verb detail=known%20are%20taskset%2C%20task%2C%20run%2C%20ping%2C%20stop%2C%20quit",
    ]
    assert loader.finish().exits(0) == ["EXIT"]


VALID_LINES = st.sampled_from(
    [
        taskset_line(2),
        task_line(0),
        task_line(1, workload="executable", args="/bin/a%20b,c"),
        "run",
        "stop",
        "ping token=a",
    ]
).map(str.encode)


@st.composite
def broken_lines(draw: st.DrawFn) -> bytes:
    """A valid line with a few bytes replaced, removed, doubled or put in: what random bytes alone would hardly ever hit."""
    line = bytearray(draw(VALID_LINES))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(line) - 1)))
        line[at : at + draw(st.integers(0, 3))] = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b" ", b"=", b"-", b"%", b",", b"9" * 30, bytes(line[at : at + 40])]),
            )
        )
    return bytes(line).replace(b"\n", b"")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.one_of(broken_lines(), st.binary(max_size=200), st.integers(4000, 9000).map(b"a".__mul__)),
        max_size=20,
    )
)
def test_parser_survives_any_bytes(request_check: Path, lines: list[bytes]) -> None:
    """Under the address and undefined-behaviour sanitizers; every line gets exactly one verdict."""
    data = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    check = subprocess.run([request_check], input=data, capture_output=True, check=False, timeout=20)
    assert check.returncode == 0, check.stderr.decode()
    verdicts = check.stdout.decode().splitlines()
    assert len(verdicts) == len(lines)
    assert all(verdict.split()[0] in ("ok", "fault") for verdict in verdicts)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.one_of(broken_lines(), st.binary(max_size=60)), max_size=12))
def test_serve_survives_any_lines(binary: Path, lines: list[bytes]) -> None:
    """Whatever came before: it still answers, and still runs a set."""
    with TaskLoader(binary) as loader:
        replies = loader.replies_to(
            line.replace(b"\n", b"").replace(b"quit", b"quiz") + b"\n" for line in lines
        )
        known = ("error ", "pong ", "accepted ", "start ", "job ", "task_done ", "end ", "refused ")
        assert all(reply.startswith(known) for reply in replies)
        loader.send("stop")
        loader.replies_to(["taskset"])  # forget what was begun
        assert loader.run([A_TASK], id="after").of_task(0)[0]["exit"] == "EXIT"
