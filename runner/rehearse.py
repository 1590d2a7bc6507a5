"""Rehearse what can go wrong, with a config of the user's: `python -m runner.rehearse [overrides]`."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from runner.data.reuse import RESULTS_NAME
from runner.errors import HostError, RunnerError, UsageError
from runner.exit_codes import ExitCode, exit_code_of
from runner.rehearsal.catalogue import FAULTS, named
from runner.rehearsal.comparison import read_data_set
from runner.rehearsal.fault import DONE, Fault, Injection
from runner.rehearsal.private_cache import make_cache
from runner.rehearsal.processes import adopt_orphans
from runner.rehearsal.setup import Setup, compose
from runner.rehearsal.trial import Reference, Trial, attempt, planned, refer

_N_SETS = 6
_TAIL_LINES = 20
_COLUMNS = ("fault", "injected", "noticed after (at most)", "recovery", "ended", "verdict")
_WIDTHS = (18, 24, 23, 38, 8, 7)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0 where the run survives every fault, 1 where it does not."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.rehearse",
        description="Run the first task sets of a config once undisturbed, then once for each fault, and check after each that"
        " nothing is lost, doubled or left behind, and that the data are the same.",
        epilog=f"Everything else is for the runner: overrides, --config-dir. Faults: {', '.join(one.name for one in FAULTS)}.",
        allow_abbrev=False,
    )
    parser.add_argument("--faults", default="", metavar="A,B,…", help="these only")
    parser.add_argument(
        "--pairs", action="store_true", help="every two of them in one run, instead of each alone"
    )
    parser.add_argument("--seed", type=int, default=1, help="of where and how they happen (default: 1)")
    parser.add_argument(
        "--sets", type=int, default=_N_SETS, metavar="N", help=f"the first N task sets (default: {_N_SETS})"
    )
    parser.add_argument(
        "--list", action="store_true", help="say what each fault is, and by when it must be noticed, and why"
    )
    options, overrides = parser.parse_known_args(arguments)
    if options.list:
        print("\n".join(f"{one.name}: {one.what}\n    {one.source}" for one in FAULTS))
        return ExitCode.OK
    folder = Path(tempfile.mkdtemp(prefix="rtfleet-rehearsal-"))
    survives = False
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        faults = named(options.faults)
        setup = compose(overrides, max(1, options.sets))
        adopt_orphans()
        make_cache(folder / "cache")
        survives = rehearse(setup, faults, folder, pairs=options.pairs, seed=options.seed)
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        survives = True  # nothing is kept of what was not run
        return exit_code_of(exc)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        survives = True
        return ExitCode.STOPPED
    finally:
        if survives:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"the runs that did not survive are kept: {folder}")
    return ExitCode.OK if survives else ExitCode.BUG


def rehearse(setup: Setup, faults: Sequence[Fault], folder: Path, *, pairs: bool, seed: int) -> bool:
    """Try the faults that apply, one after the other or two at a time, and print a table; whether the run survives all.

    Raises:
        RunnerError: the run does not even survive without a fault.
    """
    apply = [one for one in faults if not _reason(one, setup)]
    for one in faults:
        if reason := _reason(one, setup):
            print(f"{one.name} does not apply: {reason}")
    reference = _reference(setup, folder / "reference")
    print(
        f"undisturbed: {len(reference.data.measured)} measurements in {reference.took_s:.1f} s, exit code {reference.code};"
        f" data are compared {'bit for bit' if setup.repeats else 'by what is done'}"
    )
    _print_row(_COLUMNS)
    groups = list(combinations(apply, 2)) if pairs else [(one,) for one in apply]
    n_sets = len({place[1] for place in reference.data.measured}) + reference.data.n_bad
    n_failed = 0
    for number, group in enumerate(groups, 1):
        trial = attempt(setup, planned(group, n_sets, seed), folder / f"{number}", reference)
        _print_trial(trial, setup)
        n_failed += bool(trial.problems)
        if not trial.problems:
            shutil.rmtree(trial.folder, ignore_errors=True)
    print(f"{len(groups) - n_failed} of {len(groups)} survived")
    return n_failed == 0


def _reason(fault: Fault, setup: Setup) -> str:
    return fault.applies_to(setup)


def _reference(setup: Setup, folder: Path) -> Reference:
    began_s = time.monotonic()
    code, output = refer(setup, folder)
    took_s = time.monotonic() - began_s
    if code not in DONE:
        words = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        kinds: dict[int, type[RunnerError]] = {ExitCode.USAGE: UsageError, ExitCode.HOST: HostError}
        kind = kinds.get(code, RunnerError)
        raise kind(
            f"the run ends with exit code {code} without any fault",
            evidence="\n".join(words),
            next_step="see that it runs by itself first: python -m runner with the same arguments",
        )
    data = read_data_set(folder / "run" / RESULTS_NAME)
    shutil.rmtree(folder, ignore_errors=True)
    return Reference(code=code, data=data, took_s=took_s)


def _print_trial(trial: Trial, setup: Setup) -> None:
    for one in trial.injections:
        last = one is trial.injections[-1]
        _print_row(
            (
                one.fault.name if one is trial.injections[0] else f"+ {one.fault.name}",
                one.place or "-",
                _noticed(one, setup),
                _recovery(trial) if last else "",
                ", ".join(str(code) for code in trial.codes) if last else "",
                ("FAILS" if trial.problems else "ok") if last else "",
            )
        )
    for problem in trial.problems:
        print(f"    {problem}")


def _noticed(one: Injection, setup: Setup) -> str:
    deadline_s = one.fault.deadline_s(setup, one)
    if deadline_s is None:
        return "not to be noticed"
    took = "never" if one.took_s is None else f"{one.took_s:.2f} s"
    return f"{took} ({deadline_s:g} s)"


def _recovery(trial: Trial) -> str:
    done = []
    if trial.n_failed:
        done.append(f"{trial.n_failed} tried again")
    done += sorted(set(trial.recoveries))
    if len(trial.codes) > 1:
        done.append(f"resumed {len(trial.codes) - 1}x")
    return ", ".join(done) or "none needed"


def _print_row(cells: Sequence[str]) -> None:
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]
    print("  ".join(padded).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
