"""What the machines did over time: when each measured, and what came between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from runner.data.history import DataSet
from runner.report.statistics import Numbers, busy_share

_BINS = 240
# An attempt that is longer than its machine had until its next one is told as it was.
_SPANS = "SELECT started_utc, wall_s FROM runs WHERE machine = ? AND reused_from IS NULL ORDER BY started_utc"
_MACHINES = (
    "SELECT machine, count(*) FROM runs GROUP BY 1 UNION ALL SELECT DISTINCT machine, 0 FROM incidents"
)
_INCIDENTS = "SELECT machine, utc, fault FROM incidents ORDER BY seq LIMIT 5000"
_CHUNK_ROWS = 1 << 15


@dataclass(frozen=True)
class Machine:
    """One machine over the time of a run.

    Attributes:
        busy: The share of each interval in which it measured.
        incidents_s: When something went wrong, and whose fault it was.
    """

    name: str
    n_attempts: int
    busy_s: float
    busy: Numbers
    incidents_s: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Fleet:
    """All machines on one time axis.

    Attributes:
        edges_s: Of the intervals, in seconds after the first attempt began.
        begun: When that was; None if there is none.
    """

    machines: tuple[Machine, ...]
    edges_s: Numbers
    begun: datetime | None


def read_fleet(database: DataSet) -> Fleet:
    """Spans of one machine at a time, so that memory does not grow with the fleet."""
    counts: dict[str, int] = {}
    for machine, n in database.execute(_MACHINES):
        counts[machine] = counts.get(machine, 0) + n
    troubles: dict[str, list[tuple[float, str]]] = {}
    for machine, utc, fault in database.execute(_INCIDENTS):
        troubles.setdefault(machine, []).append((instant_s(utc), fault))
    spans = {name: _spans(database, name) for name in sorted(counts, key=lambda name: (len(name), name))}
    instants = [float(part[:, 0].min()) for part in spans.values() if len(part)]
    instants += [at for found in troubles.values() for at, _ in found]
    if not instants:
        return Fleet((), np.zeros(2), None)
    begun_s = min(instants)
    ends = [float(part[:, 1].max()) for part in spans.values() if len(part)]
    end_s = max([*ends, *instants, begun_s + 1e-3])
    edges_s = np.linspace(0.0, end_s - begun_s, _BINS + 1)
    machines = []
    for name, part in spans.items():
        starts_s, ends_s = part[:, 0] - begun_s, part[:, 1] - begun_s
        share = busy_share(starts_s, ends_s, edges_s)
        found = tuple((at - begun_s, fault) for at, fault in troubles.get(name, ()))
        machines.append(Machine(name, counts[name], float((ends_s - starts_s).sum()), share, found))
    return Fleet(tuple(machines), edges_s, datetime.fromtimestamp(begun_s).astimezone())


def _spans(database: DataSet, machine: str) -> Numbers:
    """Begin and end of each attempt, in seconds since 1970; one ends at the latest when the next begins."""
    rows = np.array(list(_instants(database, machine)), dtype=np.float64).reshape(-1, 2)
    if len(rows):
        rows[:-1, 1] = np.minimum(rows[:-1, 1], rows[1:, 0])
    return rows


def _instants(database: DataSet, machine: str) -> Iterator[tuple[float, float]]:
    for utc, wall_s in database.execute(_SPANS, (machine,)):
        start_s = instant_s(utc)
        yield start_s, start_s + max(0.0, wall_s)


def instant_s(utc: str) -> float:
    """Seconds since 1970.

    Raises:
        ValueError: when it is no time.
    """
    return datetime.fromisoformat(utc).timestamp()
