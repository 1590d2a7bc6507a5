"""Guests that do not answer: whatever happens inside, the host hears of it, and it is no answer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.qemu.architectures import architecture
from tests.task_loader.client import MS, task_line
from tests.task_loader.mailbox_guest import MailboxGuest, request
from tests.task_loader.test_mailbox import shell, stored

pytestmark = pytest.mark.guest

HOG = """
#include <sched.h>
int main(void)
{
    struct sched_param top = {99};
    if (sched_setscheduler(0, SCHED_FIFO, &top) != 0)
        return 1;
    for (;;)
        ;
}
"""


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[MailboxGuest]:
    with MailboxGuest(tmp_path) as guest:
        guest.boot()
        yield guest


@pytest.fixture
def hog(tmp_path: Path) -> bytes:
    """A program that takes the processor for itself, above everything."""
    program = tmp_path / "hog"
    compiler = architecture("arm64").compiler
    subprocess.run(
        [compiler, "-static", "-s", "-xc", "-", "-o", program], input=HOG.encode(), check=True, timeout=60
    )
    return program.read_bytes()


def test_a_kernel_panic_is_no_answer(guest: MailboxGuest) -> None:
    guest.put(request([shell(0, "echo c > /proc/sysrq-trigger")]))
    assert guest.go_on() == "SHUTDOWN"
    assert guest.answered == (1, 0)
    assert "sysrq triggered crash" in guest.console.read_text()


def test_a_hang_is_ended_by_the_watchdog(guest: MailboxGuest, hog: bytes) -> None:
    """Nothing else runs: not the supervisor, and not the network."""
    guest.put(request([task_line(0, workload="executable", args=stored(1))], stop_ns=100 * MS), [(1, hog)])
    assert guest.go_on() == "WATCHDOG"
    assert guest.answered == (1, 0)


def test_a_task_loader_that_dies_is_told_by_init(guest: MailboxGuest) -> None:
    guest.put(request([shell(0, "kill -9 $(pidof taskloader)"), task_line(1, workload="idle")]))
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answered == (1, 0)
    assert "rtfleet: panic: the task loader ended (137)" in guest.console.read_text()
    # There is nobody left to answer, and the guest is not left to run for ever either.
    assert guest.go_on() == "WATCHDOG"


def test_a_task_that_cannot_be_ended_ends_the_task_loader(guest: MailboxGuest) -> None:
    """A frozen process takes no signal, not even the last one, and its thread waits for it."""
    freeze = (
        "mkdir /tmp/f && mount -t cgroup -o freezer none /tmp/f && mkdir /tmp/f/x"
        " && echo $$ > /tmp/f/x/tasks && echo FROZEN > /tmp/f/x/freezer.state; exit 3"
    )
    guest.put(request([shell(0, freeze), task_line(1)], stop_ns=100 * MS))
    assert guest.go_on() == "GUEST_PANICKED"
    assert guest.answered == (1, 0)
    assert "taskloader: a task does not end" in guest.console.read_text()
    assert "rtfleet: panic: the task loader ended (3)" in guest.console.read_text()
