"""Programs that a test starts for itself, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess


def end(process: subprocess.Popen[bytes], within_s: float) -> None:
    """Ask a leader of its own session to end; whoever does not within that time is killed, with all its children."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(within_s)
