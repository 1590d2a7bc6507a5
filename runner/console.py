"""Attach to the console of a machine while it runs: `python -m runner.console qemu1 [RUN_FOLDER]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.errors import RunnerError, UsageError
from runner.operator.attachment import attach
from runner.paths import OUTPUTS, RunPaths, newest_run
from runner.qemu.console_link import read_link, started_ticks


def newest_run_with(machine: str, outputs: Path = OUTPUTS) -> Path:
    """The run folder that had a machine of that name last.

    Raises:
        UsageError: there is none.
    """
    found = newest_run(f"machines/{machine}", outputs)
    if found is None:
        raise UsageError(
            f"no run under {outputs} had a machine called {machine!r}",
            where=str(outputs.absolute()),
            next_step="name the run folder: python -m runner.console MACHINE RUN_FOLDER",
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.console",
        description="Attach to the console of a machine while it runs. Ctrl-] leaves; the machine goes on.",
        epilog="A machine that has no task set is paused: its console answers when it runs again.",
    )
    parser.add_argument("machine", help="its name: qemu1")
    parser.add_argument(
        "run_folder", nargs="?", type=Path, help="default: the newest under outputs/ that has the machine"
    )
    parser.add_argument("--follow", metavar="PID:TICKS", help="stay until this runner ends: for screen")
    options = parser.parse_args(arguments)
    try:
        run = options.run_folder or newest_run_with(options.machine)
        folder = RunPaths(run).machines / options.machine
        leave = "C-a d" if options.follow else "Ctrl-]"
        if options.follow is None:
            read_link(folder)
        print(f"console of {options.machine} in {run}; {leave} leaves", file=sys.stderr)
        print("(what you type reaches the guest, and disturbs what it measures)", file=sys.stderr)
        with _runner(options.follow) as runner_fd:
            left = attach(folder, sys.stdin.fileno(), sys.stdout.fileno(), runner_fd=runner_fd)
    except RunnerError as exc:
        print(exc, file=sys.stderr)
        return 2 if isinstance(exc, UsageError) else 4
    if not left:
        print(f"\r\n{options.machine} has ended", file=sys.stderr)
    return 0


@contextmanager
def _runner(process: str | None) -> Iterator[int | None]:
    """A descriptor that is readable once that process has ended."""
    if process is None:
        yield None
        return
    pid, _, ticks = process.partition(":")
    try:
        fd = os.pidfd_open(int(pid))
    except (ValueError, OSError):
        raise UsageError(f"there is no runner {process}", next_step="leave --follow out") from None
    with _closing(fd):
        if str(started_ticks(int(pid))) != ticks:  # another one has its number since
            raise UsageError(f"runner {process} has ended", next_step="leave --follow out")
        yield fd


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
