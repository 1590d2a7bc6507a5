"""Random task sets, rule by rule: distributions, what is refused, and that whatever is accepted yields valid sets."""

from __future__ import annotations

import gc
import math
import statistics
import tracemalloc
from collections import Counter
from itertools import islice, pairwise, permutations
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.errors import TaskSetError, UsageError
from runner.events import JobEvent
from runner.genode.descriptions import encode_descriptions
from runner.model import Policy, Task, TaskSet, rank_by
from runner.model.arrival import arrival_ns
from runner.simulator import Simulation
from runner.task_loader import wire
from runner.tasksets import ExplicitTaskSets, RandomTaskSets, UUniFastTaskSets
from runner.tasksets.bulk import TaskSetArrays, make_many
from runner.tasksets.convolutional import convolutionalfixedsum
from runner.tasksets.explicit import write_down
from runner.tasksets.periods import WATERS_SHARES, period_rule
from runner.tasksets.priorities import Priorities, audsley, meets_deadline, ranked
from runner.tasksets.shares import (
    Shares,
    acceptance_probability,
    randfixedsum,
    share_rule,
    uunifast,
)
from runner.tasksets.stream import uniform_stream
from runner.units import NS_PER_MS

MS = NS_PER_MS
PERIODS = ["20ms", "25ms", "30ms", "40ms", "50ms", "60ms", "75ms", "100ms", "150ms", "200ms"]


def random_sets(**changes: Any) -> RandomTaskSets:
    arguments: dict[str, Any] = {
        "n_tasks": 5,
        "utilizations": [0.5, 0.9],
        "sets_per_utilization": 4,
        "periods": PERIODS,
        "seed": 7,
    }
    return RandomTaskSets(**{**arguments, **changes})


def plain(*rows: tuple[int, ...]) -> list[Task]:
    """Tasks of (C, T[, D[, J]]), in that order of urgency."""
    return [
        Task(
            period_ns=row[1],
            wcet_ns=row[0],
            deadline_ns=row[2] if len(row) > 2 else None,
            jitter_ns=row[3] if len(row) > 3 else 0,
            priority_rank=rank,
        )
        for rank, row in enumerate(rows)
    ]


