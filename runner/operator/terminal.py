"""The run's log as far as it goes to the terminal, where a progress bar may be."""

from __future__ import annotations

import logging
import sys

# Back to the line's start, and clear it (ECMA-48: EL 2); the bar is drawn again soon.
_CLEAR_LINE = "\r\x1b[2K"


class TerminalHandler(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stub only
    """Records on standard error: in place of the progress bar's line, and without tracebacks, which are in the file."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        """The record's message alone."""
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        return f"{_CLEAR_LINE}{line}" if self.stream.isatty() else line
