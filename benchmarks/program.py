"""How every benchmark begins and ends as a program."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from runner.errors import RunnerError

_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Call `main` and leave with its exit code; what it owns has ended before, also after Ctrl-C and SIGTERM."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _INTERRUPTED
    except RunnerError as exc:
        print(exc, file=sys.stderr)
        code = 1
    raise SystemExit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A second one would interrupt the release of what is owned, which takes seconds, and leave the rest running.
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt
