"""Random task sets on which theory and the simulation must agree, without exception: `python -m tests.agreement [--sets N]`.

On each set, with all tasks released together: the exact tests (RTA under fixed priorities; QPA, the processor demand criterion and EDF's
response times under EDF) say what the simulation sees over a hyperperiod; no simulated response exceeds its bound, and the first
one under fixed priorities attains it; and the dominance LL => HB => RTA => EDF => U <= 1 holds. The test suite does a share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from runner.analysis import Finding, SporadicTask, Verdict, analyse
from runner.events import JobEvent
from runner.model import Policy, Task, TaskSet
from runner.simulator import Simulation
from runner.units import NS_PER_MS

_PERIODS = (4, 5, 6, 8, 10, 12, 15, 20)
_HYPERPERIOD = 120
_EXACT = {Policy.FIFO: ("rta",), Policy.DEADLINE: ("qpa", "pdc", "edf_rta")}
_N_DEFAULT = 10_000


def random_sets(seed: int, n_sets: int, *, constrained: bool) -> Iterator[list[SporadicTask]]:
    """Sets of one to four tasks, .5 <= U <= 1.1 before C is rounded, in the order of their deadlines; hyperperiods divide 120."""
    rng = np.random.default_rng(seed)
    for _ in range(n_sets):
        n = int(rng.integers(1, 5))
        periods = rng.choice(_PERIODS, n)
        shares = rng.dirichlet(np.ones(n)) * rng.uniform(0.5, 1.1)
        tasks = []
        for share, period in zip(shares, periods, strict=True):
            cost = max(1, round(float(share * period)))
            shortest = min(cost, int(period)) if constrained else int(period)
            tasks.append(SporadicTask(cost, int(period), int(rng.integers(shortest, period + 1))))
        yield sorted(tasks, key=lambda task: task.deadline)


def simulated(taskset: TaskSet) -> tuple[bool, list[int]]:
    """Whether a job missed, and the worst response of each task."""
    missed, worst_ns = False, [0] * len(taskset.tasks)
    for event in Simulation(taskset).events():
        if isinstance(event, JobEvent):
            missed = missed or bool(event.job.missed(taskset))
            idx = event.job.task_idx
            worst_ns[idx] = max(worst_ns[idx], event.job.response_ns or 0)
    return missed, worst_ns


def as_taskset(tasks: list[SporadicTask], policy: Policy) -> TaskSet:
    """Released together, for two hyperperiods: what is late in the first ends in the second, or never."""
    members = tuple(
        Task(
            period_ns=task.period * NS_PER_MS,
            wcet_ns=task.wcet * NS_PER_MS,
            deadline_ns=task.deadline * NS_PER_MS,
            priority_rank=rank,
            policy=policy,
            n_jobs=2 * _HYPERPERIOD // task.period,
        )
        for rank, task in enumerate(tasks)
    )
    return TaskSet(members, admission_control=False)


def contradictions(tasks: list[SporadicTask]) -> list[str]:
    """What does not hold for a set, in words; SCHED_DEADLINE is left out where a C is longer than its deadline, which Linux refuses."""
    found, met = [], set[Policy]()
    for policy, exact in _EXACT.items():
        if policy is Policy.DEADLINE and any(task.wcet > task.deadline for task in tasks):
            continue
        taskset = as_taskset(tasks, policy)
        findings = {one.test: one for one in analyse(taskset, tests=("ll", "hb", *exact, "edf_utilization"))}
        missed, worst_ns = simulated(taskset)
        expected = Verdict.UNSCHEDULABLE if missed else Verdict.SCHEDULABLE
        found += [
            f"{policy}: {name} says {findings[name].verdict}, simulated it is {expected}"
            for name in exact
            if findings[name].verdict is not expected
        ]
        found += _beyond(findings[exact[-1]], worst_ns, attained=policy is Policy.FIFO)
        found += _dominance(findings, missed=missed)
        if not missed:
            met.add(policy)
        elif Policy.FIFO in met:
            found.append("fixed priorities meet all deadlines, EDF does not")
    return found


def _beyond(finding: Finding, worst_ns: list[int], *, attained: bool) -> Iterator[str]:
    for idx, (bound_ns, seen_ns) in enumerate(zip(finding.wcrt_ns, worst_ns, strict=True)):
        if bound_ns is not None and (seen_ns > bound_ns or (attained and seen_ns < bound_ns)):
            yield f"{finding.test}: task {idx} has the bound {bound_ns} ns, simulated {seen_ns} ns"


def _dominance(findings: dict[str, Finding], *, missed: bool) -> Iterator[str]:
    """Where a weaker test passes, the stronger ones do."""
    passes = {name: one.verdict is Verdict.SCHEDULABLE for name, one in findings.items()}
    if passes.get("ll") and not passes["hb"]:
        yield "LL passes, HB does not"
    if passes.get("hb") and missed:
        yield "HB passes, and a job misses"
    utilization = findings.get("edf_utilization")
    if not missed and utilization is not None and utilization.verdict is Verdict.UNSCHEDULABLE:
        yield "no job misses with U > 1"


def main() -> int:
    """Half of the sets with implicit deadlines, half with constrained ones; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=_N_DEFAULT)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    n_wrong = 0
    for constrained in (False, True):
        for tasks in random_sets(options.seed, options.sets // 2, constrained=constrained):
            wrong = contradictions(tasks)
            n_wrong += bool(wrong)
            if wrong:
                print(tasks, *wrong, sep="\n  ")
    print(f"{options.sets // 2 * 2} random sets: {n_wrong} on which the oracles differ")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
