"""QEMU's last words: what they mean to a reader."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import Fault
from runner.qemu.failure import (
    describe_event,
    describe_exit,
    explain,
    fault_of_event,
    fault_of_exit,
    tail,
)


@pytest.mark.parametrize(
    ("stderr", "returncode", "cause", "hint"),
    [
        (
            "qemu: qemu_thread_create: Resource temporarily unavailable",
            -signal.SIGABRT,
            "no further thread",
            "ulimit -u",
        ),
        ("GLib: ../glib/gmem.c:136: failed to allocate 8192 bytes", -signal.SIGTRAP, "memory", "memory_mib"),
        (
            "qemu-system-aarch64: -netdev user,id=net: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'",
            1,
            "port",
            "machines.qemu.ssh_port",
        ),
        ("qemu: cannot set up guest memory 'ram': Cannot allocate memory", 1, "memory", "memory_mib"),
        ("qemu: can't open backing store: No space left on device", 1, "memory", "memory_mib"),
        ("qemu: could not open kernel file '/x/vmlinuz': Permission denied", 1, "image", "host_setup image"),
        ("qemu-system-aarch64: could not load kernel '/x/vmlinuz'", 1, "image", "host_setup image"),
        ("", -signal.SIGBUS, "memory", "memory_mib"),
        ("qemu: unsupported machine type", 1, "refused", "host_setup check"),
    ],
)
def test_causes_come_with_a_next_step(stderr, returncode, cause, hint):
    explanation = explain(stderr, returncode)
    assert cause in explanation.cause
    assert hint in explanation.next_step


def test_what_this_computer_lacks_it_may_have_later():
    assert [
        explain(words, 1).shortage for words in ("Cannot allocate memory", "could not load kernel", "")
    ] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("returncode", "fault"),
    [
        (1, Fault.GUEST),
        (0, Fault.GUEST),
        (-signal.SIGABRT, Fault.GUEST),
        (-signal.SIGSYS, Fault.GUEST),
        (-signal.SIGKILL, Fault.HOST),
        (-signal.SIGTERM, Fault.HOST),
        (-signal.SIGBUS, Fault.HOST),
        (-250, Fault.GUEST),
    ],
)
def test_a_crash_is_qemus_own_and_a_signal_somebody_elses(returncode, fault):
    assert fault_of_exit(returncode) is fault


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("GUEST_PANICKED", {}, Fault.TASKSET),
        ("WATCHDOG", {"action": "pause"}, Fault.TASKSET),
        ("SHUTDOWN", {"reason": "guest-reset"}, Fault.TASKSET),
        ("SHUTDOWN", {"reason": "host-signal"}, Fault.HOST),
        ("SHUTDOWN", {"reason": "host-qmp-quit"}, Fault.GUEST),
        ("INTERNAL_ERROR", {}, Fault.GUEST),
    ],
)
def test_what_a_guest_does_is_its_task_sets_doing(name, data, fault):
    assert fault_of_event(name, data) is fault


def test_ends_are_told_in_words():
    assert describe_exit(3) == "QEMU exited with code 3"
    assert describe_exit(-9) == "QEMU was ended by SIGKILL"
    assert describe_exit(-250) == "QEMU was ended by signal 250"
    assert "powered itself off" in describe_event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
    assert "its init" in describe_event("GUEST_PANICKED", {"action": "poweroff"})
    assert "new-in-9.0" in describe_event("SHUTDOWN", {"reason": "new-in-9.0"})


def test_tail_starts_at_the_panic(tmp_path):
    # The registers that follow a panic fill a screen; what happened is above them.
    log = tmp_path / "console.log"
    log.write_text("boot\n" * 50 + "[1.0] Kernel panic - not syncing: why\n" + "[1.1] x0: 0\n" * 30)
    assert tail(log, n_lines=3).splitlines() == [
        "[1.0] Kernel panic - not syncing: why",
        "[1.1] x0: 0",
        "[1.1] x0: 0",
    ]


def test_tail_of_nothing_is_nothing(tmp_path):
    assert tail(tmp_path / "none", n_lines=3) == ""


@given(content=st.binary(max_size=40_000), n_lines=st.integers(1, 20))
def test_tail_never_floods_or_garbles_the_terminal(tmp_path_factory, content, n_lines):
    log = tmp_path_factory.mktemp("log") / "console.log"
    log.write_bytes(content)
    lines = tail(log, n_lines=n_lines).splitlines()
    assert len(lines) <= n_lines
    assert all(line.isprintable() and line for line in lines)
