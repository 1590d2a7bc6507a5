"""What QEMU's last words mean, and what to do about it."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Fault
from runner.text.log_lines import clean


@dataclass(frozen=True)
class Explanation:
    """Why QEMU could not run, for people.

    Attributes:
        cause: Ends the sentence "QEMU could not run the guest: …".
        next_step: What to do.
        shortage: Whether it may run later, when this computer has more of something.
    """

    cause: str
    next_step: str
    shortage: bool = False


_PORT = Explanation(
    "the port that was to be forwarded to the guest is in use",
    "set machines.qemu.ssh_port=null to take free ports, or choose another first port",
    shortage=True,
)
_MEMORY = Explanation(
    "there is not enough memory for it",
    "lower machines.qemu.memory_mib or machines.count, or free some memory",
    shortage=True,
)
_THREAD = Explanation(
    "it could start no further thread: there is no memory for its stack, or its user may have no more of them",
    "lower machines.count or free some memory, or raise the limit of the user that QEMU runs as (ulimit -u)",
    shortage=True,
)
_IMAGE = Explanation(
    "the guest image cannot be read",
    "build it again: python -m host_setup image",
)

# First match wins. The wording is that of QEMU 7.2 (net/slirp.c, backends/hostmem*.c, hw/core/loader.c, util/mmap-alloc.c,
# util/qemu-thread-posix.c), and GLib's.
_SIGNS = (
    (re.compile(r"could not set up host forwarding rule", re.I), _PORT),
    (re.compile(r"cannot allocate memory|no space left on device|unable to map backing store|file too large", re.I), _MEMORY),
    (re.compile(r"cannot set up guest memory|failed to allocate \d+ bytes", re.I), _MEMORY),
    (re.compile(r"qemu_thread_create: resource temporarily unavailable", re.I), _THREAD),
    (re.compile(r"could not (load|open|read) (the )?(kernel|initrd|initial ram disk|linux)|error reading initrd", re.I), _IMAGE),
)  # fmt: skip

_UNKNOWN = Explanation(
    "it refused its settings",
    "its own words above say which; see what it can do: python -m host_setup check",
)


def explain(stderr: str, returncode: int) -> Explanation:
    """The most likely reason why QEMU ended before it could run a guest.

    Args:
        stderr: What it said.
        returncode: As of `subprocess`: negative is a signal.
    """
    for sign, explanation in _SIGNS:
        if sign.search(stderr):
            return explanation
    if returncode == -signal.SIGBUS:
        # The kernel's answer to a write into shared memory for which there is no page left.
        return _MEMORY
    return _UNKNOWN


# `reason` of the QMP event SHUTDOWN.
_SHUTDOWN_REASONS = {
    "guest-shutdown": "the guest powered itself off",
    "guest-reset": "the guest reset itself, as its kernel does after a panic",
    "guest-panic": "the guest's kernel panicked",
    "host-signal": "a signal from outside ended QEMU",
    "host-qmp-quit": "QEMU was told to quit",
}

FATAL_EVENTS = frozenset({"SHUTDOWN", "RESET", "GUEST_PANICKED", "WATCHDOG", "INTERNAL_ERROR"})


def describe_event(name: str, data: Mapping[str, object]) -> str:
    """A fatal QMP event as half a sentence."""
    reason = str(data.get("reason", ""))
    match name:
        case "SHUTDOWN" | "RESET" if reason in _SHUTDOWN_REASONS:
            return _SHUTDOWN_REASONS[reason]
        case "GUEST_PANICKED":
            return "the guest gave up: its kernel panicked, or its init could not make it ready"
        case "WATCHDOG":
            return "the guest hangs: its watchdog, which counts in guest time, ran out"
        case _:
            return f"QEMU reported {name} ({reason or 'no reason given'})"


# Sent by somebody, be it the kernel that is out of memory; SIGBUS is its answer where a mapped file finds no room.
_FROM_OUTSIDE = frozenset(
    {
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGXCPU,
        signal.SIGBUS,
    }
)


def fault_of_event(name: str, data: Mapping[str, object]) -> Fault:
    """Whose doing a fatal QMP event is, if it comes while a task set runs."""
    if data.get("reason") == "host-signal":
        return Fault.HOST
    if name == "INTERNAL_ERROR" or data.get("reason") == "host-qmp-quit":
        return Fault.GUEST
    return Fault.TASKSET


def fault_of_exit(returncode: int) -> Fault:
    """Whose doing the end of QEMU's process is: a crash is QEMU's own."""
    return Fault.HOST if -returncode in _FROM_OUTSIDE else Fault.GUEST


def describe_exit(returncode: int) -> str:
    """The end of QEMU's process as half a sentence."""
    if returncode >= 0:
        return f"QEMU exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"QEMU was ended by {name}"


# What a guest says when it gives up: its kernel, or its init. Below that the kernel lists registers.
_LAST_STRAW = re.compile(r"Kernel panic|Internal error|rtfleet: panic")

# More than the longest register dump.
_TAIL_BYTES = 16 << 10


def tail(path: Path, *, n_lines: int, start_byte: int = 0) -> str:
    """The last lines of a log, without empty ones; those from a guest's panic on if there is one. Empty without a log.

    Args:
        start_byte: What stands before belongs to somebody else.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(start_byte, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [printable for line in text.splitlines() if (printable := clean(line))]
    straws = [number for number, line in enumerate(lines) if _LAST_STRAW.search(line)]
    start = straws[-1] if straws else max(0, len(lines) - n_lines)
    return "\n".join(lines[start : start + n_lines])
