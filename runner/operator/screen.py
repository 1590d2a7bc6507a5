"""A machine's console in GNU screen: a detached session that has the machine's name, for `screen -list` and `screen -xr qemu1`."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.errors import HostError
from runner.qemu.console_link import started_ticks

# Each step of an end may take so long: asked, then by force.
_END_TIMEOUT_S = 5.0
_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]


def check_screen() -> None:
    """Make sure that sessions can be had.

    Raises:
        HostError: screen is missing, or refuses to work for this user.
    """
    if shutil.which("screen") is None:
        raise HostError(
            "machines.console is 'screen', and there is no screen on this computer",
            where="machines.console",
            next_step="python -m host_setup packages, or apt-get install screen; machines.console=pty does without",
        )
    listed = _screen("-list")
    if "Socket" not in listed:  # "No Sockets found in …", "1 Socket in …"
        raise HostError(
            "screen cannot keep its sessions",
            where="machines.console",
            evidence=listed.strip(),
            next_step="set SCREENDIR to a folder of yours that nobody else may enter (mode 0700), or machines.console=pty",
        )


class ScreenSession:
    """A screen session, from `with` to its end. What runs in it follows the console from guest to guest.

    Guarantees: when the block is left, nothing of it is left: session, process, socket. What runs in it watches this process and
    ends with it, whatever ends it, and with that the session ends. A session that the user ends (`C-a k`), or that screen cannot
    start, is missing from then on, and no harm to the machine.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """
        Args:
            name: Of machine and session: `qemu1`.
            folder: The machine's own, whose `console.json` tells where its console is.
        """
        self._name = name
        self._folder = folder.absolute()
        self._log = logging.getLogger("runner.machine").getChild(name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Screen's process; None before the beginning, after the end, and where it could not be started."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        run_folder = self._folder.parent.parent
        follow = [sys.executable, "-m", "runner.console", self._name, str(run_folder)]
        # -D -m: detached, but a child of this process, so that its end needs no searching.
        command = [
            "screen",
            "-D",
            "-m",
            "-U",
            "-S",
            self._name,
            *follow,
            "--follow",
            f"{os.getpid()}:{started_ticks(os.getpid())}",
        ]
        # Without STY it does not take itself for a window of the screen that the runner was started in.
        environment = {"TERM": "vt100"} | {key: value for key, value in os.environ.items() if key != "STY"}
        try:
            self._process = subprocess.Popen(
                command,
                cwd=_PACKAGE_FOLDER,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the runner's terminal is not for it
            )
        except OSError as exc:
            self._log.warning("%s has no screen session: %s", self._name, exc)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is not None:
            self._log.info("the screen session of %s ended before it", self._name)
            return
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            # Its socket has nobody who would remove it.
            with suppress(OSError, subprocess.TimeoutExpired):
                _screen("-wipe", f"{process.pid}.{self._name}")


def _screen(*arguments: str) -> str:
    """What screen says; its exit codes mean little."""
    done = subprocess.run(
        ["screen", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_END_TIMEOUT_S,
    )
    return done.stdout.decode(errors="replace")
