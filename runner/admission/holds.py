"""What the operator is told of lasting conditions: what is, in one line each, and not again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: So many lines of one source are said at once; the others wait for this long each.
AT_ONCE = 10
INTERVAL_S = 60.0


class Holds:
    """Why no further task set is started: a reason per source, several at once. Pure; nothing holds without one.

    A source is whoever answers for its reason alone: `disk`, `monitor SQLiteMonitor`.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def set(self, source: str, reason: str) -> None:
        """This source's reason now; empty: it holds nothing any more."""
        if reason:
            self._reasons[source] = reason
        else:
            self._reasons.pop(source, None)

    def set_all(self, kind: str, reasons: Mapping[str, str]) -> None:
        """The reasons of all sources of a kind, named `kind NAME`: those that are not listed have none."""
        for source in [one for one in self._reasons if one.startswith(f"{kind} ")]:
            del self._reasons[source]
        self._reasons |= {f"{kind} {name}": reason for name, reason in reasons.items() if reason}

    @property
    def reasons(self) -> Mapping[str, str]:
        """By source."""
        return dict(self._reasons)

    @property
    def text(self) -> str:
        """All reasons, by source; empty: nothing holds."""
        return "; ".join(reason for _, reason in sorted(self._reasons.items()))


@dataclass
class _Said:
    #: What was said last; empty: that it is over, or nothing yet.
    reason: str = ""
    n: int = 0
    last_s: float = 0.0


class Notices:
    """Which lines are due so that what was said last is what is. Pure.

    Guarantees: a condition is said when it begins and when it ends, not while it lasts; of each source at most `AT_ONCE`
    lines and one more per `INTERVAL_S`; what could not be said in time is said later, if it is still so.
    """

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def due(self, reasons: Mapping[str, str], now_s: float) -> list[tuple[str, str]]:
        """What to say now: source, and reason; an empty one where it is over.

        Args:
            reasons: What is the case, by source.
            now_s: Of `time.monotonic()`.
        """
        lines = []
        for source in sorted({*self._said, *reasons}):
            reason, said = reasons.get(source, ""), self._said.setdefault(source, _Said())
            if bool(reason) is bool(said.reason):
                continue
            if said.n >= AT_ONCE and now_s - said.last_s < INTERVAL_S:
                continue
            said.reason, said.n, said.last_s = reason, said.n + 1, now_s
            lines.append((source, reason))
        return lines
