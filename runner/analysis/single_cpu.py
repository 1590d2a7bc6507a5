"""Each test of one processor, applied to a subject: what its answer proves there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.analysis.breakdown import scaling_by_rank, scaling_under_edf
from runner.analysis.demand import Demand, processor_demand, quick_demand
from runner.analysis.edf_response import edf_responses
from runner.analysis.fixed_priority import first_job_late, responses
from runner.analysis.sporadic import Tasks
from runner.analysis.subject import Scheduling, Subject
from runner.analysis.utilization import (
    exceeds,
    hyperbolic,
    hyperbolic_product,
    liu_layland,
    liu_layland_bound,
)
from runner.analysis.verdict import Exactness, Finding, Verdict


def ll(which: Subject) -> Finding | None:
    """Liu and Layland: for rate-monotonic priorities, or EDF, D ≥ T, no jitter and blocking."""
    if not _bounds_apply(which):
        return None
    margin = liu_layland_bound(len(which.tasks)) - _load(which.tasks)
    return _sufficient("ll", liu_layland(which.tasks), margin)


def hb(which: Subject) -> Finding | None:
    """The hyperbolic bound, where that of Liu and Layland applies."""
    if not _bounds_apply(which):
        return None
    return _sufficient("hb", hyperbolic(which.tasks), 2.0 - hyperbolic_product(which.tasks))


def rta(which: Subject) -> Finding | None:
    """Response times under the set's ranks; under EDF, whether deadline-monotonic ranks would do."""
    own = which.scheduling is Scheduling.FIXED_PRIORITY
    if not own and not which.plain:
        return None
    found = responses(which.tasks, which.ranks if own else _deadline_monotonic(which.tasks))
    passed = None if any(one.late is None for one in found) else True
    passed = False if any(one.late for one in found) else passed
    wcrt = [one.wcrt for one in found]
    margin = _slack(which.tasks, wcrt)
    if not own:
        return _sufficient("rta", passed is True, margin)
    horizon = min((one.by for one in found if one.late and one.by is not None), default=None)
    if passed is False and len(set(which.ranks)) < len(which.ranks):
        failing = [idx for idx, one in enumerate(found) if one.late]
        late = [idx for idx in failing if which.worst_case_happens and _surely_late(which, idx)]
        horizon = min((which.tasks[idx].deadline for idx in late), default=None)
        if not late:  # only the bound fails
            open_ = _judged("rta", which, None, margin, None, tuple(wcrt))
            return (
                open_
                if open_.verdict is not Verdict.UNKNOWN
                else replace(open_, exactness=Exactness.SUFFICIENT)
            )
    return _judged("rta", which, passed, margin, horizon, tuple(wcrt))


def edf_utilization(which: Subject) -> Finding | None:
    """U ≤ 1, for D ≥ T (Liu and Layland 1973)."""
    if not which.implicit or not which.plain:
        return None
    passed = not exceeds(which.tasks)
    return _under_edf("edf_utilization", which, Demand(passed), 1.0 - _load(which.tasks))


def pdc(which: Subject) -> Finding | None:
    """The processor demand criterion, at every deadline."""
    found = processor_demand(which.tasks)
    margin = None if found.feasible is None else 1.0 - max(_load(which.tasks), found.peak)
    return _under_edf("pdc", which, found, margin)


def qpa(which: Subject) -> Finding | None:
    """The processor demand criterion, the quick way, which sees the peak only where it decides."""
    found = quick_demand(which.tasks)
    margin = 1.0 - max(_load(which.tasks), found.peak)
    return _under_edf("qpa", which, found, margin if found.feasible is False or which.implicit else None)


def edf_rta(which: Subject) -> Finding | None:
    """Response times under EDF."""
    if which.scheduling is not Scheduling.EDF or not which.plain:
        return None
    wcrt = edf_responses(which.tasks)
    passed: bool | None = not exceeds(which.tasks)
    if passed and None in wcrt:
        passed = None
    elif passed:
        passed = all(
            found is not None and found <= task.deadline
            for found, task in zip(wcrt, which.tasks, strict=True)
        )
    return _judged("edf_rta", which, passed, _slack(which.tasks, wcrt), None, tuple(wcrt))


