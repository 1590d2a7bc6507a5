"""Mutated inputs for everything that reads: `python -m tests.mutations`. Ends with 1 if any was answered wrongly."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.mutations.feeder import Tally, Verdict, feed, feed_kind, last_line
from tests.mutations.kinds import KINDS

COMMAND = "python -m tests.mutations"


def main() -> int:
    """Feed, and report."""
    asked = _arguments()
    kinds = [KINDS[name] for name in asked.kind or KINDS]
    if asked.replay is not None:
        if len(kinds) != 1:
            print("--replay takes one --kind", file=sys.stderr)
            return 2
        ((verdict, _),) = feed(kinds[0], seed=0, indices=[-1], data=asked.replay.read_bytes())
        print(verdict.wrong or verdict.answer)
        return 1 if verdict.wrong else 0
    total = sum(kind.share for kind in kinds)
    tallies = []
    print(f"seed {asked.seed}, {asked.workers} workers")
    print(_row("kind", "inputs", "accepted", "refused", "wrong", "CPU", "slowest", "refusals"))
    for kind in kinds:
        count = max(1, round(asked.count * kind.share / total))
        tallies.append(
            feed_kind(
                kind, count=count, seed=asked.seed, n_workers=asked.workers, reproducers=asked.reproducers
            )
        )
        print(_told(tallies[-1]), flush=True)
    n_wrong = sum(len(tally.wrong) for tally in tallies)
    print(f"{sum(tally.n_inputs for tally in tallies)} inputs, {n_wrong} wrong")
    for tally in tallies:
        for number, verdict, path in _distinct(tally):
            again = f"{COMMAND} --kind {tally.kind.name} --replay {path}"
            print(f"\n{verdict.wrong.strip()[-3000:]}\n  {number} like this; again: {again}")
    return 1 if n_wrong else 0


def _distinct(tally: Tally) -> Iterator[tuple[int, Verdict, Path]]:
    """Of those that went wrong in the same way, the smallest, and how many there are."""
    alike: dict[str, list[tuple[Verdict, Path]]] = {}
    for verdict, path in tally.wrong:
        frames = re.findall(r'File "(\S+)", line (\d+)', verdict.wrong)
        own = [frame for frame in frames if "/runner/" in frame[0]] or frames
        way = f"{own[-1:]} {last_line(verdict.wrong).partition(':')[0]}"
        alike.setdefault(way, []).append((verdict, path))
    for group in alike.values():
        verdict, path = min(group, key=lambda one: one[1].stat().st_size)
        yield len(group), verdict, path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--count", type=int, default=100_000, help="inputs, divided among the kinds (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other inputs (%(default)s)")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this one; may be repeated")
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="at a time (%(default)s)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed one input that went wrong again")
    parser.add_argument(
        "--reproducers",
        type=Path,
        metavar="FOLDER",
        default=Path("outputs/mutations"),
        help="where inputs that went wrong are left (%(default)s)",
    )
    return parser.parse_args()


def _row(*words: object) -> str:
    name, inputs, accepted, refused, wrong, took, slowest, rest = words
    return f"{name:<13}{inputs:>8}{accepted:>10}{refused:>9}{wrong:>7}{took:>7}{slowest:>9}  {rest}"


def _told(tally: Tally) -> str:
    refusals = ", ".join(f"{name} {n}" for name, n in tally.refused.most_common())
    return _row(
        tally.kind.name,
        tally.n_inputs,
        tally.accepted.total(),
        tally.refused.total(),
        len(tally.wrong),
        f"{tally.took_s:.0f} s",
        f"{tally.slowest.took_s:.2f} s",
        refusals,
    )


if __name__ == "__main__":
    raise SystemExit(main())
