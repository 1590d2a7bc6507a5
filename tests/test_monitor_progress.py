"""Progress: a bar on a real terminal, and lines in a file."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
import time
from contextlib import suppress

from runner.fleet import FleetState, MachineState, Phase, RunState
from runner.monitors.progress import ProgressMonitor

MACHINES = (MachineState("qemu1", Phase.RUNNING), MachineState("qemu2", Phase.CLOSED))


def fleet(
    n_done: int, n_bad: int = 0, *, n_total: int | None = 20, state: RunState = RunState.RUN
) -> FleetState:
    return FleetState(
        state=state, desired_machines=2, machines=MACHINES, n_total=n_total, n_done=n_done, n_bad=n_bad
    )


def lines(*states: FleetState, interval_s: float, pause_s: float = 0.0) -> list[str]:
    """What is written where there is no terminal, times and rates blanked."""
    stream = io.StringIO()
    monitor = ProgressMonitor(interval_s=interval_s, stream=stream)
    monitor.open()
    for state in states:
        monitor.__fleet_change__(state)
        time.sleep(pause_s)
    monitor.close()
    return [re.sub(r"[\d.e+]+/s|\d\d:\d\d", "?", line) for line in stream.getvalue().splitlines()]


def test_lines_come_now_and_then_and_at_the_end():
    told = lines(fleet(0), fleet(1), fleet(2), fleet(19, 1), interval_s=3600, pause_s=0.01)
    assert told == [
        "task sets: 0/20, 0 done, 0 bad, machines 1/2",
        "task sets: 20/20, 19 done, 1 bad, machines 1/2, ?",
    ]


def test_lines_tell_rate_and_time_left():
    told = lines(fleet(0), fleet(5), fleet(10, state=RunState.DRAIN), interval_s=0, pause_s=0.01)
    assert told[1:] == [
        "task sets: 5/20, 5 done, 0 bad, machines 1/2, ?, ? left",
        "task sets: 10/20, 10 done, 0 bad, machines 1/2, drain, ?, ? left",
    ]


def test_a_total_that_is_not_known_gives_no_estimate():
    told = lines(fleet(0, n_total=None), fleet(7, n_total=None), interval_s=3600, pause_s=0.01)
    assert told == [
        "task sets: 0, 0 done, 0 bad, machines 1/2",
        "task sets: 7, 7 done, 0 bad, machines 1/2, ?",
    ]


def test_a_resumed_run_does_not_count_what_was_done_before():
    """The rate is that of this run: 1 set in some 50 ms, not the 1001 of both."""
    stream = io.StringIO()
    monitor = ProgressMonitor(interval_s=0, stream=stream)
    monitor.__fleet_change__(fleet(1000, n_total=2000))
    time.sleep(0.05)
    monitor.__fleet_change__(fleet(1001, n_total=2000))
    rate = float(stream.getvalue().splitlines()[1].split(", ")[4].removesuffix("/s"))
    assert rate <= 1 / 0.05


def test_how_a_complete_run_was_ended_is_not_worth_a_word():
    told = lines(fleet(20), fleet(20, state=RunState.KILL), interval_s=0)
    assert told[1].startswith("task sets: 20/20, 20 done, 0 bad, machines 1/2")
    assert "kill" not in told[1]


def test_silence_where_nothing_happened():
    assert lines(interval_s=0) == []


def on_a_terminal(*states: FleetState, columns: int = 100) -> str:
    """What a terminal is sent."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(secondary, "w") as stream:
        monitor = ProgressMonitor(stream=stream)
        n_threads = threading.active_count()
        for state in states:
            monitor.__fleet_change__(state)
        # tqdm would start a thread of its own that nobody ends.
        assert threading.active_count() == n_threads
        monitor.close()
    sent = b""
    # The other end is closed: reading ends with an error once everything has come.
    with suppress(OSError):
        while chunk := os.read(primary, 1 << 16):
            sent += chunk
    os.close(primary)
    return sent.decode()


def test_a_bar_on_a_terminal():
    sent = on_a_terminal(fleet(0), fleet(5), fleet(11, 1))
    last = sent.rstrip().split("\r")[-1]
    assert last.startswith("task sets:  60%|")
    assert "12/20" in last
    assert "11 done, 1 bad, machines 1/2" in last
    assert sent.endswith("\n")  # the last state stays, and the shell's prompt comes below it
    assert sent.count("\n") == 1


def test_a_bar_without_a_total():
    sent = on_a_terminal(fleet(0, n_total=None), fleet(5, n_total=None))
    assert "5set" in sent
    assert "%" not in sent


def test_a_total_that_becomes_known_later():
    assert "25%" in on_a_terminal(fleet(0, n_total=None), fleet(5, n_total=20))


def test_a_terminal_that_does_not_know_its_size_gets_lines():
    assert on_a_terminal(fleet(0), columns=0).splitlines() == ["task sets: 0/20, 0 done, 0 bad, machines 1/2"]
