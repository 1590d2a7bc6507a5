"""Ctrl-C and SIGTERM, in a real process that is really signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runner.operator.signals import OperatorSignals
from tests.fleet_samples import eventually

ROOT = Path(__file__).resolve().parent.parent
#: Prints what it is told; ends at `kill`, or when nothing was said for long.
PROGRAM = """
import sys, threading
from runner.operator.signals import OperatorSignals

killed = threading.Event()

def drain():
    print("drain", flush=True)
    if "faulty" in sys.argv:
        raise ValueError("cannot drain")

def kill():
    print("kill", flush=True)
    killed.set()

with OperatorSignals() as signals:
    signals.follow(drain=drain, kill=kill)
    print("ready", flush=True)
    while not killed.is_set():
        killed.wait(20)
print("end", flush=True)
"""


class Child:
    """The program, running."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Child:
        assert self.line() == "ready"
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: int) -> None:
        self.process.send_signal(number)


def test_the_first_interrupt_drains_and_the_second_kills() -> None:
    with Child() as child:
        child.send(signal.SIGINT)
        assert child.line() == "drain"
        child.send(signal.SIGINT)
        assert child.line() == "kill"
        assert child.line() == "end"
        assert child.process.wait(10) == 0


def test_terminate_drains_however_often() -> None:
    """A supervisor that repeats itself is not an operator who has lost patience."""
    with Child() as child:
        for _ in range(3):
            child.send(signal.SIGTERM)
            assert child.line() == "drain"
        child.send(signal.SIGINT)
        assert child.line() == "drain"
        child.send(signal.SIGINT)
        assert child.line() == "kill"
        assert child.process.wait(10) == 0


def test_no_signal_waits_for_the_main_thread() -> None:
    """It sleeps in a lock for minutes; a signal that hits it on its way into that sleep must be heard all the same."""
    with Child() as child:
        began_s = time.monotonic()
        for _ in range(300):
            child.send(signal.SIGTERM)
            assert child.line() == "drain"
        assert time.monotonic() - began_s < 10


def test_a_drain_that_fails_does_not_stop_the_kill() -> None:
    with Child("faulty") as child:
        child.send(signal.SIGINT)
        assert child.line() == "drain"
        child.send(signal.SIGINT)
        assert child.line() == "kill"
        assert child.process.wait(10) == 0
        assert child.process.stderr is not None
        assert "cannot drain" in child.process.stderr.read()


def test_a_call_may_take_the_lock_that_the_main_thread_holds() -> None:
    """The reason for the thread: the signal arrives inside the lock, in the very thread that holds it."""
    lock, drained = threading.Lock(), threading.Event()

    def drain() -> None:
        with lock:
            drained.set()

    with OperatorSignals() as signals:
        signals.follow(drain=drain, kill=drain)
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            assert not drained.is_set()
        assert drained.wait(5)


def test_the_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with OperatorSignals() as signals:
        signals.follow(drain=lambda: None, kill=lambda: None)
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_came_first_waits_until_somebody_can_follow_it() -> None:
    """Ctrl-C, twice, before there is a fleet."""
    drained, killed = threading.Event(), threading.Event()
    with OperatorSignals() as signals:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        signals.follow(drain=drained.set, kill=killed.set)
        assert drained.wait(5)
        assert killed.wait(5)


def test_what_nobody_follows_is_forgotten() -> None:
    with OperatorSignals():
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_came_last_is_still_acted_upon() -> None:
    drained = threading.Event()
    with OperatorSignals() as signals:
        signals.follow(drain=drained.set, kill=drained.set)
        os.kill(os.getpid(), signal.SIGINT)
        eventually(lambda: True)
    assert drained.is_set()


def test_outside_the_main_thread_it_refuses_and_leaves_nothing() -> None:
    """Python allows handlers in the main thread only; a thread left behind would keep the process from ending."""
    before = set(threading.enumerate())
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            with OperatorSignals() as signals:
                signals.follow(drain=lambda: None, kill=lambda: None)
        except ValueError as exc:
            raised.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(10)
    assert raised
    assert set(threading.enumerate()) <= before


def test_signals_of_others_are_left_alone() -> None:
    """A handler of the embedding program's for another signal is called as ever, and nothing is drained."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    drained = threading.Event()
    try:
        with OperatorSignals() as signals:
            signals.follow(drain=drained.set, kill=drained.set)
            os.kill(os.getpid(), signal.SIGUSR2)
            eventually(lambda: seen == [signal.SIGUSR2])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not drained.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_main_thread_goes_on_waiting(number: int) -> None:
    """A signal interrupts no `wait()`: the fleet itself says when it is over."""
    over = threading.Event()
    with OperatorSignals() as signals:
        signals.follow(drain=over.set, kill=over.set)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.start()
        assert over.wait(5)
        timer.join()
