"""Every error that leaves a function of this package on purpose.

The first branch says whose fault it is, because that decides what happens next:

    RunnerError
     ├── UsageError           the caller's: config, command line or code; never retried, exit code 2
     ├── HostError            this computer cannot run it (QEMU, image, port, memory, disk); exit code 4
     │    └── HostShortage        it is short of something for now, and may have it again: waited for, in bounds
     ├── InfrastructureError  guest, session or transport failed; the task set is tried again
     │    ├── BootFailed          the guest did not become ready
     │    ├── GuestDied           the guest ended, panicked or was reset while it was in use
     │    ├── SessionLost         the connection broke, or a remote call passed its deadline
     │    └── ProtocolError       the other side sent something that the protocol forbids
     ├── TaskSetError         this task set cannot run anywhere; recorded as bad, not retried
     │    └── UnrepeatableError   measured again, it gave another job table
     ├── DisturbedError       the host disturbed the measurement; the task set is tried again
     └── MachineKilled        the operator ended the machine; the task set goes back uncharged

A missed deadline or a task that the kernel's admission test refused is data (an event), never an error.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from pathlib import Path

from runner.text.excerpt import printable
from runner.text.secrets import masked

#: What the kernel answers where there is too little for now: memory, processes, disk, descriptors, a port.
SHORTAGES = frozenset(
    {errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EADDRINUSE}
)
MAX_PART_CHARS = 4_000


def _part(text: str) -> str:
    # Of a text that is cut, the end of a secret might be cut off, which then would not be recognised.
    shown = printable(masked(text[: 2 * MAX_PART_CHARS]))
    return f"{shown[:MAX_PART_CHARS]}…" if len(shown) > MAX_PART_CHARS else shown


class Fault(StrEnum):
    """Whose doing a failed attempt is, as far as can be told; each kind is retried within bounds of its own."""

    #: The task set ruined its guest: it panicked, hung or lost its task loader while that set ran.
    TASKSET = "taskset"
    #: The guest, its emulator or the line to it is sick: it started badly, answered garbage, stopped answering.
    GUEST = "guest"
    #: This computer is short of something, or somebody on it ended the emulator.
    HOST = "host"


class RunnerError(Exception):
    """What happened, where, and what to do next; `str()` shows all three, a line each.

    Guarantees: passwords and tokens that `runner.text.secrets` recognises are masked; whatever a terminal would obey, or could not
    be written, is escaped; no part is longer than `MAX_PART_CHARS`. For some of it comes from guests and files.

    Attributes:
        what: One sentence that names the key, file or machine concerned.
        next_step: What the reader can do about it; empty where nothing helps.
        where: The place: a config key with its full name, `file:line`, or a machine.
        evidence: Last lines of a console or stderr, shown as they are.
        log_path: The file that holds the whole of the evidence.
    """

    def __init__(
        self,
        what: str,
        *,
        next_step: str = "",
        where: str = "",
        evidence: str = "",
        log_path: Path | None = None,
    ) -> None:
        what = _part(what)
        super().__init__(what)
        self.what = what
        self.next_step = _part(next_step)
        self.where = _part(where)
        self.evidence = _part(evidence)
        self.log_path = log_path

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.evidence:
            lines += ["  last output:", *(f"    | {line}" for line in self.evidence.splitlines())]
        if self.log_path is not None:
            lines.append(f"  log:   {self.log_path}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)


class UsageError(RunnerError):
    """The config, the command line or the calling code is wrong: fix it and start again."""


class HostError(RunnerError):
    """This computer cannot run what was asked: QEMU, image, port, memory or disk."""

    @staticmethod
    def because(exc: OSError, what: str, *, where: str = "", next_step: str = "") -> HostError:
        """The error for what the kernel refused: a `HostShortage` where it may grant the same later."""
        kind = HostShortage if exc.errno in SHORTAGES else HostError
        return kind(f"{what}: {exc}", where=where, next_step=next_step)


class HostShortage(HostError):
    """This computer is short of memory, disk, ports or descriptors now; the same may work later."""


class InfrastructureError(RunnerError):
    """A guest, a session or the transport failed; says nothing about the task set.

    Attributes:
        fault: Whose doing it is; who raises it while a task set runs, and can tell, says so.
    """

    def __init__(
        self,
        what: str,
        *,
        next_step: str = "",
        where: str = "",
        evidence: str = "",
        log_path: Path | None = None,
        fault: Fault = Fault.GUEST,
    ) -> None:
        super().__init__(what, next_step=next_step, where=where, evidence=evidence, log_path=log_path)
        self.fault = fault


class BootFailed(InfrastructureError):
    """The guest did not become ready before its boot deadline, or died on the way."""


class GuestDied(InfrastructureError):
    """A guest that was in use ended, panicked or was reset."""


class SessionLost(InfrastructureError):
    """The connection to a host broke, or a remote call passed its deadline."""


class ProtocolError(InfrastructureError):
    """The other side sent what the protocol does not allow."""


class TaskSetError(RunnerError):
    """The task set itself cannot run, on whichever machine: it ends as bad at once."""


class UnrepeatableError(TaskSetError):
    """A task set gave two job tables where a measurement is to repeat bit for bit."""


class DisturbedError(RunnerError):
    """The host disturbed a measurement beyond its limits; the task set is tried again on the same guest."""


class MachineKilled(RunnerError):
    """The operator killed the machine; its task set goes back to the queue uncharged."""


def fault_of(error: BaseException) -> Fault | None:
    """Whose doing it is that something failed; None for what is no failure of the infrastructure."""
    if isinstance(error, InfrastructureError):
        return error.fault
    return Fault.HOST if isinstance(error, HostError) else None


def host_error(exc: OSError, where: str) -> HostError:
    """What the operating system refused, most likely in the run folder."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return HostError(
        f"the disk of the run folder is full: {exc.strerror}"
        if full
        else f"the run folder cannot be used: {exc}",
        where=where,
        next_step="make room, or choose another place: hydra.run.dir=/path/with/room"
        if full
        else "choose another place: hydra.run.dir=/path",
    )