class TestShares:
    """The oracles of each method."""

    @pytest.mark.parametrize(
        ("n", "total", "variance"),
        [(2, 1.0, 1 / 12), (3, 1.5, 5 / 72), (8, 4.0, 0.0787), (5, 0.5, 0.25 * 4 / 150)],
    )
    @pytest.mark.parametrize("method", ["randfixedsum", "convolutionalfixedsum"])
    def test_moments_of_fixed_sums(self, method: str, n: int, total: float, variance: float) -> None:
        """Uniform over all with that sum: the same mean and variance at every place."""
        random = Random(n)
        if method == "randfixedsum":
            draws = [randfixedsum(n, total, random.random) for _ in range(8000)]
        else:
            draws = [convolutionalfixedsum(total, [(0.0, 1.0)] * n, random.random) for _ in range(4000)]
        for place in (0, n - 1):
            shares = [draw[place] for draw in draws]
            assert statistics.fmean(shares) == pytest.approx(total / n, rel=0.05)
            assert statistics.pvariance(shares) == pytest.approx(variance, rel=0.08)
        assert all(math.fsum(draw) == pytest.approx(total) for draw in draws)
        assert all(0 <= share <= 1 for draw in draws for share in draw)

    def test_randfixedsum_agrees_with_discard(self) -> None:
        """Two ways to the same distribution: P(u > .8) for 4 of 8."""
        random = Random(5)
        fixed = [randfixedsum(8, 4.0, random.random)[0] for _ in range(5000)]
        rule = share_rule(Shares.UUNIFAST_DISCARD, 8, 0.0, 1.0, None)
        discarded = [rule.draw(4.0, random.random)[0] for _ in range(5000)]
        tails = [sum(share > 0.8 for share in shares) / 5000 for shares in (fixed, discarded)]
        assert tails[0] == pytest.approx(tails[1], abs=0.025)

    def test_randfixedsum_is_uunifast_where_nothing_is_cut_off(self) -> None:
        """P(u > U/2) = 1/8 for n = 4, U = .8."""
        random = Random(6)
        assert sum(randfixedsum(4, 0.8, random.random)[2] > 0.4 for _ in range(8000)) / 8000 == pytest.approx(
            0.125, abs=0.015
        )

    @given(st.integers(1, 64), st.floats(0, 1), st.randoms(use_true_random=False))
    @example(42, 1.0 - 2.0**-53, Random(1))  # volumes vanish
    def test_randfixedsum_keeps_sum_and_bounds(self, n: int, part: float, random: Random) -> None:
        numbers = randfixedsum(n, part * n, random.random)
        assert len(numbers) == n
        assert math.fsum(numbers) == pytest.approx(part * n, abs=1e-9)
        assert all(0 <= number <= 1 for number in numbers)

    def test_acceptance_with_bounds_is_what_is_seen(self) -> None:
        random = Random(4)
        rule = share_rule(Shares.UUNIFAST, 4, 0.05, 0.4, None)
        chance = acceptance_probability(4, 0.9, 0.05, 0.4)
        draws = [uunifast(4, 0.9, random.random) for _ in range(5000)]
        seen = sum(max(draw) <= 0.4 and min(draw) >= 0.05 for draw in draws) / 5000
        assert chance == pytest.approx(seen, abs=0.02)
        with pytest.raises(UsageError, match="out of bounds"):
            rule.check(0.9, "utilizations[0]")

    def test_one_task_alone_takes_it_all(self) -> None:
        source = random_sets(
            n_tasks=1, shares=["uunifast", "uunifast_discard", "randfixedsum"], utilizations=[1.0]
        )
        assert {taskset.utilization for taskset in source.variants()} == {1.0}

    def test_acceptance_probability_of_a_hopeless_sum(self) -> None:
        assert acceptance_probability(10, 8) == pytest.approx(3.7e-6, rel=0.02)

    def test_bounds_of_each_task(self) -> None:
        bounds = [[0.0, 0.1], [0.3, 0.6], [0.2, 0.9]]
        source = random_sets(
            n_tasks=3,
            utilizations=[0.7, 1.2],
            shares="convolutionalfixedsum",
            share_bounds=bounds,
            sets_per_utilization=20,
        )
        for taskset in source.variants():
            for task, (low, high) in zip(taskset.tasks, bounds, strict=True):
                assert low - 1e-4 <= float(task.utilization or 0) <= high + 1e-4
        assert source.make(1, 3) == source.make(1, 3)

    def test_costs_that_do_not_know_their_periods(self) -> None:
        """C of a task of 1 ms is as long as that of one of 100 ms, on the average: its share is a hundred times as large."""
        source = random_sets(
            shares="independent_costs", periods=["1ms", "100ms"], utilizations=[0.5], sets_per_utilization=400
        )
        parts: dict[int | None, list[float]] = {1 * MS: [], 100 * MS: []}
        for taskset in source.variants():
            assert taskset.utilization == pytest.approx(0.5, abs=1e-2)  # C is 2 µs at least
            whole_ns = sum(task.wcet_ns or 0 for task in taskset.tasks)
            for task in taskset.tasks:
                parts[task.period_ns].append((task.wcet_ns or 0) / whole_ns)
        assert [fmean(found) for found in parts.values()] == pytest.approx([1 / 5, 1 / 5], abs=0.015)

    def test_share_bounds_hold(self) -> None:
        for method in ("uunifast_discard", "randfixedsum", "convolutionalfixedsum"):
            source = random_sets(n_tasks=4, utilizations=[0.9], shares=method, share_min=0.1, share_max=0.4)
            for taskset in source.variants():
                assert all(0.0999 <= float(task.utilization or 0) <= 0.4001 for task in taskset.tasks)


