"""Check a run's ledger: `python -m runner.check RUN_FOLDER`, at any time, also while the run goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.data.audit import Audit, audit
from runner.data.reuse import RESULTS_NAME
from runner.errors import RunnerError
from runner.exit_codes import ExitCode, exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0 where the ledger is sound, 1 where it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.check",
        description="Check that a run's ledger is sound: submitted = done + bad + pending, every task set once, its data whole.",
        epilog="A run that goes on may be checked, too. Exit code 1: it is not sound.",
    )
    parser.add_argument("run", type=Path, help="a run folder, or its results.sqlite")
    parser.add_argument("--quick", action="store_true", help="do not compare job tables with their digests")
    options = parser.parse_args(arguments)
    path = options.run / RESULTS_NAME if options.run.is_dir() else options.run
    try:
        found = audit(path, digests=not options.quick)
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    print("\n".join(lines_of(found)))
    for violation in found.violations:
        print(f"not sound: {violation}", file=sys.stderr)
    return ExitCode.BUG if found.violations else ExitCode.OK


def lines_of(found: Audit) -> list[str]:
    """The account as it is printed."""
    if not found.accounts:
        return ["nothing was submitted"]
    lines = [
        f"submission {one.submission} ({one.source}): {one.n_submitted}{'' if one.complete else ' so far'} submitted"
        f" = {one.n_done} done + {one.n_bad} bad + {one.n_pending} pending"
        for one in found.accounts
    ]
    state = "not sound" if found.violations else "sound"
    return [*lines, f"{found.n_runs} runs, {found.n_jobs} jobs: {state}"]


if __name__ == "__main__":
    sys.exit(main())
