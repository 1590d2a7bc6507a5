"""`python -m runner`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """The command line; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    from runner.cli import main as command_line  # late import: Ctrl-C meanwhile must end it in order, too

    return command_line()


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing was begun, nothing is to be taken back; an exception could get lost within an import."""
    os.write(2, b"stopped before anything was measured\n")
    os._exit(5)  # ExitCode.STOPPED


if __name__ == "__main__":
    sys.exit(main())
