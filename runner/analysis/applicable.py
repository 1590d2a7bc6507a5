"""Which tests apply to a task set, and what each of them proves of it: decided here, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from runner.analysis import single_cpu
from runner.analysis.global_edf import bcl, gfb, gfb_margin
from runner.analysis.subject import Scheduling, Subject, subject
from runner.analysis.verdict import Exactness, Finding, Verdict
from runner.model import TaskSet

_Test = Callable[[Subject], Finding | None]
_INT64_MAX = (1 << 63) - 1


def analyse(
    taskset: TaskSet,
    *,
    n_cpus: int = 1,
    tests: Iterable[str] | None = None,
    blockings_ns: Sequence[int] = (),
) -> tuple[Finding, ...]:
    """Apply every test that says something of the set as it is scheduled.

    Guarantees: never raises for a valid set; the verdicts depend on nothing but the arguments; the work is bounded, whatever the periods.
    One processor: all tests of fixed priorities and of EDF. A test of the other scheduler is kept for what it proves here: EDF is optimal,
    so what it cannot schedule nothing can (`necessary`), and what fixed priorities can, EDF can (`sufficient`). Several processors:
    the tests of global EDF, or, where each task is bound to one processor, each processor by itself.

    Args:
        n_cpus: Processors that the set runs on.
        tests: Names of `TESTS`; None: `CHEAP_TESTS`.
        blockings_ns: B per task; empty: none.
    """
    names = CHEAP_TESTS if tests is None else tuple(tests)
    parts = _partitioned(taskset, blockings_ns) if n_cpus > 1 else None
    if parts is None:
        whole = subject(taskset, n_cpus=n_cpus, blockings_ns=blockings_ns)
        parts = (
            [] if whole is None or _is_bound(taskset, n_cpus) else [(tuple(range(len(whole.tasks))), whole)]
        )
    found = []
    for name in names:
        began_s = time.perf_counter()
        finding = _apply(TESTS[name], parts, len(taskset.tasks))
        if finding is not None:
            wall_us = (time.perf_counter() - began_s) * 1e6
            found.append(replace(finding, n_cpus=n_cpus, wall_us=wall_us))
    return tuple(found)


_Parts = list[tuple[tuple[int, ...], Subject]]


def _is_bound(taskset: TaskSet, n_cpus: int) -> bool:
    """Whether some task may run on some of several processors only: no test here is about that."""
    return n_cpus > 1 and any(task.cpu_affinity for task in taskset.tasks)


def _partitioned(taskset: TaskSet, blockings_ns: Sequence[int]) -> _Parts | None:
    """One subject per processor where each task is bound to one; None where not, or where a part cannot be analysed."""
    cpus: dict[int, list[int]] = {}
    for idx, task in enumerate(taskset.tasks):
        if len(task.cpu_affinity) != 1:
            return None
        cpus.setdefault(task.cpu_affinity[0], []).append(idx)
    parts: _Parts = []
    for members in cpus.values():
        part = subject(
            replace(taskset, tasks=tuple(taskset.tasks[idx] for idx in members), choices={}),
            blockings_ns=[blockings_ns[idx] for idx in members] if blockings_ns else (),
        )
        if part is None:
            return None
        parts.append((tuple(members), part))
    return parts


def _apply(test: _Test, parts: _Parts, n_tasks: int) -> Finding | None:
    """One test on every part: all must be schedulable, and one that is not is enough."""
    found = [test(part) for _, part in parts]
    sure = [one for one in found if one is not None]
    if not sure or len(sure) < len(found):
        return None
    whole = sure[0] if len(sure) == 1 else _joined(sure)
    numbers = (whole.horizon_ns, *(value for one in sure for value in one.wcrt_ns))
    if len(sure) == 1 and all(value is None or value <= _INT64_MAX for value in numbers):
        return whole
    wcrt_ns: list[int | None] = [None] * n_tasks
    for (members, _), one in zip(parts, sure, strict=True):
        for idx, value in zip(members, one.wcrt_ns, strict=False):
            wcrt_ns[idx] = _stored(value)
    return replace(
        whole,
        horizon_ns=_stored(whole.horizon_ns),
        wcrt_ns=tuple(wcrt_ns) if any(one.wcrt_ns for one in sure) else (),
    )


def _stored(value: int | None) -> int | None:
    return value if value is not None and value <= _INT64_MAX else None


def _joined(found: Sequence[Finding]) -> Finding:
    """What the findings of all processors come to."""
    failed = [one for one in found if one.verdict is Verdict.UNSCHEDULABLE]
    if failed:
        horizons = [one.horizon_ns for one in failed if one.horizon_ns is not None]
        return replace(failed[0], margin=_least(found), horizon_ns=min(horizons, default=None))
    weak = [one for one in found if one.verdict is Verdict.UNKNOWN]
    exactness = next(
        (one.exactness for one in found if one.exactness is not Exactness.EXACT), Exactness.EXACT
    )
    return replace((weak or found)[0], margin=_least(found), exactness=exactness)


def _least(found: Sequence[Finding]) -> float | None:
    margins = [one.margin for one in found if one.margin is not None]
    return min(margins) if len(margins) == len(found) else None


def _on_one_cpu(test: _Test) -> _Test:
    return lambda which: test(which) if which.n_cpus == 1 else None


def _gfb(which: Subject) -> Finding | None:
    if not _is_global_edf(which):
        return None
    return _global("gfb", which, gfb(which.tasks, which.n_cpus), float(gfb_margin(which.tasks, which.n_cpus)))


def _bcl(which: Subject) -> Finding | None:
    if not _is_global_edf(which) or not which.constrained:
        return None
    return _global("bcl", which, bcl(which.tasks, which.n_cpus))


def _is_global_edf(which: Subject) -> bool:
    return which.n_cpus > 1 and which.scheduling is Scheduling.EDF and which.plain


def _global(test: str, which: Subject, passed: bool, margin: float | None = None) -> Finding:
    verdict, exactness = Verdict.SCHEDULABLE if passed else Verdict.UNKNOWN, Exactness.SUFFICIENT
    if which.overloaded:
        verdict, exactness = Verdict.UNSCHEDULABLE, Exactness.NECESSARY
    return Finding(test=test, n_cpus=which.n_cpus, verdict=verdict, exactness=exactness, margin=margin)


#: Every test, by its name in the tables.
TESTS: Mapping[str, _Test] = MappingProxyType(
    {
        "ll": _on_one_cpu(single_cpu.ll),
        "hb": _on_one_cpu(single_cpu.hb),
        "rta": _on_one_cpu(single_cpu.rta),
        "edf_utilization": _on_one_cpu(single_cpu.edf_utilization),
        "pdc": _on_one_cpu(single_cpu.pdc),
        "qpa": _on_one_cpu(single_cpu.qpa),
        "edf_rta": _on_one_cpu(single_cpu.edf_rta),
        "breakdown": _on_one_cpu(single_cpu.breakdown),
        "gfb": _gfb,
        "bcl": _bcl,
    }
)
#: Those that each measured set is looked at with; some tenths of a millisecond in all.
CHEAP_TESTS = ("ll", "hb", "rta", "qpa", "gfb", "bcl")
