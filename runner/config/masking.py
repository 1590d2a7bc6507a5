"""What takes secrets out of everything that this process writes to its logs."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from runner.text.secrets import masked


class Masking:
    """Masks secrets in every log record that is made while its block lasts; a context manager.

    Guarantees: whichever library logs, and whatever handler writes, message and traceback are masked: what
    `runner.text.secrets` recognises, and what this object was told.
    Threads: any; the secrets are told before those are started that may log them.
    """

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._factory = logging.getLogRecordFactory()

    def learn(self, secrets: Iterable[str]) -> None:
        """These are secret, too, wherever they stand."""
        self._known |= frozenset(secrets)

    def mask(self, text: str) -> str:
        """The text without its secrets."""
        return masked(text, self._known)

    def __enter__(self) -> Self:
        self._factory = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.setLogRecordFactory(self._factory)

    def _record(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401 - as logging calls it
        record = self._factory(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception as exc:  # noqa: BLE001 - wrong arguments; whoever logs must not suffer from it
            message = f"a message that cannot be shown, from {record.pathname}:{record.lineno}: {exc}"
            record.msg, record.args = message, ()
        hidden = self.mask(message)
        if hidden != message:
            record.msg, record.args = hidden, ()
        if record.exc_info and record.exc_info[1] is not None:
            # Formatters take this over instead of formatting the exception themselves.
            record.exc_text = self.mask("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
        return record
