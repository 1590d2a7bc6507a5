"""One way of making random task sets: everything but the seed, the sums of utilizations and how many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from runner.model import OverrunPolicy, Policy, Task
from runner.model.task import DL_PERIOD_MAX_NS, DL_PERIOD_MIN_NS, MAX_JOBS_PER_TASK
from runner.model.taskset import MAX_PRIORITY_LEVELS
from runner.tasksets.deadlines import DeadlineModel, DeadlineRule
from runner.tasksets.periods import MIN_WCET_NS, PeriodRule
from runner.tasksets.priorities import Priorities, ranked
from runner.tasksets.programs import SPIN, draw_program
from runner.tasksets.request import require
from runner.tasksets.shares import ShareRule, Shares, independent_costs
from runner.tasksets.stream import Uniform
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS

MAX_HYPERPERIOD_BITS = 512


class Stream(IntEnum):
    """What a set draws for beside utilizations and periods, each from a stream of its own: one more leaves the others as they were."""

    DEADLINES = 1
    OFFSETS = 2
    JITTER = 3
    PROGRAMS = 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a set is made.

    Attributes:
        shares, periods, deadlines: How these are drawn.
        priorities: Who is more urgent.
        offsets, jitter: O and J are drawn from [0, that times T].
        workload: `spin`, or the original's programs, whose C is not known: see `runner.tasksets.programs`.
        hyperperiods: How long a set runs, in hyperperiods of its own periods.
        horizon_ns: But no longer than that; None: as long as it takes.
        policy: Scheduling class of every task.
        overrun_policy, admission_control: Of the set.
        dl_margin: SCHED_DEADLINE only: budget beyond C, as a fraction of C.
        dl_margin_least_ns: But at least so much.
    """

    n_tasks: int
    shares: ShareRule
    periods: PeriodRule
    deadlines: DeadlineRule
    priorities: Priorities
    offsets: float
    jitter: float
    workload: str
    hyperperiods: float
    horizon_ns: int | None
    policy: Policy
    overrun_policy: OverrunPolicy
    admission_control: bool
    dl_margin: float
    dl_margin_least_ns: int

    def check(self) -> None:
        """Refuse what no set can come of, or none that could run: now, rather than in the middle of a run.

        Raises:
            UsageError: names the parameter, and what can be had instead.
        """
        self._check_ranks()
        self._check_horizon()
        if self.policy is Policy.DEADLINE:
            self._check_sched_deadline()
        if self.workload != SPIN:
            require(
                self.policy is not Policy.DEADLINE and self.priorities is not Priorities.OPA,
                "workload",
                f"is {self.workload}, whose C nobody knows; SCHED_DEADLINE and opa need it",
                "choose workload: spin, or policy fifo with priorities rm or dm",
            )

    def _check_horizon(self) -> None:
        require(
            0 < self.hyperperiods <= MAX_TIME_NS,
            "hyperperiods",
            f"is {self.hyperperiods}, must be more than 0",
        )
        hyperperiod_ns = self.periods.longest_hyperperiod_ns(self.n_tasks)
        # Beyond the range of floats, which no number of hyperperiods makes up for.
        endless = hyperperiod_ns.bit_length() > MAX_HYPERPERIOD_BITS
        longest_ns = math.inf if endless else hyperperiod_ns * self.hyperperiods
        if self.horizon_ns is not None:
            longest_ns = min(longest_ns, self.horizon_ns)
        shown_ns = excerpt(hyperperiod_ns) if endless else f"{hyperperiod_ns:.3g}"
        advice = (
            "choose periods that divide a common multiple, such as 20, 25, 30, 40, 50 and 60 ms; or lower hyperperiods,"
            " or set a horizon, after which no job is released"
        )
        require(
            longest_ns <= MAX_TIME_NS,
            "periods",
            f"can have a hyperperiod of {shown_ns} ns: {self.hyperperiods:g} of them are beyond 64-bit time",
            advice,
        )
        n_jobs = longest_ns / self.periods.shortest_ns
        require(
            n_jobs <= MAX_JOBS_PER_TASK,
            "periods",
            f"can need {n_jobs:.3g} jobs of one task within {self.hyperperiods:g} hyperperiods, more than {MAX_JOBS_PER_TASK}",
            advice,
        )
        longest = self.periods.longest_ns * max(1.0, self.deadlines.high, self.jitter) + longest_ns * 2
        require(
            longest <= MAX_TIME_NS,
            "periods",
            f"can have releases and deadlines {longest:.3g} ns after the start, beyond 64-bit time",
            "choose shorter periods or deadlines, or a shorter horizon",
        )

    def _check_ranks(self) -> None:
        by_period = self.priorities is Priorities.RM or (
            self.priorities is Priorities.DM and self.deadlines.model is DeadlineModel.IMPLICIT
        )
        n_ranks = self.periods.n_different(self.n_tasks) if by_period else self.n_tasks
        require(
            n_ranks <= MAX_PRIORITY_LEVELS or self.policy not in (Policy.FIFO, Policy.RR),
            "periods" if by_period else "n_tasks",
            f"can need {n_ranks} {'rate-monotonic ' if by_period else ''}ranks; a guest has {MAX_PRIORITY_LEVELS}"
            " priority levels for tasks",
            "use fewer different periods" if by_period else f"use at most {MAX_PRIORITY_LEVELS} tasks",
        )

    def _check_sched_deadline(self) -> None:
        shortest_ns, longest_ns = self.periods.shortest_ns, self.periods.longest_ns
        require(
            shortest_ns >= DL_PERIOD_MIN_NS and longest_ns <= DL_PERIOD_MAX_NS,
            "periods",
            f"are {shortest_ns}…{longest_ns} ns; under SCHED_DEADLINE the kernel takes {DL_PERIOD_MIN_NS}…{DL_PERIOD_MAX_NS} ns",
            "choose periods within these bounds, or policy fifo",
        )
        require(
            self.deadlines.model is not DeadlineModel.ARBITRARY,
            "deadlines",
            "are arbitrary; SCHED_DEADLINE needs deadlines of at most a period",
            "choose deadlines: constrained, or policy fifo",
        )

    def draw(
        self, total: float | None, main: Uniform, stream: Callable[[Stream], Uniform]
    ) -> tuple[Task, ...]:
        """The tasks of one set.

        Args:
            total: The sum of their utilizations; None where C is not known.
            main: Numbers for utilizations and periods.
            stream: Numbers for everything else.
        """
        if total is None:
            periods_ns = self.periods.draw(self.n_tasks, main)
            costs: Sequence[int | None] = [None] * self.n_tasks
        else:
            costs, periods_ns = self.draw_times(total, main)
        horizon_ns = self._horizon_ns(periods_ns)
        draws = {part: stream(part) for part in self._parts}
        tasks = [
            self._task(idx, cost, period_ns, horizon_ns, rank=rank, draws=draws)
            for idx, (cost, period_ns, rank) in enumerate(
                zip(costs, periods_ns, self._ranks(periods_ns), strict=True)
            )
        ]
        return ranked(tasks, Priorities.EXPLICIT if self.priorities is Priorities.RM else self.priorities)

    def draw_times(self, total: float, main: Uniform) -> tuple[list[int], list[int]]:
        """C and T of the tasks of one set, in nanoseconds."""
        if self.shares.kind is Shares.INDEPENDENT_COSTS:
            periods_ns = self.periods.draw(self.n_tasks, main)
            shares = independent_costs(total, periods_ns, main)
        else:
            shares = self.shares.draw(total, main)
            periods_ns = self.periods.draw(self.n_tasks, main)
        return [whole_wcet_ns(share, t) for share, t in zip(shares, periods_ns, strict=True)], periods_ns

    def _ranks(self, periods_ns: list[int]) -> Sequence[int]:
        """Rate-monotonic ones at once, for to make a task anew takes as long as all the rest; the tasks' order for others."""
        if self.priorities is not Priorities.RM:
            return range(self.n_tasks)
        ranks = {period_ns: rank for rank, period_ns in enumerate(sorted(set(periods_ns)))}
        return [ranks[period_ns] for period_ns in periods_ns]

    @property
    def _parts(self) -> list[Stream]:
        wanted = {
            Stream.DEADLINES: self.deadlines.model is not DeadlineModel.IMPLICIT,
            Stream.OFFSETS: self.offsets > 0,
            Stream.JITTER: self.jitter > 0,
            Stream.PROGRAMS: self.workload != SPIN,
        }
        return [part for part, is_wanted in wanted.items() if is_wanted]

    def _horizon_ns(self, periods_ns: list[int]) -> int:
        hyperperiod_ns = math.lcm(*periods_ns)
        if hyperperiod_ns.bit_length() > MAX_HYPERPERIOD_BITS:
            return self.horizon_ns or MAX_TIME_NS
        whole_ns = math.ceil(hyperperiod_ns * self.hyperperiods)
        return whole_ns if self.horizon_ns is None else min(whole_ns, self.horizon_ns)

    def _task(
        self,
        idx: int,
        cost_ns: int | None,
        period_ns: int,
        horizon_ns: int,
        *,
        rank: int,
        draws: dict[Stream, Uniform],
    ) -> Task:
        deadline_ns = None
        if Stream.DEADLINES in draws:
            deadline_ns = self.deadlines.draw(cost_ns or 1, period_ns, draws[Stream.DEADLINES])
        budget_ns = None
        if self.policy is Policy.DEADLINE and cost_ns is not None:
            margin_ns = max(math.ceil(cost_ns * self.dl_margin), self.dl_margin_least_ns)
            budget_ns = min(deadline_ns or period_ns, cost_ns + margin_ns)
        workload, arguments = SPIN, dict[str, int]()
        if Stream.PROGRAMS in draws:
            workload, arguments = draw_program(self.workload, draws[Stream.PROGRAMS])
        return Task(
            name=f"t{idx}",
            period_ns=period_ns,
            wcet_ns=cost_ns,
            deadline_ns=deadline_ns,
            offset_ns=_part_of(self.offsets, period_ns, draws.get(Stream.OFFSETS)),
            jitter_ns=_part_of(self.jitter, period_ns, draws.get(Stream.JITTER)),
            priority_rank=rank,
            n_jobs=math.ceil(horizon_ns / period_ns),
            policy=self.policy,
            workload=workload,
            workload_args=arguments,
            dl_runtime_ns=budget_ns,
        )


def whole_wcet_ns(share: float, period_ns: int) -> int:
    """C of a utilization: rounded down to whole nanoseconds, at least `MIN_WCET_NS`, at most the period."""
    return min(period_ns, max(MIN_WCET_NS, math.floor(share * period_ns)))


def _part_of(most: float, period_ns: int, uniform: Uniform | None) -> int:
    return 0 if uniform is None else int(uniform() * most * period_ns)
