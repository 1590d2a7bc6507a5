"""Random task sets of a given utilization."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from runner.errors import UsageError
from runner.model import OverrunPolicy, Policy, Provenance, Task, TaskSet, rank_by
from runner.model.task import MAX_JOBS_PER_TASK
from runner.model.taskset import MAX_PRIORITY_LEVELS, MAX_TASKS
from runner.tasksets.written import member, time_ns
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS, NS_PER_US

# The kernel takes no SCHED_DEADLINE runtime below 1,024 ns; the same floor for all policies keeps the sets comparable.
MIN_WCET_NS = 2 * NS_PER_US
# Below this, redrawing until every task fits takes too long: 10,000 draws a set.
MIN_ACCEPTANCE = 1e-4
MAX_SETS = 10**12
MAX_SEED_BITS = 128
MAX_MARGIN = 1000
MAX_PERIODS = 1000
MAX_HYPERPERIOD_BITS = 512


def uunifast(n_tasks: int, utilization: float, uniform: Callable[[], float]) -> list[float]:
    """Utilizations with the given sum, uniform over all that have it: UUniFast (Bini and Buttazzo 2005).

    `uniform` yields numbers in [0, 1). A share exceeds 1 only if the sum does.
    """
    shares, left = [], utilization
    for n_left in range(n_tasks - 1, 0, -1):
        rest = left * uniform() ** (1.0 / n_left)
        shares.append(left - rest)
        left = rest
    return [*shares, left]


def acceptance_probability(n_tasks: int, utilization: float) -> float:
    """How likely one draw of UUniFast has no share above 1 (inclusion and exclusion over the corners of the simplex)."""
    if utilization <= 1:
        return 1.0
    if utilization >= n_tasks:
        return 0.0
    return math.fsum(
        (-1) ** k * math.comb(n_tasks, k) * (1 - k / utilization) ** (n_tasks - 1)
        for k in range(math.floor(utilization) + 1)
    )


class UUniFastTaskSets:
    """Task sets at several utilizations, each made by UUniFast, with periods drawn uniformly from a list.

    Deadlines are implicit, ranks rate-monotonic, releases synchronous. C is rounded down to whole ns, and is 2 µs at least;
    `TaskSet.utilization` tells what came of it. Sums above 1 are redrawn until no task's share exceeds 1 (UUniFast-Discard).

    Guarantees: `make(point_idx, set_idx)` depends on nothing but the arguments of the constructor and its own, so any one set can
    be made again alone; sets that are added (more points at the end, more sets a point) leave the others as they were.

    Args:
        n_tasks: Tasks in a set.
        utilizations: The points; sums of C/T.
        sets_per_utilization: Sets per point.
        periods: What periods are drawn from: `"20ms"`, or whole nanoseconds.
        hyperperiods: How long a set runs, in hyperperiods of its own periods: all jobs released within.
        seed: Of the whole experiment.
        policy: Scheduling class of every task.
        overrun_policy: Of every set.
        admission_control: Of every set.
        dl_margin: SCHED_DEADLINE only: budget beyond C, as a fraction of C. Without any, the scheduler's own cost throttles jobs
            that keep to their C; the admission test counts it.

    Raises:
        UsageError: when no such set exists, or hardly any; names the parameter.
    """

    def __init__(
        self,
        *,
        n_tasks: int,
        utilizations: Sequence[float],
        sets_per_utilization: int,
        periods: Sequence[int | str],
        hyperperiods: float = 3,
        seed: int = 0,
        policy: Policy | str = Policy.FIFO,
        overrun_policy: OverrunPolicy | str = OverrunPolicy.CONTINUE,
        admission_control: bool = True,
        dl_margin: float = 0.02,
    ) -> None:
        self._n_tasks = n_tasks
        self._utilizations = tuple(float(u) for u in utilizations)
        self._n_sets = sets_per_utilization
        self._periods_ns = tuple(_period_ns(period, f"periods[{idx}]") for idx, period in enumerate(periods))
        self._hyperperiods = hyperperiods
        self._seed = seed
        self._policy = member(Policy)(policy, "policy")
        self._overrun_policy = member(OverrunPolicy)(overrun_policy, "overrun_policy")
        self._admission_control = admission_control
        self._dl_margin = dl_margin
        self._check_counts()
        self._check_utilizations()
        self._check_horizon()

    def _check_counts(self) -> None:
        _require(
            1 <= self._n_tasks <= MAX_TASKS, "n_tasks", f"is {excerpt(self._n_tasks)}, must be 1…{MAX_TASKS}"
        )
        _require(
            1 <= self._n_sets <= MAX_SETS,
            "sets_per_utilization",
            f"is {excerpt(self._n_sets)}, must be 1…{MAX_SETS}",
        )
        _require(
            0 <= self._seed < 1 << MAX_SEED_BITS,
            "seed",
            f"is {excerpt(self._seed)}, must be 0 or more, and have at most {MAX_SEED_BITS} bits",
        )
        _require(
            0 <= self._dl_margin <= MAX_MARGIN,
            "dl_margin",
            f"is {self._dl_margin}, must be 0…{MAX_MARGIN}",
        )
        _require(bool(self._periods_ns), "periods", "is empty", "list the periods to draw from")
        _require(
            len(self._periods_ns) <= MAX_PERIODS,
            "periods",
            f"has {len(self._periods_ns)} values, more than {MAX_PERIODS}",
        )
        for idx, period_ns in enumerate(self._periods_ns):
            _require(
                MIN_WCET_NS <= period_ns <= MAX_TIME_NS,
                f"periods[{idx}]",
                f"is {excerpt(period_ns)} ns, must be {MIN_WCET_NS}…{MAX_TIME_NS} ns",
            )
        n_ranks = min(self._n_tasks, len(set(self._periods_ns)))
        _require(
            n_ranks <= MAX_PRIORITY_LEVELS or self._policy not in (Policy.FIFO, Policy.RR),
            "periods",
            f"can need {n_ranks} rate-monotonic ranks; a guest has {MAX_PRIORITY_LEVELS} priority levels for tasks",
            "use fewer different periods",
        )

    def _check_utilizations(self) -> None:
        _require(
            bool(self._utilizations), "utilizations", "is empty", "list the points, like [0.5, 0.75, 1.0]"
        )
        for idx, total in enumerate(self._utilizations):
            key = f"utilizations[{idx}]"
            _require(
                0 < total <= self._n_tasks,
                key,
                f"is {total:g}; {self._n_tasks} tasks of at most 1 each have a sum in (0, {self._n_tasks}]",
                "lower it, or raise n_tasks",
            )
            chance = acceptance_probability(self._n_tasks, total)
            _require(
                chance >= MIN_ACCEPTANCE,
                key,
                f"is {total:g}: of {self._n_tasks} tasks hardly ever (probability {chance:.1g}) none exceeds 1",
                "lower it or raise n_tasks; sets this full are the domain of RandFixedSum, or write them down as explicit task sets",
            )

    def _check_horizon(self) -> None:
        """For the worst set that can come: refused now, rather than in the middle of a run."""
        _require(
            0 < self._hyperperiods <= MAX_TIME_NS,
            "hyperperiods",
            f"is {self._hyperperiods}, must be more than 0",
        )
        longest_first = sorted(self._periods_ns, reverse=True)
        hyperperiod_ns = min(math.lcm(*self._periods_ns), math.prod(longest_first[: self._n_tasks]))
        # Beyond the range of floats, which no number of hyperperiods makes up for.
        endless = hyperperiod_ns.bit_length() > MAX_HYPERPERIOD_BITS
        longest_ns = math.inf if endless else hyperperiod_ns * self._hyperperiods
        shown_ns = excerpt(hyperperiod_ns) if endless else f"{hyperperiod_ns:.3g}"
        advice = "choose periods that divide a common multiple, such as 20, 25, 30, 40, 50 and 60 ms; or lower hyperperiods"
        _require(
            longest_ns <= MAX_TIME_NS,
            "periods",
            f"can have a hyperperiod of {shown_ns} ns: {self._hyperperiods:g} of them are beyond 64-bit time",
            advice,
        )
        n_jobs = longest_ns / min(self._periods_ns)
        _require(
            n_jobs <= MAX_JOBS_PER_TASK,
            "periods",
            f"can need {n_jobs:.3g} jobs of one task within {self._hyperperiods:g} hyperperiods, more than {MAX_JOBS_PER_TASK}",
            advice,
        )

    @property
    def n_variants(self) -> int:
        """Points times sets per point."""
        return len(self._utilizations) * self._n_sets

    def variants(self) -> Iterator[TaskSet]:
        """Every set, one of each point before the second of any: a run that is ended early has covered all points."""
        for set_idx in range(self._n_sets):
            for point_idx in range(len(self._utilizations)):
                yield self.make(point_idx, set_idx)

    def make(self, point_idx: int, set_idx: int) -> TaskSet:
        """One set, alone.

        Raises:
            UsageError: when there is no such point or set.
        """
        _require(0 <= point_idx < len(self._utilizations), "point_idx", f"is {point_idx}: no such point")
        _require(0 <= set_idx < self._n_sets, "set_idx", f"is {set_idx}: no such set")
        total = self._utilizations[point_idx]
        uniform = _uniform(self._seed, point_idx, set_idx)
        shares = uunifast(self._n_tasks, total, uniform)
        while max(shares) > 1:
            shares = uunifast(self._n_tasks, total, uniform)
        periods_ns = [self._periods_ns[int(uniform() * len(self._periods_ns))] for _ in shares]
        horizon_ns = math.ceil(math.lcm(*periods_ns) * self._hyperperiods)
        tasks = (
            self._task(idx, share, period_ns, horizon_ns)
            for idx, (share, period_ns) in enumerate(zip(shares, periods_ns, strict=True))
        )
        return TaskSet(
            tasks=rank_by(tasks, "period_ns"),
            name=f"u{total:g}-{set_idx}",
            overrun_policy=self._overrun_policy,
            admission_control=self._admission_control,
            provenance=Provenance(
                generator="uunifast",
                params={**self._params(), "point_idx": point_idx, "set_idx": set_idx},
                seed=self._seed,
                utilization_target=total,
            ),
        )

    def _task(self, idx: int, share: float, period_ns: int, horizon_ns: int) -> Task:
        wcet_ns = min(period_ns, max(MIN_WCET_NS, math.floor(share * period_ns)))
        budget_ns = min(period_ns, math.ceil(wcet_ns * (1 + self._dl_margin)))
        return Task(
            name=f"t{idx}",
            period_ns=period_ns,
            wcet_ns=wcet_ns,
            n_jobs=math.ceil(horizon_ns / period_ns),
            policy=self._policy,
            dl_runtime_ns=budget_ns if self._policy is Policy.DEADLINE else None,
        )

    def _params(self) -> dict[str, Any]:
        return {
            "n_tasks": self._n_tasks,
            "utilizations": list(self._utilizations),
            "sets_per_utilization": self._n_sets,
            "periods": list(self._periods_ns),
            "hyperperiods": self._hyperperiods,
            "policy": self._policy.value,
            "overrun_policy": self._overrun_policy.value,
            "admission_control": self._admission_control,
            "dl_margin": self._dl_margin,
        }


def _period_ns(period: int | str, key: str) -> int:
    return period if isinstance(period, int) else time_ns(period, key)


def _uniform(seed: int, point_idx: int, set_idx: int) -> Callable[[], float]:
    """Numbers in [0, 1) of a stream of their own.

    NumPy keeps the raw streams of its seed sequences and bit generators for ever, but not what `Generator` makes of them (NEP 19): so
    the 53 bits are taken here.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(point_idx, set_idx)))
    return lambda: (int(bits.random_raw()) >> 11) * 2.0**-53


def _require(condition: bool, key: str, what: str, next_step: str = "") -> None:
    if not condition:
        raise UsageError(f"{key} {what}", where=key, next_step=next_step)
