"""The process of a run, as its starter has it: what it tells, what it prints, how it ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress

from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode
from runner.notebook.messages import Placed, read_line

_COMMAND = (sys.executable, "-m", "runner.notebook.child")
_PIECE_BYTES = 1 << 16
# From one interrupt to the next, where both are meant; signals of one number that come at once count as one.
_AGAIN_S = 0.2


class RunProcess:
    """A runner in a process and a session of its own, which a terminal's or a kernel's signals do not reach.

    Guarantees: it ends when this process ends, however that ends, or when this object is gone: in order, and after a second at
    once. What it prints waits in a file without a name, so it never waits for its starter.
    Threads: any.

    Attributes:
        placed: Where the run is; None until that is known.
        error: What it ended with, if it has told.
        code: Its exit code, negative for a signal; None while it runs.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.placed: Placed | None = None
        self.error: RunnerError | None = None
        self.code: int | None = None
        self._lock = threading.Lock()
        self._told = b""
        self._read_bytes = 0
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as output:
            ours.setblocking(False)
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno()), str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self._output = os.dup(output.fileno())
            self._line = ours.detach()
        # Whoever has the other end of the line notices.
        weakref.finalize(self, _close, self._line, self._output)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has been seen to end."""
        return self.code is not None

    def look(self, wait_s: float) -> None:
        """Take what it has told, waiting for that at most so long; returns at once when it has ended."""
        if not self.ended:
            select.select([self._line], [], [], wait_s)
        with self._lock:
            if self.code is None and self._hears_nothing_more():
                self.code = self._process.wait()

    def _hears_nothing_more(self) -> bool:
        try:
            while piece := os.read(self._line, _PIECE_BYTES):
                *lines, self._told = (self._told + piece).split(b"\n")
                for message in map(read_line, lines):
                    if isinstance(message, Placed):
                        self.placed = message
                    else:
                        self.error = message
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return True

    def printed(self) -> list[str]:
        """The whole lines that it has printed since this was asked last; at its end, all of the rest."""
        with self._lock:
            piece = os.pread(self._output, _PIECE_BYTES, self._read_bytes)
            if not (self.ended and len(piece) < _PIECE_BYTES):
                piece = piece[: piece.rfind(b"\n") + 1] or (piece if len(piece) == _PIECE_BYTES else b"")
            self._read_bytes += len(piece)
        return piece.decode("utf-8", "replace").splitlines()

    def interrupt(self) -> None:
        """As Ctrl-C in its terminal: the first time task sets are finished, then all is killed."""
        with self._lock, suppress(ProcessLookupError):
            if not self.ended:  # its number may be another's by then
                os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Interrupt it twice, and wait for its end."""
        self.interrupt()
        self.look(_AGAIN_S)
        self.interrupt()
        while not self.ended:
            self.look(_AGAIN_S)

    def refuse_if_failed(self) -> None:
        """Raise what it ended with, unless it ended in order.

        Raises:
            RunnerError: as it was told, or that it was killed.
        """
        folder = None if self.placed is None else self.placed.folder
        if self.error is not None:
            raise self.error
        if self.code is None or self.code in (ExitCode.OK, ExitCode.BAD_TASKSETS, ExitCode.STOPPED):
            return
        if folder is None and self.code == ExitCode.USAGE:
            raise UsageError("\n".join(self.printed()) or "the arguments make no sense")
        how = f"by signal {-self.code}" if self.code < 0 else f"with exit code {self.code}"
        raise RunnerError(
            f"the process of the run has ended {how}",
            where="" if folder is None else str(folder),
            evidence="\n".join(self.printed()),
            next_step="" if folder is None else f"runner.start(resume={str(folder)!r}) goes on",
        )


def _close(*descriptors: int) -> None:
    for one in descriptors:
        os.close(one)
