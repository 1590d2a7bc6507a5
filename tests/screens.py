"""What GNU screen has, in a folder of a test's own."""

from __future__ import annotations

import re
import subprocess


def listed() -> list[str]:
    """The names of the sessions that `screen -list` shows."""
    done = subprocess.run(["screen", "-list"], check=False, capture_output=True, text=True, timeout=30)
    return sorted(re.findall(r"^\t\d+\.(\S+)\t.*\(Detached\)", done.stdout, re.M))