class TestPeriods:
    """Distributions of periods."""

    def draws(self, rule: object, n: int = 20_000, n_tasks: int = 1) -> list[list[int]]:
        made, uniform = period_rule(rule), Random(9).random
        return [made.draw(n_tasks, uniform) for _ in range(n // n_tasks)]

    def test_log_uniform(self) -> None:
        """Median 100, mean 990/ln 100, half the mass per decade."""
        drawn = [one for (one,) in self.draws({"kind": "log_uniform", "min": 10 * MS, "max": 1000 * MS})]
        assert statistics.median(drawn) / MS == pytest.approx(100, rel=0.05)
        assert statistics.fmean(drawn) / MS == pytest.approx(990 / math.log(100), rel=0.03)
        assert sum(one < 100 * MS for one in drawn) / len(drawn) == pytest.approx(0.5, abs=0.015)

    def test_granularity(self) -> None:
        """T = floor(exp(U(ln min, ln(max + g)))/g)·g: every multiple of g, min and max included."""
        drawn = Counter(one for (one,) in self.draws("log_uniform 10ms..40ms step 5ms", 8000))
        assert sorted(drawn) == [ms * MS for ms in range(10, 45, 5)]
        for ms in (10, 25, 40):
            expected = math.log((ms + 5) / ms) / math.log(45 / 10)
            assert drawn[ms * MS] / 8000 == pytest.approx(expected, abs=0.02)

    def test_uniform(self) -> None:
        drawn = Counter(one for (one,) in self.draws("uniform 10ms..40ms step 10ms", 8000))
        assert all(drawn[ms * MS] / 8000 == pytest.approx(0.25, abs=0.02) for ms in (10, 20, 30, 40))

    def test_harmonic(self) -> None:
        for periods_ns in self.draws(
            {"kind": "harmonic", "first": ["10ms", "12ms"], "factors": [1, 2, 3], "max": "200ms"}, 2000, 5
        ):
            assert all(longer % shorter == 0 for shorter, longer in pairwise(periods_ns))
            assert math.lcm(*periods_ns) == max(periods_ns) <= 200 * MS

    def test_automotive(self) -> None:
        """WATERS 2015: the shares of all periods, those of the crankshaft left out (85 %); a hyperperiod of 1 s."""
        drawn = Counter(one for (one,) in self.draws("automotive", 20_000))
        for ms, percent in WATERS_SHARES:
            assert drawn[ms * MS] / 20_000 == pytest.approx(percent / 85, abs=0.01)
        assert sum(percent for _, percent in WATERS_SHARES) == 85
        assert math.lcm(*drawn) == 1000 * MS

    @pytest.mark.parametrize(
        ("rule", "where"),
        [
            ("uniforn 1ms..2ms", "periods.kind"),
            ("choice", "periods"),
            ({"kind": "uniform"}, "periods.min"),
            ({"kind": "uniform", "min": "1ms"}, "periods.max"),
            ({"kind": "uniform", "min": "2ms", "max": "1ms"}, "periods.min"),
            ("uniform 1ms..2ms step 3us", "periods.granularity"),
            ("uniform 1ms..2ms step 0ns", "periods.granularity"),
            ({"kind": "uniform", "min": "1ms", "max": "2ms", "step": "1ms"}, "periods.step"),
            ({"kind": "harmonic", "first": "10ms", "max": "1ms"}, "periods.max"),
            ({"kind": "harmonic", "first": "10ms", "max": "1s", "factors": [0]}, "periods.factors[0]"),
            ({"kind": "harmonic", "first": "10ms", "max": "1s", "factors": []}, "periods.factors"),
            ({"kind": "automotive", "min": "1ms"}, "periods.min"),
            ({}, "periods.kind"),
            (7, "periods"),
            ("1 .. 2", "periods"),
            ("uniform 1..2", "periods.min"),
        ],
    )
    def test_refusals(self, rule: object, where: str) -> None:
        with pytest.raises(UsageError) as caught:
            period_rule(rule)
        assert caught.value.where == where


class TestPriorities:
    """Who is more urgent."""

    def test_opa_finds_what_neither_rm_nor_dm_does(self) -> None:
        """Deadlines beyond periods: deadline-monotonic is not optimal there (Lehoczky 1990)."""
        tasks = plain((52, 100, 110), (52, 140, 154))
        assert not all(feasible_in_order(rank_by(tasks, "deadline_ns")))
        found = audsley(tasks, meets_deadline)
        assert found is not None
        assert all(feasible_in_order(found))
        assert [task.priority_rank for task in found] == [1, 0]

    def test_opa_without_an_answer_is_deadline_monotonic(self) -> None:
        tasks = plain((3, 5), (3, 5, 4))
        assert audsley(tasks, meets_deadline) is None
        assert [task.priority_rank for task in ranked(tasks, Priorities.OPA)] == [1, 0]

    def test_opa_takes_any_predicate(self) -> None:
        tasks = plain((1, 10), (1, 20), (1, 30))
        found = audsley(tasks, lambda task, higher: task.period_ns != 10 or not higher)
        assert found is not None
        assert [task.priority_rank for task in found] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("rows", "responses"),
        [
            (((3, 7), (3, 12), (5, 20)), (3, 6, 20)),
            (((10, 30), (10, 40), (12, 50)), (10, 20, 52)),
            (((4, 16), (5, 40), (32, 80)), (4, 9, 58)),
            (((5, 20), (10, 40), (40, 80)), (5, 15, 80)),
            (((40, 100), (40, 150), (100, 350)), (40, 80, 300)),
            (((2, 5), (4, 7)), (2, 8)),
            (((1, 4), (2, 6), (3, 8)), (1, 3, 10)),
            (((26, 70), (62, 100)), (26, 118)),
        ],
    )
    def test_the_predicate_is_exact(
        self, rows: tuple[tuple[int, int], ...], responses: tuple[int, ...]
    ) -> None:
        """A deadline of the known response time is met, one less is not."""
        tasks = plain(*rows)
        for idx, response in enumerate(responses):
            for deadline_ns, met in ((response, True), (response - 1, False)):
                if deadline_ns < rows[idx][0]:
                    continue
                task = plain((*rows[idx], deadline_ns))[0]
                assert meets_deadline(task, tasks[:idx]) is met

    def test_jitter_counts(self) -> None:
        """w = C + ceil((w + J)/T)·C of the other: with J = 3 a second job of it comes in time."""
        assert meets_deadline(plain((4, 20, 6))[0], plain((2, 7)))
        assert not meets_deadline(plain((4, 20, 7))[0], plain((2, 7, 7, 3)))
        assert meets_deadline(plain((4, 20, 8))[0], plain((2, 7, 7, 3)))
        assert not meets_deadline(plain((4, 20, 8, 1))[0], plain((2, 7, 7, 3)))

    @given(
        st.lists(st.tuples(st.integers(1, 6), st.integers(6, 30), st.integers(4, 40)), min_size=1, max_size=4)
    )
    @settings(max_examples=60)
    def test_opa_succeeds_wherever_some_order_does(self, rows: list[tuple[int, int, int]]) -> None:
        tasks = plain(*rows)
        some = any(
            all(meets_deadline(order[idx], order[:idx]) for idx in range(len(order)))
            for order in permutations(tasks)
        )
        assert (audsley(tasks, meets_deadline) is not None) == some

    def test_written_sets_know_opa(self) -> None:
        rows = (("100ms", "110ms"), ("140ms", "154ms"))
        tasks = [{"period": period, "wcet": "52ms", "deadline": deadline} for period, deadline in rows]
        (taskset,) = ExplicitTaskSets([{"priority": "opa", "tasks": tasks}]).variants()
        assert [task.priority_rank for task in taskset.tasks] == [1, 0]


def feasible_in_order(tasks: tuple[Task, ...]) -> list[bool]:
    order = sorted(tasks, key=lambda task: task.priority_rank)
    return [meets_deadline(task, order[:idx]) for idx, task in enumerate(order)]


class TestRandomTaskSets:
    """Sets composed of the rules."""

    def test_without_other_rules_they_are_uunifasts(self) -> None:
        arguments: dict[str, Any] = {
            "n_tasks": 5,
            "utilizations": [0.5, 0.9],
            "sets_per_utilization": 4,
            "periods": PERIODS,
        }
        ones = [one.taskset_id for one in random_sets().variants()]
        assert ones == [one.taskset_id for one in UUniFastTaskSets(**arguments, seed=7).variants()]

    def test_rules_reach_the_sets(self) -> None:
        source = random_sets(
            deadlines={"model": "constrained", "low": 0.5, "high": 0.9},
            priorities="dm",
            offsets=0.5,
            jitter=0.1,
            horizon="400ms",
            policy="rr",
        )
        for taskset in source.variants():
            order = sorted(taskset.tasks, key=lambda task: task.priority_rank)
            assert [task.deadline_ns for task in order] == sorted(task.deadline_ns or 0 for task in order)
            for task in taskset.tasks:
                cost, period, deadline = task.wcet_ns or 0, task.period_ns or 0, task.deadline_ns or 0
                assert cost + 0.5 * (period - cost) - 1 <= deadline <= cost + 0.9 * (period - cost)
                assert 0 <= task.offset_ns <= 0.5 * period
                assert 0 <= task.jitter_ns <= 0.1 * period
                assert task.n_jobs == math.ceil(min(400 * MS, 3 * (taskset.hyperperiod_ns or 0)) / period)
                assert task.policy is Policy.RR

    def test_a_further_rule_leaves_the_other_draws_as_they_were(self) -> None:
        """So that what differs between two variants is the rule, and not the chance."""
        bare, more = (
            random_sets().make(1, 2),
            random_sets(deadlines="constrained", jitter=0.1, offsets=1).make(1, 2),
        )
        assert [(t.wcet_ns, t.period_ns) for t in bare.tasks] == [
            (t.wcet_ns, t.period_ns) for t in more.tasks
        ]

    def test_several_values_are_variants_of_the_same_numbers(self) -> None:
        source = random_sets(
            policy=["fifo", "deadline"], deadlines=["implicit", "constrained"], n_tasks=[3, 4]
        )
        sets = list(source.variants())
        assert source.n_variants == len(sets) == 2 * 4 * 8
        assert len({one.name for one in sets}) == len({one.taskset_id for one in sets}) == len(sets)
        first = sets[:8]
        assert [len(one.tasks) for one in first] == [3] * 4 + [4] * 4
        assert {one.tasks[0].policy for one in first} == {Policy.FIFO, Policy.DEADLINE}
        assert len({tuple((t.wcet_ns, t.period_ns) for t in one.tasks) for one in first}) == 2

    def test_several_rules_for_periods(self) -> None:
        source = random_sets(periods=[PERIODS, "automotive", "uniform 10ms..20ms step 10ms"])
        assert source.n_variants == 2 * 4 * 3
        assert random_sets(periods=["automotive"]).n_variants == 8

    def test_any_set_can_be_made_again_from_what_is_stored_of_it(self) -> None:
        source = random_sets(
            policy=["fifo", "rr"],
            periods=["uniform 10ms..60ms step 10ms", {"kind": "harmonic", "first": ["10ms"], "max": "80ms"}],
            deadlines=["arbitrary", "implicit"],
            shares=["randfixedsum", "uunifast"],
            share_max=[0.9, 1.0],
            utilizations=[0.5],
            horizon=[None, "1s"],
        )
        for taskset in islice(source.variants(), 64):
            params = dict(taskset.provenance.params)
            places = params.pop("point_idx"), params.pop("set_idx")
            again = RandomTaskSets(**params, seed=taskset.provenance.seed or 0).make(*places)
            assert again.taskset_id == taskset.taskset_id
            assert taskset.provenance.generator in ("randfixedsum", "uunifast")

    def test_programs_of_the_original(self) -> None:
        source = random_sets(workload="mixed", utilizations=[], sets_per_utilization=50)
        tasks = [task for one in source.variants() for task in one.tasks]
        assert {task.workload for task in tasks} == {"hey", "pi", "tumatmul", "cond_mod"}
        assert all(task.wcet_ns is None for task in tasks)
        sizes = {task.workload_args["arg1"] for task in tasks if task.workload == "pi"}
        assert sizes <= {2**exponent for exponent in range(13, 22)}
        assert next(source.variants()).provenance.utilization_target is None

    def test_a_million_variants_take_no_memory(self) -> None:
        source = random_sets(sets_per_utilization=250_000, policy=["fifo", "rr"])
        assert source.n_variants == 1_000_000
        tracemalloc.start()
        try:
            stream = source.variants()
            next(stream)
            before, _ = tracemalloc.get_traced_memory()
            for _ in islice(stream, 500):
                pass
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 50_000
        assert before < 100_000

    @pytest.mark.parametrize(
        ("changes", "where", "hint"),
        [
            ({"shares": "uunifast", "utilizations": [1.5]}, "utilizations[0]", "randfixedsum"),
            ({"n_tasks": 10, "utilizations": [8]}, "utilizations[0]", "RandFixedSum"),
            ({"shares": "uunifst"}, "shares", "uunifast"),
            ({"share_bounds": [[0, 1]] * 5}, "share_bounds", "convolutionalfixedsum"),
            ({"shares": "convolutionalfixedsum", "share_bounds": [[0, 1]]}, "share_bounds", "one per task"),
            ({"shares": "convolutionalfixedsum", "n_tasks": 16}, "n_tasks", "randfixedsum"),
            ({"shares": "convolutionalfixedsum", "share_bounds": [[0, 0.15]] * 5}, "utilizations[1]", "lower it"),
            ({"shares": "independent_costs", "utilizations": [1.2]}, "utilizations[0]", "randfixedsum"),
            ({"shares": "independent_costs", "share_min": 0.01}, "utilizations[0]", "randfixedsum"),
            ({"share_min": 0.5}, "utilizations[0]", "share_min"),
            ({"share_min": 0.5, "share_max": 0.5}, "share_min", ""),
            ({"periods": "log_uniform 10ms..1s step 1ms"}, "periods", "horizon"),
            ({"periods": "uniform 10us..10s step 10us", "horizon": "1000s"}, "periods", "horizon"),
            ({"periods": "automotive", "policy": "deadline", "deadlines": "arbitrary"}, "deadlines", "constrained"),
            ({"periods": ["50us"], "policy": "deadline"}, "periods", "fifo"),
            ({"periods": ["5s"], "policy": ["fifo", "deadline"]}, "periods", "fifo"),
            ({"n_tasks": 50, "priorities": "opa"}, "n_tasks", "48"),
            ({"workload": "pi", "utilizations": [], "priorities": "opa"}, "workload", "spin"),
            ({"workload": "pi"}, "utilizations", "[]"),
            ({"workload": ["pi", "spin"]}, "workload", "two runs"),
            ({"workload": "py"}, "workload", "pi"),
            ({"utilizations": []}, "utilizations", "list"),
            ({"deadlines": "constraint"}, "deadlines", "constrained"),
            ({"deadlines": {"model": "constrained", "high": 1.5}}, "deadlines.high", ""),
            ({"deadlines": {"model": "constrained", "low": 0.9, "high": 0.5}}, "deadlines.low", ""),
            ({"jitter": -1}, "jitter", ""),
            ({"offsets": math.nan}, "offsets", ""),
            ({"horizon": "0s"}, "horizon", ""),
            ({"policy": []}, "policy", "value"),
            ({"n_tasks": list(range(1, 33)) * 2, "hyperperiods": [1, 2] * 100}, "hyperperiods", "fewer"),
            ({"jiter": 0.1}, "jiter", "jitter"),
        ],
    )  # fmt: skip
    def test_impossible_requests_name_the_alternative(
        self, changes: dict[str, Any], where: str, hint: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            random_sets(**changes)
        assert caught.value.where == where
        assert hint in caught.value.next_step


def scalars(*valid: object) -> st.SearchStrategy[Any]:
    """Mostly what makes sense, alone or several; sometimes anything."""
    one = st.sampled_from(valid)
    anything = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just({})
    )
    return st.one_of(one, one, one, st.lists(one, max_size=2), anything)


RULES = (
    *("automotive", "uniform 10ms..90ms step 10ms", "log_uniform 1ms..1s step 1ms"),
    {"kind": "harmonic", "first": "5ms", "max": "1s"},
)
REQUESTS = st.fixed_dictionaries(
    {
        "n_tasks": scalars(1, 2, 5, 10),
        "utilizations": st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.5, 4.0]) | st.floats(), max_size=3),
        "sets_per_utilization": st.just(2) | st.integers(),
        "periods": st.just(PERIODS) | scalars(*RULES),
    },
    optional={
        "shares": scalars(*(method.value for method in Shares)),
        "share_min": scalars(0.0, 0.05),
        "share_max": scalars(1.0, 0.5),
        "share_bounds": scalars(None, [[0.0, 0.5]] * 5),
        "deadlines": scalars("implicit", "constrained", "arbitrary", {"model": "constrained", "low": 0.0}),
        "priorities": scalars("rm", "dm", "opa", "explicit"),
        "offsets": scalars(0.0, 0.5, 100.0),
        "jitter": scalars(0.0, 0.1, 2.0),
        "workload": scalars("spin", "spin", "pi", "mixed"),
        "hyperperiods": scalars(0.1, 1, 3),
        "horizon": scalars(None, "1s", "100ms"),
        "policy": scalars("fifo", "rr", "deadline", "other"),
        "overrun_policy": scalars("continue", "kill_and_skip"),
        "admission_control": scalars(True, False),
        "dl_margin": scalars(0.0, 0.02),
        "dl_margin_least": scalars("0us", "100us", "10ms"),
        "seed": st.integers(0, 9) | st.integers(),
    },
)  # fmt: skip


