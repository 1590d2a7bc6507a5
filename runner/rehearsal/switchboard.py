"""The rehearsal's end of the line: takes every call of a run, and answers each from a thread of its own."""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from runner.rehearsal.link import Call, short_name

_POLL_S = 0.05


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64


class Switchboard:
    """Listens at a path while the block runs.

    Args:
        path: The socket's; removed at the end.
        answer: Called with each call, from as many threads as there are calls under way; what it returns is the answer. It must
            return at the latest when the block is left.
    """

    def __init__(self, path: Path, answer: Callable[[Call], str]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline()
                if line:
                    word = answer(Call.decode(line))
                    # Whoever asked may be dead by then: that may be what the answer was about.
                    try:
                        self.wfile.write(f"{word}\n".encode())
                    except OSError:
                        return

        self._path = path
        with short_name(path) as name:
            self._server = _Server(name, Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="switchboard")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
