"""The noise meter on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.qemu.noise import NoiseMeter
from runner.units import NS_PER_MS, NS_PER_S
from tests.qemu_guests import eventually

#: Says `+` when it is ready. When told so, starts threads that use some CPU time each, and says `-` when they have; the threads stay
#: until its input ends. Hashing gives Python's one lock away, so that the threads wait for the CPU rather than for each other.
BUSY = """
import hashlib, os, sys, threading, time
block, over, done = bytes(1 << 18), threading.Event(), threading.Semaphore(0)
def compute():
    while time.thread_time() < float(sys.argv[2]):
        hashlib.sha256(block)
    done.release()
    over.wait()
threads = [threading.Thread(target=compute) for _ in range(int(sys.argv[1]))]
os.write(1, b"+")
os.read(0, 1)
for thread in threads: thread.start()
for _ in threads: done.acquire()
os.write(1, b"-")
os.read(0, 1)
over.set()
"""


class Busy:
    """A process that is to compute when told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"!")

    def expect(self, said: bytes) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.read(1) == said


@contextmanager
def busy(n_threads: int, *, cpu_s: float = 0.1) -> Iterator[Busy]:
    """It is ready to compute, with all its threads on one and always the same CPU, and gone afterwards."""
    command = [sys.executable, "-c", BUSY, str(n_threads), str(cpu_s)]
    with subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
            program = Busy(process)
            program.expect(b"+")
            yield program
        finally:
            process.kill()


def delay_of(meter: NoiseMeter) -> int:
    _, delay_ns = meter.end()
    if delay_ns is None:
        pytest.skip("this kernel does not count how long threads wait for a CPU (CONFIG_SCHED_INFO)")
    return delay_ns


def test_two_processes_on_one_cpu_wait_for_each_other() -> None:
    """Each computes for 100 ms: who ends first has waited nearly as long."""
    with busy(1) as one, busy(1) as other:
        meter = NoiseMeter(one.pid)
        meter.begin()
        other.go()
        one.go()
        one.expect(b"-")
        other.expect(b"-")
        assert delay_of(meter) > 10 * NS_PER_MS


def test_all_threads_count_also_those_that_came_later() -> None:
    """Nobody else needs to be there: three threads of one process wait for each other."""
    with busy(3) as process:
        meter = NoiseMeter(process.pid)
        meter.begin()
        process.go()
        process.expect(b"-")
        assert delay_of(meter) > 40 * NS_PER_MS


def test_what_came_before_does_not_count() -> None:
    with busy(3) as process:
        whole, later = NoiseMeter(process.pid), NoiseMeter(process.pid)
        whole.begin()
        process.go()
        process.expect(b"-")
        later.begin()
        assert delay_of(later) < delay_of(whole)
        whole.begin()
        assert delay_of(whole) < 40 * NS_PER_MS, "a meter can be used again"


def test_other_processes_waits_are_not_counted() -> None:
    with busy(1, cpu_s=0.0) as idle, busy(3) as process:
        idle_meter, meter = NoiseMeter(idle.pid), NoiseMeter(process.pid)
        idle_meter.begin()
        meter.begin()
        process.go()
        process.expect(b"-")
        assert delay_of(idle_meter) < delay_of(meter)


def test_steal_is_whole_ticks_and_never_negative() -> None:
    meter = NoiseMeter(os.getpid())
    meter.begin()
    steal_ns, _ = meter.end()
    assert steal_ns is not None
    assert steal_ns >= 0
    assert steal_ns % (NS_PER_S // os.sysconf("SC_CLK_TCK")) == 0


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    with busy(1) as process:
        meter = NoiseMeter(process.pid)
        meter.begin()
    assert eventually(lambda: not Path(f"/proc/{process.pid}").exists())
    steal_ns, delay_ns = meter.end()
    assert steal_ns is not None, "that one is the computer's"
    assert delay_ns is None
    meter.begin()
    assert meter.end()[1] is None


def test_an_end_without_a_begin_is_the_callers_fault() -> None:
    with pytest.raises(UsageError, match="before it was measured") as caught:
        NoiseMeter(os.getpid()).end()
    assert "begin()" in caught.value.next_step
