"""Attach to the console of a machine while it runs: `python -m runner.console qemu1 [RUN_FOLDER]`."""

from __future__ import annotations

import argparse
import errno
import os
import selectors
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.errors import HostError, RunnerError, UsageError
from runner.paths import OUTPUTS, RunPaths, newest_run
from runner.qemu.console_link import ConsoleLink, read_link
from runner.terminal_filter import TerminalFilter

#: Ctrl-], as in telnet: nothing that a shell or an editor would want.
LEAVE = b"\x1d"


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


def attach(link: ConsoleLink, keyboard_fd: int, screen_fd: int) -> bool:
    """Copy between a console and a terminal until Ctrl-] is typed (True) or the machine or the input ends (False).

    The guest can write on the terminal, but not control it.

    Raises:
        HostError: the console cannot be opened.
    """
    try:
        console_fd = os.open(link.pty, os.O_RDWR | os.O_NOCTTY)
    except FileNotFoundError:
        return False  # the machine ended since its link was read
    except OSError as exc:
        if exc.errno in (errno.EIO, errno.ENXIO):
            return False
        raise HostError(
            f"the console cannot be opened: {exc.strerror}",
            where=link.pty,
            next_step="attach as the user who started the run",
        ) from exc
    shown = TerminalFilter()
    with selectors.DefaultSelector() as selector, _closing(console_fd), _raw(keyboard_fd):
        selector.register(console_fd, selectors.EVENT_READ)
        selector.register(keyboard_fd, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = _read(key.fd)
                if not data:
                    return False
                if key.fd == console_fd:
                    os.write(screen_fd, shown.feed(data))
                    continue
                typed, leave, _ = data.partition(LEAVE)
                os.write(console_fd, typed)
                if leave:
                    return True


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
    options = parser.parse_args(arguments)
    try:
        run = options.run_folder or newest_run_with(options.machine)
        link = read_link(RunPaths(run).machines / options.machine)
        print(f"console of {options.machine} in {run}; Ctrl-] leaves", file=sys.stderr)
        left = attach(link, sys.stdin.fileno(), sys.stdout.fileno())
    except RunnerError as exc:
        print(exc, file=sys.stderr)
        return 2 if isinstance(exc, UsageError) else 4
    if not left:
        print(f"\r\n{options.machine} has ended", file=sys.stderr)
    return 0


def _read(fd: int) -> bytes:
    """What there is to read; nothing at the end, which a pseudo-terminal whose other side is gone shows as EIO."""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Hand every key on, as long as the block runs; of no effect on what is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    # Not TCSAFLUSH, the default: what was typed already counts.
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


if __name__ == "__main__":
    sys.exit(main())
