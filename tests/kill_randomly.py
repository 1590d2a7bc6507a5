"""Kill runners at random instants, go on with their runs, and see what is lost: `python -m tests.kill_randomly`.

Each run is ended by SIGKILL somewhere, as the kernel does when memory is short: the runner alone, not what it has started. Then it
is resumed, perhaps killed again, up to three times more, and at last left alone until it is complete. No set may be lost, none be
measured twice, no row of the data differ from those of an undisturbed run, no temporary file be left in the run folder, and no
process two seconds after each kill. `--guests N` does the same to N runs with real guests.

Prints its figures; exit code 1 if anything was found, with the folders of those runs kept.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.crash.cases import Case, Verdict, examine, undisturbed
from tests.crash.forks import Kill, Pool
from tests.crash.report import Table, describe
from tests.crash.subjects import GUESTS, SUBJECTS, Subject

_MAX_FURTHER_KILLS = 3


def main() -> int:
    """Returns the exit code."""
    options = _options()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix="kill-", dir=options.folder))
    table = Table()
    for name, kind, n, n_at_once in (
        ("simulated", SUBJECTS[options.subject], options.runs, options.at_once),
        ("guests", GUESTS[options.subject], options.guests, 1),
    ):
        if n:
            began_s = time.monotonic()
            place = workshop / name
            place.mkdir()
            _kill(name, kind(place), place, Plan(n, n_at_once, options.seed), table)
            print(f"{name}: {n} runs in {time.monotonic() - began_s:.0f} s", flush=True)
    print(table.render())
    if table.good:
        shutil.rmtree(workshop)
        return 0
    print(f"what was found lies in {workshop}")
    return 1


@dataclass(frozen=True)
class Plan:
    """How many runs, how many at a time, and the seed of the instants."""

    n: int
    n_at_once: int
    seed: int


def _kill(name: str, subject: Subject, workshop: Path, plan: Plan, table: Table) -> None:
    if name == "guests":  # what is made once for all runs: the snapshot
        undisturbed(subject, workshop)
    expected, ended = undisturbed(subject, workshop)
    print(f"{name}: {ended.took_s:.2f} s undisturbed", flush=True)
    pool: Pool[Case, Verdict] = Pool(partial(examine, subject, workshop, expected), plan.n_at_once)
    for case, verdict in pool.results(_cases(name, plan, ended.took_s, table)):
        table.add(name, verdict)
        if table.n_cases % 100 == 0:
            print(f"{table.n_cases} runs so far", file=sys.stderr, flush=True)
        if isinstance(verdict, str) or not verdict.good:
            print(f"{case.name}: {describe(verdict)}", flush=True)


def _cases(name: str, plan: Plan, took_s: float, table: Table) -> Iterator[Case]:
    """As many as it takes: some end before they are to be killed."""
    for number in itertools.count():
        if table.n_crashed(name) >= plan.n:
            return
        draw = random.Random(f"{plan.seed} {name} {number}")
        n_kills = 1 + draw.randint(0, _MAX_FURTHER_KILLS)
        yield Case(f"{name}-{number}", tuple(Kill(draw.uniform(0, took_s)) for _ in range(n_kills)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kill_randomly", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs to kill")
    parser.add_argument("--guests", type=int, default=0, help="runs with real guests to kill")
    parser.add_argument("--subject", choices=list(SUBJECTS), default=next(iter(SUBJECTS)))
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="simulated runs at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--folder", type=Path, help="where the runs go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