@given(REQUESTS)
@settings(max_examples=300, deadline=None)
def test_any_request_is_refused_in_words_or_yields_valid_sets(request: dict[str, Any]) -> None:
    try:
        source = RandomTaskSets(**request)
    except UsageError as exc:
        if not exc.where:  # every refusal names the parameter
            raise
        return
    for taskset in islice(source.variants(), 4):
        assert isinstance(taskset, TaskSet)
        target = taskset.provenance.utilization_target
        if target is not None:
            n = len(taskset.tasks)
            assert taskset.utilization == pytest.approx(target, abs=n * 0.0021)
        (again,) = ExplicitTaskSets([write_down(taskset)]).variants()
        assert again.taskset_id == taskset.taskset_id


def test_streams_do_not_meet() -> None:
    places = [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 0, 2)]
    assert len({uniform_stream(1, *place)() for place in places}) == len(places)


class TestJitter:
    """Release jitter."""

    def test_a_set_without_it_is_what_it_was(self) -> None:
        assert "jitter_ns" not in Task(period_ns=10, wcet_ns=1).as_dict()
        assert Task(period_ns=10, wcet_ns=1, jitter_ns=2).as_dict()["jitter_ns"] == 2

    def test_delays_are_uniform_and_always_the_same(self) -> None:
        task = Task(period_ns=1000, wcet_ns=1, jitter_ns=99, n_jobs=5000)
        delays = [arrival_ns(task, 3, job) - task.release_ns(job) for job in range(5000)]
        assert set(delays) == set(range(100))
        assert statistics.fmean(delays) == pytest.approx(49.5, abs=2)
        assert delays[:4] == [arrival_ns(task, 3, job) - 1000 * job for job in range(4)]
        assert delays[:20] != [arrival_ns(task, 2, job) - 1000 * job for job in range(20)]

    def test_the_simulation_delays_jobs(self) -> None:
        """Responses count from the release; no job begins before it arrives, and one alone begins just then."""
        tasks = (Task(period_ns=10 * MS, wcet_ns=MS, jitter_ns=4 * MS, n_jobs=50),)
        jobs = [event.job for event in Simulation(TaskSet(tasks)).events() if isinstance(event, JobEvent)]
        assert [job.start_ns for job in jobs] == [arrival_ns(tasks[0], 0, idx) for idx in range(50)]
        assert [job.release_ns for job in jobs] == [10 * MS * idx for idx in range(50)]

    @given(st.data())
    @settings(max_examples=40, deadline=None)
    def test_no_simulated_response_exceeds_analysis(self, data: st.DataObject) -> None:
        periods = data.draw(st.lists(st.sampled_from([20, 30, 50]), min_size=1, max_size=4))
        tasks = rank_by(
            [
                Task(
                    period_ns=period * MS,
                    wcet_ns=data.draw(st.integers(1, 10)) * MS,
                    jitter_ns=data.draw(st.integers(0, 10)) * MS,
                    n_jobs=600 // period,
                )
                for period in periods
            ],
            "period_ns",
        )
        met = []
        for idx, task in enumerate(tasks):
            others = [other for place, other in enumerate(tasks) if place != idx]
            met.append(
                meets_deadline(task, [one for one in others if one.priority_rank <= task.priority_rank])
            )
        taskset = TaskSet(tasks)
        for event in Simulation(taskset).events():
            if isinstance(event, JobEvent) and met[event.job.task_idx]:
                assert event.job.missed(taskset) is not True

    def test_guests_refuse_it(self) -> None:
        jittery = TaskSet((Task(period_ns=10 * MS, wcet_ns=MS, jitter_ns=1),))
        with pytest.raises(TaskSetError, match="release jitter") as caught:
            wire.encode(jittery)
        assert "machines=simulation" in caught.value.next_step
        with pytest.raises(TaskSetError, match="release jitter"):
            encode_descriptions(jittery)


