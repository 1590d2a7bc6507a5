"""Start the command line as its users do: a process of its own, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN_TIMEOUT_S = 120.0


def environment(folder: Path, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the modules in `folder` importable beside the runner's."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **(changes or {})}


def run_cli(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`python -m runner` to its end. The run folder is `folder`/run unless the arguments say otherwise.

    Args:
        within: The words of a command that becomes it.
    """
    return subprocess.run(
        [*within, sys.executable, "-m", "runner", *arguments, *_run_folder(arguments)],
        cwd=folder,
        env=environment(folder, env),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


@contextlib.contextmanager
def started_cli(
    folder: Path,
    *arguments: str,
    stderr: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """`python -m runner` while it runs; killed at the end of the block if it still does."""
    process = subprocess.Popen(
        [*within, sys.executable, "-m", "runner", *arguments, *_run_folder(arguments)],
        cwd=folder,
        env=environment(folder, env),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=RUN_TIMEOUT_S)


def _run_folder(arguments: tuple[str, ...]) -> tuple[str, ...]:
    if any(argument.startswith(("resume=", "--help", "--cfg", "-sc")) for argument in arguments):
        return ()
    # A report takes longer than most of these runs.
    asked = any(argument.startswith("report=") for argument in arguments)
    placed = any(argument.startswith(("hydra.", "--multirun")) for argument in arguments)
    return (*(() if placed else ("hydra.run.dir=run",)), *(() if asked else ("report=false",)))


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that mention the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command and int(path.parent.name) != os.getpid():
                found.append(command)
    return found
