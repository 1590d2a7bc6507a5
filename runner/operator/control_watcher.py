"""Tell when a file was saved, however the editor saves it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import watchfiles

from runner.files.durable import read_start
from runner.operator.control import MAX_CHARS

# Editors save in several steps (write, rename, touch); a save is one event if its steps lie closer together than this.
SETTLE_MS = 50
# Some file systems tell nothing (network shares), and a save before the watch stands goes unnoticed: look again this often.
LOOK_AGAIN_MS = 500
_log = logging.getLogger("runner.control")


def read_control(path: Path) -> str:
    """The text of a control file, for `runner.operator.control.parse` to judge.

    Of a file that is too long there is its start, which is enough to refuse it; bytes that are no text are told as such.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    return read_start(path, 4 * MAX_CHARS + 1).decode("utf-8", "surrogateescape")


class ControlWatcher:
    """Call `on_text` with the content of `path` whenever it has changed since this object was made; a context manager.

    The folder is watched rather than the file, so that an editor which renames a new file over the old one is noticed too;
    where it cannot be watched, the file is looked at twice a second. An empty or missing file is taken for the middle of a
    save. `on_text` is called from the watcher's own thread; what it raises is logged, and the watch goes on.
    """

    def __init__(self, path: Path, on_text: Callable[[str], None]) -> None:
        self._path = path.resolve()
        self._text = read_control(self._path)
        self._on_text = on_text
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="control-file")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            changes = watchfiles.watch(
                self._path.parent,
                watch_filter=None,  # other files' changes are occasions to look again, too: the file is small
                debounce=SETTLE_MS,
                step=SETTLE_MS,
                rust_timeout=LOOK_AGAIN_MS,
                yield_on_timeout=True,
                stop_event=self._stop,
                recursive=False,
            )
            for _ in changes:
                self.look()
        except Exception as exc:  # noqa: BLE001 - no watch is left on this host, a name that is no text, …
            _log.warning("%s cannot be watched, it is looked at twice a second: %s", self._path.parent, exc)
            while not self._stop.wait(LOOK_AGAIN_MS / 1000):
                self.look()

    def look(self) -> None:
        """Read the file now, and call `on_text` if it has changed."""
        try:
            text = read_control(self._path)
        except FileNotFoundError:
            return
        except OSError as exc:
            if str(exc) != self._complaint:
                self._complaint = str(exc)
                _log.error("the control file cannot be read: %s", exc)
            return
        self._complaint = ""
        if text.strip() and text != self._text:
            self._text = text
            try:
                self._on_text(text)
            except Exception as exc:  # noqa: BLE001 - the thread's top: the operator's next order must still be heard
                _log.error("the control file could not be followed: %s", exc, exc_info=exc)
