"""Crash a run at each of its writes, renames and fsyncs, go on with it, and see what is lost: `python -m tests.crash_every_write`.

A small simulated run, some of whose task sets fail on purpose, is carried out once undisturbed. Then, for each operation on a
file of the run folder and each way to crash (`tests/crash/shim.c`), another is ended at that operation, resumed, and compared
with the first at its end: no set may be lost, none be measured twice, no row and no byte of the data differ, and no temporary
file be left. Every second case crashes a second time, somewhere in the resumed run.

Prints a line per way to crash and kind of operation; exit code 1 if anything was found, with the folders of those cases kept.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.crash.cases import Case, Verdict, examine, undisturbed
from tests.crash.forks import Pool
from tests.crash.injector import LOADED, Crash, Mode, compiled, restart_with_shim
from tests.crash.report import Table, describe
from tests.crash.subjects import SUBJECTS, Subject

#: Operations beyond those of the undisturbed run that are tried: threads interleave differently each time.
_BEYOND = 10


def main() -> int:
    """Returns the exit code."""
    options = _options()
    if LOADED not in os.environ:
        restart_with_shim(compiled(Path(tempfile.mkdtemp(prefix="crash-shim-"))))
    del os.environ["LD_PRELOAD"]
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix="crash-", dir=options.folder))
    subject = SUBJECTS[options.subject](workshop)
    began_s = time.monotonic()
    table = Table()
    for mode in options.mode or list(Mode):
        _crash_everywhere(subject, mode, workshop, options, table)
        print(f"{mode.value}: {table.n_crashed(mode.value)} crashes tried", flush=True)
    print(table.render())
    print(f"{table.n_cases} cases in {time.monotonic() - began_s:.0f} s")
    shutil.rmtree(Path(os.environ[LOADED]).parent)
    if table.good:
        shutil.rmtree(workshop)
        return 0
    print(f"what was found lies in {workshop}")
    return 1


def _crash_everywhere(
    subject: Subject, mode: Mode, workshop: Path, options: argparse.Namespace, table: Table
) -> None:
    expected, ended = undisturbed(subject, workshop, Crash(0, mode))
    n = ended.report.n
    counts = ", ".join(f"{n} {kind}" for kind, n in ended.report.by_kind.items() if n)
    print(f"{mode.value}: {n} operations undisturbed: {counts}", flush=True)
    pool: Pool[Case, Verdict] = Pool(partial(examine, subject, workshop, expected), options.at_once)
    for case, verdict in pool.results(_cases(mode, n, options)):
        table.add(mode.value, verdict)
        if isinstance(verdict, str) or not verdict.good:
            print(f"{case.name}: {describe(verdict)}", flush=True)


def _cases(mode: Mode, n: int, options: argparse.Namespace) -> Iterator[Case]:
    for at in range(1 + options.seed % options.every, n + _BEYOND, options.every):
        ends = [Crash(at, mode, at)]
        if at % 2:
            draw = random.Random(f"{options.seed} {mode.value} {at}")
            ends.append(Crash(draw.randrange(1, n), mode, at))
        yield Case(f"{mode.value}-{at}", tuple(ends))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_every_write", description=__doc__)
    parser.add_argument(
        "--mode",
        action="append",
        type=Mode,
        choices=list(Mode),
        metavar="|".join(mode.value for mode in Mode),
        help="how to crash; may be given several times; all of them by default",
    )
    parser.add_argument("--every", type=int, default=1, help="crash at every k-th operation only")
    parser.add_argument("--subject", choices=list(SUBJECTS), default=next(iter(SUBJECTS)))
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="cases at a time")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the second crashes, and where to begin counting"
    )
    parser.add_argument("--folder", type=Path, help="where the runs go; a RAM disk is fastest")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
