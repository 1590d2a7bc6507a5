"""One trial: a run, the faults that happen to it, as many resumptions as they make necessary, and what came of it all."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.data.reuse import RESULTS_NAME
from runner.errors import RunnerError
from runner.rehearsal.comparison import DataSet, differences, read_data_set
from runner.rehearsal.fault import DONE, Fault, Injection
from runner.rehearsal.leftovers import fingerprint, leftovers
from runner.rehearsal.scene import Scene
from runner.rehearsal.setup import Setup

# Whatever a run without faults takes, one with faults may take so much more, beside their deadlines.
_SLOWER, _MORE_S = 10.0, 120.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The run without faults.

    Attributes:
        code: How it ended.
        data: What it yielded.
        took_s: How long it took.
    """

    code: int
    data: DataSet
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a run with faults.

    Attributes:
        injections: The faults.
        codes: How the run ended, and each of its resumptions.
        recoveries: What machines did to be of use again.
        n_failed: Attempts that came to nothing.
        problems: What is wrong, a sentence each; empty where the run survives.
        took_s: How long it took.
        folder: Where it lies.
    """

    injections: tuple[Injection, ...]
    codes: tuple[int, ...]
    recoveries: tuple[str, ...]
    n_failed: int
    problems: tuple[str, ...]
    took_s: float
    folder: Path


def refer(setup: Setup, folder: Path) -> tuple[int, Path]:
    """Run without faults; the exit code, and where its output is."""
    with Scene(setup, folder) as scene:
        return scene.run(resumes=False, limit_s=float("inf")), scene.output


def planned(faults: Sequence[Fault], n_sets: int, seed: int) -> tuple[Injection, ...]:
    """When faults happen: after the first set, and as long before the last as each needs, as far as there are so many."""
    names = "+".join(one.name for one in faults)
    rng = random.Random(f"{seed} {names}")  # noqa: S311 - to be repeated, not to be secret
    return tuple(_planned(fault, n_sets, rng) for fault in faults)


def _planned(fault: Fault, n_sets: int, rng: random.Random) -> Injection:
    last = max(1, n_sets - fault.n_after)
    return Injection(fault, at=rng.randint(min(2, last), last), seed=rng.getrandbits(32))


def attempt(setup: Setup, injections: tuple[Injection, ...], folder: Path, reference: Reference) -> Trial:
    """Run with faults, and resume until everything is measured."""
    before, began_s = fingerprint(), time.monotonic()
    problems: list[str] = []
    codes: list[int] = []
    with Scene(setup, folder, injections) as scene:
        limit_s = reference.took_s * _SLOWER + _MORE_S
        limit_s += sum(one.fault.deadline_s(setup, one) or 0.0 for one in injections)
        try:
            while True:
                codes.append(scene.run(resumes=bool(codes), limit_s=limit_s))
                problems += leftovers(scene.paths.folder, scene.temporary, killed=codes[-1] < 0)
                if codes[-1] in DONE or codes[-1] not in _exits(injections) or len(codes) > len(injections):
                    break
        except TimeoutError as exc:
            problems.append(str(exc))
    found = _read(scene.paths.folder / RESULTS_NAME, problems)
    if found is not None:
        problems += differences(found, reference.data, repeats=setup.repeats)
    if not codes or codes[-1] != reference.code:
        problems.append(
            f"it ended with {codes[-1] if codes else 'nothing'}, and with {reference.code} without faults"
        )
    problems += [problem for one in injections if (problem := _unnoticed(one, setup))]
    if (after := fingerprint()) != before:
        problems.append(f"threads and descriptors of the rehearsal: {before} before, {after} after")
    return Trial(
        injections=injections,
        codes=tuple(codes),
        recoveries=found.recoveries if found is not None else (),
        n_failed=found.n_failed if found is not None else 0,
        problems=tuple(problems),
        took_s=time.monotonic() - began_s,
        folder=folder,
    )


def _exits(injections: Sequence[Injection]) -> set[int]:
    return {code for one in injections if one.injected_s is not None for code in one.fault.exits}


def _read(path: Path, problems: list[str]) -> DataSet | None:
    try:
        return read_data_set(path)
    except RunnerError as exc:
        problems.append(exc.what)
        return None


def _unnoticed(one: Injection, setup: Setup) -> str:
    """What is wrong with when it was noticed; empty if nothing is."""
    if one.injected_s is None:
        return f"{one.fault.name} did not come about"
    deadline_s = one.fault.deadline_s(setup, one)
    if deadline_s is None:
        return ""
    if one.took_s is None:
        return f"{one.fault.name} was not noticed"
    late = one.took_s > deadline_s
    return (
        f"{one.fault.name} was noticed after {one.took_s:.1f} s, later than {deadline_s:g} s" if late else ""
    )
