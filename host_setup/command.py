"""Run a tool of the host, and say why when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runner.errors import HostError

# A compiler's or apt's complaint ends with what matters; a screen has 24 lines.
EVIDENCE_LINES = 12


def run_command(
    command: Sequence[str | Path],
    *,
    doing: str,
    timeout_s: float,
    next_step: str = "",
    cwd: Path | None = None,
) -> str:
    """Run `command` to its end, without input and with messages in English, and return its standard output.

    Args:
        doing: What the command is for, as the start of a sentence: "downloading the guest's packages".

    Raises:
        HostError: when the tool is not installed, ended with an error, or took longer than `timeout_s` (it is
            killed then); the last lines of its standard error are the evidence.
    """
    shown = " ".join(str(word) for word in command[:4]) + (" …" if len(command) > 4 else "")
    try:
        done = subprocess.run(
            [str(word) for word in command],
            check=True,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except FileNotFoundError as exc:
        raise HostError(
            f"{doing}: {exc.filename} was not found", next_step=next_step or "python -m host_setup packages"
        ) from exc
    except OSError as exc:
        raise HostError(f"{doing}: {shown}: {exc.strerror}", next_step=next_step) from exc
    except subprocess.TimeoutExpired as exc:
        raise HostError(
            f"{doing}: `{shown}` was still running after {timeout_s:g} s and was ended",
            next_step=next_step,
            evidence=last_lines(exc.stderr or b""),
        ) from exc
    except subprocess.CalledProcessError as exc:
        raise HostError(
            f"{doing}: `{shown}` failed with exit code {exc.returncode}",
            next_step=next_step,
            evidence=last_lines(exc.stderr or exc.stdout),
        ) from exc
    return done.stdout


def last_lines(output: str | bytes) -> str:
    """The end of a tool's output, short enough to be shown in an error."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output
    return "\n".join(text.strip().splitlines()[-EVIDENCE_LINES:])
