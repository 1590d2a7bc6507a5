"""How a command ends, as a number that scripts can rely on."""

from __future__ import annotations

from enum import IntEnum

from runner.errors import HostError, InfrastructureError, UsageError


class ExitCode(IntEnum):
    """The command line's exit codes."""

    #: Every task set is done.
    OK = 0
    #: A bug of this program.
    BUG = 1
    #: The config or the command line is wrong.
    USAGE = 2
    #: Ended, but some task sets are bad.
    BAD_TASKSETS = 3
    #: This computer cannot run it: QEMU, image, port, memory, disk.
    HOST = 4
    #: Stopped by the operator before the end.
    STOPPED = 5


def exit_code_of(error: Exception) -> ExitCode:
    """What a command should end with after this error."""
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    if isinstance(error, HostError | InfrastructureError):
        return ExitCode.HOST
    return ExitCode.BUG