def breakdown(which: Subject) -> Finding | None:
    """How far each C is from the set's limit: the margin is the critical scaling factor less 1."""
    own = which.scheduling is Scheduling.FIXED_PRIORITY
    found = scaling_by_rank(which.tasks, which.ranks) if own else scaling_under_edf(which.tasks)
    return None if found is None else _judged("breakdown", which, found.holds, found.factor - 1.0, None)


def _bounds_apply(which: Subject) -> bool:
    ordered = which.scheduling is Scheduling.EDF or which.rate_monotonic
    return ordered and which.implicit and which.plain


def _deadline_monotonic(tasks: Tasks) -> list[int]:
    order = sorted(range(len(tasks)), key=lambda idx: tasks[idx].deadline)
    ranks = [0] * len(tasks)
    for rank, idx in enumerate(order):
        ranks[idx] = rank
    return ranks


def _surely_late(which: Subject, idx: int) -> bool:
    """Whether a task's first job misses when all are released together, whatever the bound says."""
    tasks, ranks = which.tasks, which.ranks
    ahead = [task for at, task in enumerate(tasks) if ranks[at] < ranks[idx]]
    once = [task for at, task in enumerate(tasks) if which.in_order and ranks[at] == ranks[idx] and at < idx]
    return first_job_late(tasks[idx], ahead, once) is True


def _judged(  # noqa: PLR0917 - what a finding is made of, in its order
    test: str,
    which: Subject,
    passed: bool | None,
    margin: float | None,
    horizon: int | None,
    wcrt: tuple[int | None, ...] = (),
) -> Finding:
    """What an exact test of the set's own scheduler proves: everything, unless its worst case need not happen."""
    exactness = Exactness.EXACT if which.worst_case_happens else Exactness.SUFFICIENT
    verdict = Verdict.SCHEDULABLE if passed else Verdict.UNKNOWN
    if passed is False and which.worst_case_happens:
        verdict = Verdict.UNSCHEDULABLE
    elif passed is not True and which.overloaded:
        verdict, exactness = Verdict.UNSCHEDULABLE, Exactness.NECESSARY
    sure = verdict is Verdict.UNSCHEDULABLE and which.worst_case_happens
    return _finding(test, which, verdict, margin, wcrt, exactness, horizon if sure else None)


def _under_edf(test: str, which: Subject, found: Demand, margin: float | None) -> Finding | None:
    """What a test of EDF proves: under EDF everything; under fixed priorities, that nothing can schedule the set."""
    if which.scheduling is Scheduling.EDF:
        if any(task.blocking for task in which.tasks):
            return None
        return _judged(test, which, found.feasible, margin, found.overload_at)
    sure = found.feasible is False and which.worst_case_happens
    bad = sure or which.overloaded
    verdict = Verdict.UNSCHEDULABLE if bad else Verdict.UNKNOWN
    horizon = found.overload_at if sure else None
    return _finding(test, which, verdict, margin, (), Exactness.NECESSARY, horizon)


def _sufficient(test: str, passed: bool, margin: float | None) -> Finding:
    verdict = Verdict.SCHEDULABLE if passed else Verdict.UNKNOWN
    return Finding(test=test, n_cpus=1, verdict=verdict, exactness=Exactness.SUFFICIENT, margin=margin)


def _finding(  # noqa: PLR0917 - as above
    test: str,
    which: Subject,
    verdict: Verdict,
    margin: float | None,
    wcrt: tuple[int | None, ...],
    exactness: Exactness,
    horizon: int | None = None,
) -> Finding:
    return Finding(
        test=test,
        n_cpus=which.n_cpus,
        verdict=verdict,
        exactness=exactness,
        margin=margin,
        horizon_ns=horizon,
        wcrt_ns=wcrt,
    )


def _load(tasks: Tasks) -> float:
    return sum(task.wcet / task.period for task in tasks)


def _slack(tasks: Tasks, wcrt: Sequence[int | None]) -> float | None:
    """min(1 − R/D); None where a response has no bound."""
    slacks = [
        1.0 - found / task.deadline for found, task in zip(wcrt, tasks, strict=True) if found is not None
    ]
    return min(slacks) if len(slacks) == len(tasks) else None
