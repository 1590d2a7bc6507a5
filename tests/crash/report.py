"""The table of what crashes came to."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.crash.cases import Verdict

_COLUMNS = ("cases", "resumed", "anew", "lost", "doubled", "differing", "wrong")
#: Of the cases whose run had ended before the crash was due.
NO_CRASH = "(after the end)"


def describe(verdict: Verdict | str) -> str:
    """What was found, in a line; or a traceback."""
    if isinstance(verdict, str):
        return verdict
    found = [f"crashed at {verdict.kind or NO_CRASH} {verdict.path}".rstrip()]
    found += [f"{n} {name}" for name, n in (("lost", verdict.n_lost), ("doubled", verdict.n_doubled)) if n]
    found += [f"differs: {', '.join(verdict.differing)}"] if verdict.differing else []
    return "; ".join([*found, *verdict.wrong])


class Table:
    """Counts, by the way to crash and the kind of operation."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, mode: str, verdict: Verdict | str) -> None:
        """Count a case; a text is why it could not be examined."""
        if isinstance(verdict, str):
            verdict = Verdict(wrong=[verdict])
        row = self._rows[mode, verdict.kind or NO_CRASH]
        row["cases"] += 1
        row["resumed"] += verdict.n_resumed
        row["anew"] += verdict.n_anew
        row["lost"] += verdict.n_lost
        row["doubled"] += verdict.n_doubled
        row["differing"] += bool(verdict.differing)
        row["wrong"] += bool(verdict.wrong)

    @property
    def n_cases(self) -> int:
        """All of them."""
        return sum(row["cases"] for row in self._rows.values())

    def n_crashed(self, mode: str) -> int:
        """Those of one way to crash that had not ended before."""
        return sum(
            row["cases"] for (one, kind), row in self._rows.items() if one == mode and kind != NO_CRASH
        )

    @property
    def good(self) -> bool:
        """Whether nothing was found in any case."""
        return not any(row[name] for row in self._rows.values() for name in _COLUMNS[3:])

    def render(self) -> str:
        """The table, as text."""
        lines: list[tuple[str, ...]] = [("mode", "operation", *_COLUMNS)]
        for (mode, kind), row in sorted(self._rows.items()):
            lines.append((mode, kind, *(str(row[name]) for name in _COLUMNS)))
        total = sum(self._rows.values(), Counter[str]())
        lines.append(("all", "", *(str(total[name]) for name in _COLUMNS)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                text.ljust(width) if place < 2 else text.rjust(width)
                for place, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
