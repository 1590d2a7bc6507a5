"""Random task sets, composed: who draws utilizations, periods, deadlines and the rest, and at which sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from runner.model import MAX_TASKS, OverrunPolicy, Policy, Provenance, TaskSet
from runner.tasksets.deadlines import deadline_rule
from runner.tasksets.periods import Distribution, period_rule
from runner.tasksets.priorities import Priorities
from runner.tasksets.programs import SPIN, WORKLOADS
from runner.tasksets.recipe import Recipe, Stream
from runner.tasksets.request import count, each, number, period_ns, real, require
from runner.tasksets.shares import Shares, share_rule
from runner.tasksets.stream import Uniform, uniform_stream
from runner.tasksets.written import flag, is_list, member, nearest, sequence, text
from runner.units import MAX_TIME_NS

MAX_SETS = 10**12
MAX_SEED_BITS = 128
MAX_MARGIN = 1000
#: Combinations of values are all checked beforehand; sets per combination there may be any number of.
MAX_COMBINATIONS = 10_000
MAX_PART = 100.0


def _workload(value: object, key: str) -> str:
    name = text(value, key)
    require(name in WORKLOADS, key, f"is {name!r}", nearest(name, WORKLOADS))
    return name


def _time_ns(value: object, key: str) -> int | None:
    if value is None:
        return None
    value_ns = period_ns(value, key)
    require(0 < value_ns <= MAX_TIME_NS, key, f"is {value_ns} ns, must be more than 0")
    return value_ns


#: Attributes that may have several values -> how one of them is read. What is a list by itself has several as a list of these.
_ATTRIBUTES: Mapping[str, Callable[[object, str], Any]] = MappingProxyType(
    {
        "n_tasks": lambda value, key: count(value, key, 1, MAX_TASKS),
        "periods": period_rule,
        "shares": member(Shares),
        "share_min": lambda value, key: number(value, key, 0, 1),
        "share_max": lambda value, key: number(value, key, 0, 1),
        "deadlines": deadline_rule,
        "priorities": member(Priorities),
        "offsets": lambda value, key: number(value, key, 0, MAX_PART),
        "jitter": lambda value, key: number(value, key, 0, MAX_PART),
        "workload": _workload,
        "hyperperiods": lambda value, key: number(value, key, 0, MAX_TIME_NS),
        "horizon": _time_ns,
        "policy": member(Policy),
        "overrun_policy": member(OverrunPolicy),
        "admission_control": flag,
        "dl_margin": lambda value, key: number(value, key, 0, MAX_MARGIN),
        "dl_margin_least": lambda value, key: count(period_ns(value, key), key, 0, MAX_TIME_NS),
    }
)
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "shares": Shares.UUNIFAST_DISCARD.value,
        "share_min": 0.0,
        "share_max": 1.0,
        "share_bounds": None,
        "deadlines": "implicit",
        "priorities": Priorities.RM.value,
        "offsets": 0.0,
        "jitter": 0.0,
        "workload": SPIN,
        "horizon": None,
        "dl_margin_least": "100us",
    }
)


class RandomTaskSets:
    """Task sets at several utilizations: every attribute drawn by the rule that is named for it.

    C is rounded down to whole ns, and is 2 µs at least; `TaskSet.utilization` tells what came of it. Any attribute but
    `utilizations`, `sets_per_utilization`, `share_bounds` and `seed` may have several values, as a list (`periods`: a list of
    lists or mappings): every combination makes sets of its own, from the same random numbers, so that policies or deadlines
    are compared on the same utilizations and periods.

    Guarantees: `make(point_idx, set_idx)` depends on nothing but the arguments of the constructor and its own, so any one set can
    be made again alone; sets that are added (more points at the end, more sets a point) leave the others as they were. Lazy:
    memory does not grow with the number of sets.

    Args:
        n_tasks: Tasks in a set.
        utilizations: The points; sums of C/T. Empty only where the workload's C is not known.
        sets_per_utilization: Sets per point.
        periods: What periods are drawn from: a list of `"20ms"` or whole nanoseconds, or a rule (`runner.tasksets.periods`).
        shares: Who draws the utilizations (`runner.tasksets.shares`).
        share_min, share_max: Bounds of each task's utilization; `share_bounds`: of each its own, as pairs.
        deadlines: `runner.tasksets.deadlines`.
        priorities: `rm`, `dm`, `opa`, or `explicit`: in the order of the tasks.
        offsets, jitter: O and J are drawn from [0, that times T].
        workload: `spin`, or a program of the original's (`runner.tasksets.programs`), whose C is not known.
        hyperperiods: How long a set runs, in hyperperiods of its own periods: all jobs released within.
        horizon: But no longer than that, `"10s"`; None: as long as it takes.
        seed: Of the whole experiment.
        policy: Scheduling class of every task.
        overrun_policy: Of every set.
        admission_control: Of every set.
        dl_margin, dl_margin_least: SCHED_DEADLINE only: budget beyond C, as a fraction of C, but at least `"100us"`. Without any, the
            scheduler's own cost, tens of µs a job whatever its C, throttles jobs that keep to their C. Admission counts it.

    Raises:
        UsageError: when no such set exists, or hardly any; names the parameter, and the alternative.
    """

    #: What the sets' provenance calls it; None: whoever draws the utilizations.
    generator: str | None = None

    def __init__(
        self,
        *,
        n_tasks: int | Sequence[int],
        utilizations: Sequence[float],
        sets_per_utilization: int,
        periods: object,
        hyperperiods: float | Sequence[float] = 3,
        seed: int = 0,
        policy: Policy | str | Sequence[str] = Policy.FIFO,
        overrun_policy: OverrunPolicy | str | Sequence[str] = OverrunPolicy.CONTINUE,
        admission_control: bool | Sequence[bool] = True,
        dl_margin: float | Sequence[float] = 0.02,
        **others: Any,  # noqa: ANN401 - plain values, read by `_ATTRIBUTES`
    ) -> None:
        given = {
            **{"n_tasks": n_tasks, "periods": periods, "hyperperiods": hyperperiods, "policy": policy},
            **{
                "overrun_policy": overrun_policy,
                "admission_control": admission_control,
                "dl_margin": dl_margin,
            },
        }
        for name in others:
            require(name in _DEFAULTS, name, "is not known", nearest(name, [*_ATTRIBUTES, "share_bounds"]))
        given.update({**_DEFAULTS, **others})
        self._share_bounds: Any = given.pop("share_bounds")
        self._n_sets = count(sets_per_utilization, "sets_per_utilization", 1, MAX_SETS)
        self.seed = count(seed, "seed", 0, (1 << MAX_SEED_BITS) - 1)
        self._values = {name: _several(value, name) for name, value in given.items()}
        self.n_combinations = math.prod(map(len, self._values.values()))
        require(
            self.n_combinations <= MAX_COMBINATIONS,
            max(self._values, key=lambda name: len(self._values[name])),
            f"and others have {self.n_combinations} combinations of values, more than {MAX_COMBINATIONS}",
            "give fewer values, and more sets per utilization",
        )
        self._totals = self._points(utilizations)
        for combination_idx in range(self.n_combinations):
            recipe = self._recipe(combination_idx)
            recipe.check()
            for idx, total in enumerate(self._totals):
                if total is not None:
                    recipe.shares.check(total, f"utilizations[{idx}]")
        #: How the sets of one combination are made.
        self.recipe = lru_cache(maxsize=64)(self._recipe)
        self._described = lru_cache(maxsize=64)(lambda idx: (tuple(self._labels(idx)), self._params(idx)))

    def _points(self, utilizations: object) -> tuple[float | None, ...]:
        known_cost = [workload == SPIN for workload in self._values["workload"]]
        require(
            all(known_cost) or not any(known_cost),
            "workload",
            "has spin and a program whose C is not known",
            "make two runs of it",
        )
        totals = sequence(utilizations, "utilizations")
        if not all(known_cost):
            require(
                not totals,
                "utilizations",
                "says something, but nobody knows C of the workload",
                "set it to []",
            )
            return (None,)
        require(bool(totals), "utilizations", "is empty", "list the points, like [0.5, 0.75, 1.0]")
        return tuple(real(total, f"utilizations[{idx}]") for idx, total in enumerate(totals))

    def _chosen(self, combination_idx: int) -> dict[str, Any]:
        """One value of each attribute; the attribute named last varies fastest."""
        chosen = {}
        for name, values in reversed(self._values.items()):
            combination_idx, idx = divmod(combination_idx, len(values))
            chosen[name] = values[idx]
        return chosen

    def _recipe(self, combination_idx: int) -> Recipe:
        chosen = self._chosen(combination_idx)
        shares = share_rule(
            chosen.pop("shares"),
            chosen["n_tasks"],
            chosen.pop("share_min"),
            chosen.pop("share_max"),
            self._share_bounds,
        )
        least_ns = chosen.pop("dl_margin_least")
        return Recipe(shares=shares, horizon_ns=chosen.pop("horizon"), dl_margin_least_ns=least_ns, **chosen)

    @property
    def totals(self) -> tuple[float | None, ...]:
        """The points, in their order; None where the workload's C is not known."""
        return self._totals

    @property
    def n_variants(self) -> int:
        """Points times sets per point times combinations of values."""
        return len(self._totals) * self._n_sets * self.n_combinations

    def variants(self) -> Iterator[TaskSet]:
        """Every set, one of each point before the second of any: a run that is ended early has covered all points.

        The combinations of one set of numbers come one after the other.
        """
        for set_idx in range(self._n_sets):  # `itertools.product` would keep all of them
            for point_idx in range(len(self._totals)):
                for combination_idx in range(self.n_combinations):
                    yield self.make(point_idx, set_idx, combination_idx)

    def make(self, point_idx: int, set_idx: int, combination_idx: int = 0) -> TaskSet:
        """One set, alone.

        Raises:
            UsageError: when there is no such point, set or combination.
        """
        require(0 <= point_idx < len(self._totals), "point_idx", f"is {point_idx}: no such point")
        require(0 <= set_idx < self._n_sets, "set_idx", f"is {set_idx}: no such set")
        require(
            0 <= combination_idx < self.n_combinations,
            "combination_idx",
            f"is {combination_idx}: no such one",
        )
        total = self._totals[point_idx]
        recipe = self.recipe(combination_idx)

        def stream(part: Stream) -> Uniform:
            return uniform_stream(self.seed, point_idx, set_idx, int(part))

        labels, params = self._described(combination_idx)
        tasks = recipe.draw(total, uniform_stream(self.seed, point_idx, set_idx), stream)
        point = "set" if total is None else f"u{total:g}"
        return TaskSet(
            tasks,
            name="-".join([point, str(set_idx), *labels]),
            overrun_policy=recipe.overrun_policy,
            admission_control=recipe.admission_control,
            provenance=Provenance(
                generator=self.generator or recipe.shares.kind.value,
                params={**params, "point_idx": point_idx, "set_idx": set_idx},
                seed=self.seed,
                utilization_target=total,
            ),
        )

    def _labels(self, combination_idx: int) -> list[str]:
        """What tells this combination from the others, for the set's name."""
        chosen = self._chosen(combination_idx)
        return [
            f"{name}{values.index(chosen[name])}" if hasattr(chosen[name], "written") else str(chosen[name])
            for name, values in self._values.items()
            if len(values) > 1
        ]

    def _params(self, combination_idx: int) -> dict[str, Any]:
        """The arguments, plain, that make sets of this combination alone; those that are as by default are left out."""
        chosen = {name: _plain(value) for name, value in self._chosen(combination_idx).items()}
        kept = {name: value for name, value in chosen.items() if _DEFAULTS.get(name, ...) != value}
        if self._share_bounds is not None:
            kept["share_bounds"] = [list(pair) for pair in self._share_bounds]
        totals = [total for total in self._totals if total is not None]
        return {**kept, "utilizations": totals, "sets_per_utilization": self._n_sets}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever `_ATTRIBUTES` makes
    if hasattr(value, "written"):
        return value.written
    return value.value if isinstance(value, Policy | OverrunPolicy | Shares | Priorities) else value


def _several(value: object, key: str) -> list[Any]:
    read = _ATTRIBUTES[key]
    if key != "periods":
        return [read(item, at) for item, at in each(value, key)]
    # A list by itself: several are a list of lists, or of rules.
    items = sequence(value, key) if is_list(value) else []
    if items and not all(isinstance(item, str | int) and item != Distribution.AUTOMOTIVE for item in items):
        return [read(item, f"{key}[{idx}]") for idx, item in enumerate(items)]
    return [read(value, key)]