class TestBulk:
    """Many sets at once, as arrays."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"n_tasks": 10, "utilizations": [0.5, 0.9], "seed": 0},
            {"n_tasks": 5, "utilizations": [2.0, 2.5], "seed": 1 << 100},
            {"n_tasks": 1, "utilizations": [0.5, 0.5]},
            {
                "n_tasks": 4,
                "share_max": 0.6,
                "share_min": 0.01,
                "periods": ["1s", "999999937ns"],
                "horizon": "1s",
            },
        ],
    )
    def test_they_are_the_same_sets(self, changes: dict[str, Any]) -> None:
        source = random_sets(**{"sets_per_utilization": 10_000, **changes})
        many = make_many(source, 1, 7, 1000)
        for row in range(0, 1000, 5):
            tasks = source.make(1, 7 + row).tasks
            assert many.wcet_ns[row].tolist() == [task.wcet_ns for task in tasks]
            assert many.period_ns[row].tolist() == [task.period_ns for task in tasks]

    def test_where_c_is_a_whole_number_before_it_is_rounded(self) -> None:
        """Utilizations of .5 and periods of whole microseconds, with one task."""
        source = random_sets(n_tasks=1, utilizations=[0.5], sets_per_utilization=20_000)
        assert set(
            (make_many(source, 0, 0, 50).wcet_ns * 2 - make_many(source, 0, 0, 50).period_ns).ravel()
        ) == {0}

    @given(
        seed=st.integers(0, (1 << 128) - 1),
        first_idx=st.integers(0, 10**11),
        n_tasks=st.integers(1, 64),
        part=st.floats(0.01, 1.0),
        point_idx=st.integers(0, 1),
        periods=st.lists(st.integers(2_000, 9 * 10**17), min_size=1, max_size=9),
    )
    @settings(max_examples=200, deadline=None)
    def test_any_of_them_are_the_same(  # noqa: PLR0917 - what hypothesis draws
        self, seed: int, first_idx: int, n_tasks: int, part: float, point_idx: int, periods: list[int]
    ) -> None:
        source = random_sets(
            n_tasks=n_tasks,
            utilizations=[part, min(1.5, n_tasks) * part],
            sets_per_utilization=10**12 // 2,
            periods=[f"{period}ns" for period in periods],
            horizon="1us",
            policy="other",
            seed=seed,
        )
        first_idx = min(first_idx, (1 << 32) - 3)
        many = make_many(source, point_idx, first_idx, 3)
        for row in range(3):
            stream = uniform_stream(seed, point_idx, first_idx + row)
            costs, periods_ns = source.recipe(0).draw_times(source.totals[point_idx] or 0.0, stream)
            assert (many.wcet_ns[row].tolist(), many.period_ns[row].tolist()) == (costs, periods_ns)

    @pytest.mark.parametrize(
        "changes",
        [
            {"policy": ["fifo", "rr"]},
            {"periods": "automotive"},
            {"shares": "randfixedsum"},
            {"jitter": 0.1},
            {"deadlines": "constrained"},
        ],
    )
    def test_other_rules_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="source has"):
            make_many(random_sets(**changes), 0, 0, 2)

    def test_the_most_urgent_first(self) -> None:
        source = random_sets(sets_per_utilization=50)
        many = make_many(source, 0, 0, 50).rate_monotonic()
        for row in range(50):
            order = sorted(source.make(0, row).tasks, key=lambda task: task.priority_rank)
            assert many.wcet_ns[row].tolist() == [task.wcet_ns for task in order]

    @pytest.mark.parametrize("n_tasks", [1, 2, 3, 7, 10, 33, 64])
    def test_equal_periods_stay_in_their_order(self, n_tasks: int) -> None:
        rng = np.random.default_rng(n_tasks)
        given_sets = TaskSetArrays(rng.integers(1, 9, (300, n_tasks)), rng.integers(1, 9, (300, n_tasks)))
        found = given_sets.rate_monotonic()
        order = np.argsort(given_sets.period_ns, axis=1, kind="stable")
        assert np.array_equal(found.period_ns, np.take_along_axis(given_sets.period_ns, order, axis=1))
        assert np.array_equal(found.wcet_ns, np.take_along_axis(given_sets.wcet_ns, order, axis=1))

    def test_sets_that_are_not_there(self) -> None:
        with pytest.raises(UsageError, match="not so many"):
            make_many(random_sets(), 0, 3, 2)
