"""Where task sets come from: random, written down, and the examples."""

from __future__ import annotations

import math
import statistics
from itertools import islice
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner import tasksets as sources
from runner.errors import TaskSetError, UsageError
from runner.events import JobEvent
from runner.model import OverrunPolicy, Policy, TaskSet, TaskSetSource
from runner.simulator import Simulation
from runner.tasksets import ExplicitTaskSets, UUniFastTaskSets
from runner.tasksets.uunifast import MIN_WCET_NS, acceptance_probability, uunifast
from runner.units import NS_PER_MS
from tests.strategies import tasksets

PERIODS_NS = [ms * NS_PER_MS for ms in (20, 25, 30, 40, 50, 60, 75, 100, 150, 200)]


def generator(**changes: Any) -> UUniFastTaskSets:
    arguments: dict[str, Any] = {
        "n_tasks": 5,
        "utilizations": [0.5, 0.75, 1.0],
        "sets_per_utilization": 4,
        "periods": PERIODS_NS,
        "seed": 7,
    }
    return UUniFastTaskSets(**{**arguments, **changes})


class TestUUniFast:
    """The shares."""

    @pytest.mark.parametrize(
        ("n", "total", "mean", "variance"), [(4, 0.8, 0.2, 0.0240), (10, 0.9, 0.09, 0.006627)]
    )
    def test_moments(self, n: int, total: float, mean: float, variance: float) -> None:
        """E = U/n and Var = U²(n-1)/(n²(n+1)), the same for every position: uniform on the simplex."""
        random = Random(1)
        draws = [uunifast(n, total, random.random) for _ in range(20_000)]
        for position in range(n):
            shares = [draw[position] for draw in draws]
            assert statistics.fmean(shares) == pytest.approx(mean, rel=0.04)
            assert statistics.pvariance(shares) == pytest.approx(variance, rel=0.08)

    def test_tail_and_covariance(self) -> None:
        """P(u > x) = (1 - x/U)^(n-1); Cov = -U²/(n²(n+1))."""
        random = Random(2)
        draws = [uunifast(4, 0.8, random.random) for _ in range(20_000)]
        assert sum(draw[0] > 0.4 for draw in draws) / len(draws) == pytest.approx(0.125, abs=0.01)
        first, last = [d[0] for d in draws], [d[3] for d in draws]
        assert statistics.covariance(first, last) == pytest.approx(-0.008, abs=0.0008)

    @given(st.integers(1, 64), st.floats(0.01, 1.0), st.randoms(use_true_random=False))
    def test_shares_are_positive_and_sum_up(self, n: int, total: float, random: Random) -> None:
        shares = uunifast(n, total, random.random)
        assert len(shares) == n
        assert min(shares) >= 0
        assert math.fsum(shares) == pytest.approx(total)

    @pytest.mark.parametrize(
        ("n", "total", "expected"),
        [
            (4, 2, 0.5), (5, 2.5, 0.3680), (8, 4, 0.14746), (16, 8, 0.01272),
            (10, 2, 0.98047), (16, 4, 0.78985), (20, 4, 0.91580), (5, 1, 1.0), (3, 3, 0.0),
        ],
    )  # fmt: skip
    def test_acceptance_probability(self, n: int, total: float, expected: float) -> None:
        assert acceptance_probability(n, total) == pytest.approx(expected, rel=1e-3)

    def test_acceptance_probability_is_what_is_seen(self) -> None:
        random = Random(3)
        accepted = sum(max(uunifast(5, 2.5, random.random)) <= 1 for _ in range(5000))
        assert accepted / 5000 == pytest.approx(0.368, abs=0.03)


class TestUUniFastTaskSets:
    """The sets made from them."""

    def test_is_a_source(self) -> None:
        source: TaskSetSource = generator()
        assert source.n_variants == 12 == len(list(source.variants()))

    def test_the_first_round_covers_every_point(self) -> None:
        targets = [taskset.provenance.utilization_target for taskset in islice(generator().variants(), 3)]
        assert targets == [0.5, 0.75, 1.0]

    def test_sets_are_what_was_asked_for(self) -> None:
        for taskset in generator(sets_per_utilization=30).variants():
            target = taskset.provenance.utilization_target
            assert target is not None
            assert taskset.utilization == pytest.approx(target, abs=5 * MIN_WCET_NS / min(PERIODS_NS))
            assert len(taskset.tasks) == 5
            by_period = sorted(taskset.tasks, key=lambda task: task.period_ns or 0)
            assert [t.priority_rank for t in by_period] == sorted(t.priority_rank for t in by_period)
            for task in taskset.tasks:
                assert task.period_ns in PERIODS_NS
                assert task.relative_deadline_ns == task.period_ns
                assert task.policy is Policy.FIFO
                # Three hyperperiods hold a whole number of every task's periods.
                assert task.n_jobs * (task.period_ns or 0) == 3 * (taskset.hyperperiod_ns or 0)

    def test_all_periods_are_drawn_alike(self) -> None:
        drawn = [t.period_ns for s in generator(sets_per_utilization=400).variants() for t in s.tasks]
        for period_ns in PERIODS_NS:
            assert drawn.count(period_ns) / len(drawn) == pytest.approx(0.1, abs=0.02)

    def test_any_set_can_be_made_again_alone(self) -> None:
        everything = list(generator().variants())
        again = generator().make(1, 2)
        assert again == everything[2 * 3 + 1]
        assert again.taskset_id == everything[2 * 3 + 1].taskset_id
        assert again.provenance.params["point_idx"] == 1
        assert again.provenance.params["set_idx"] == 2
        assert again.provenance.seed == 7

    def test_provenance_is_enough_to_make_the_set_again(self) -> None:
        """Generator, parameters and seed: nothing else is needed, a year from now."""
        original = generator(policy=Policy.DEADLINE, hyperperiods=1).make(2, 3)
        parameters = dict(original.provenance.params)
        point_idx, set_idx = parameters.pop("point_idx"), parameters.pop("set_idx")
        again = UUniFastTaskSets(**parameters, seed=original.provenance.seed or 0)
        assert again.make(point_idx, set_idx) == original

    def test_more_sets_leave_the_others_as_they_were(self) -> None:
        larger = generator(sets_per_utilization=9, utilizations=[0.5, 0.75, 1.0, 0.9])
        assert all(larger.make(p, s) == generator().make(p, s) for p in range(3) for s in range(4))

    def test_sets_differ_by_seed_point_and_index(self) -> None:
        same_points = {"utilizations": [0.5, 0.5]}
        ids = {
            generator(seed=seed, **same_points).make(p, s).taskset_id
            for seed in (1, 2)
            for p in (0, 1)
            for s in (0, 1, 2)
        }
        assert len(ids) == 12

    def test_the_stream_never_changes(self) -> None:
        """Published experiments name a seed: a change here breaks them."""
        taskset = generator(seed=1).make(0, 0)
        written = [(3102709, 200), (883560, 50), (10257503, 40), (25669609, 200), (3281184, 40)]
        assert [(t.wcet_ns, (t.period_ns or 0) // NS_PER_MS) for t in taskset.tasks] == written

    def test_sums_above_one_are_redrawn_until_every_task_fits(self) -> None:
        for taskset in generator(utilizations=[2.5], sets_per_utilization=20).variants():
            assert all((task.utilization or 0) <= 1 for task in taskset.tasks)
            assert taskset.utilization == pytest.approx(2.5, abs=0.001)

    def test_sched_deadline_gets_its_margin(self) -> None:
        for task in generator(policy="deadline", dl_margin=0.1, dl_margin_least="0ns").make(0, 0).tasks:
            assert task.policy is Policy.DEADLINE
            assert (task.dl_runtime_ns or 0) == pytest.approx((task.wcet_ns or 0) * 1.1, abs=2)
            assert (task.dl_runtime_ns or 0) <= (task.period_ns or 0)

    def test_sched_deadline_gets_what_a_release_costs_however_short_the_job(self) -> None:
        for task in generator(policy="deadline", dl_margin=0.02).make(0, 0).tasks:
            wcet_ns = task.wcet_ns or 0
            assert (task.dl_runtime_ns or 0) - wcet_ns == max(math.ceil(wcet_ns * 0.02), 100_000)

    def test_options_reach_the_set(self) -> None:
        taskset = generator(overrun_policy="kill_and_skip", admission_control=False, hyperperiods=0.5).make(
            0, 0
        )
        assert taskset.overrun_policy is OverrunPolicy.KILL_AND_SKIP
        assert not taskset.admission_control
        half_ns = (taskset.hyperperiod_ns or 0) / 2
        assert all(t.n_jobs == math.ceil(half_ns / (t.period_ns or 1)) for t in taskset.tasks)

    def test_lazily(self) -> None:
        """Ten million sets are only made when they are asked for."""
        huge = generator(sets_per_utilization=10_000_000)
        assert huge.n_variants == 30_000_000
        assert len(list(islice(huge.variants(), 5))) == 5

    @pytest.mark.parametrize(
        ("changes", "key", "hint"),
        [
            ({"n_tasks": 0}, "n_tasks", ""),
            ({"n_tasks": 65}, "n_tasks", ""),
            ({"sets_per_utilization": 0}, "sets_per_utilization", ""),
            ({"utilizations": []}, "utilizations", "points"),
            ({"utilizations": [0.5, 5.5]}, "utilizations[1]", "n_tasks"),
            ({"utilizations": [0.0]}, "utilizations[0]", "n_tasks"),
            ({"utilizations": [-0.5]}, "utilizations[0]", "n_tasks"),
            ({"utilizations": [math.nan]}, "utilizations[0]", "n_tasks"),
            ({"utilizations": [4.9]}, "utilizations[0]", "RandFixedSum"),
            ({"periods": []}, "periods", "list"),
            ({"periods": [20 * NS_PER_MS, 0]}, "periods[1]", ""),
            ({"periods": [-1]}, "periods[0]", ""),
            ({"periods": [10**9 + 7, 10**9 + 9, 998_244_353]}, "periods", "common multiple"),
            ({"periods": [1009 * NS_PER_MS, 1013 * NS_PER_MS, 10_000]}, "periods", "common multiple"),
            ({"hyperperiods": 0}, "hyperperiods", ""),
            ({"hyperperiods": math.inf}, "hyperperiods", ""),
            ({"seed": -1}, "seed", ""),
            ({"dl_margin": -0.1}, "dl_margin", ""),
            ({"dl_margin": math.inf}, "dl_margin", ""),
            ({"dl_margin_least": "-1us"}, "dl_margin_least", ""),
            ({"dl_margin_least": "1"}, "dl_margin_least", ""),
            ({"seed": 1 << 20_000}, "seed", ""),
            ({"n_tasks": 1 << 20_000}, "n_tasks", ""),
            ({"sets_per_utilization": 10**400}, "sets_per_utilization", ""),
            ({"periods": [1 << 20_000]}, "periods[0]", ""),
            ({"periods": [20 * NS_PER_MS] * 1001}, "periods", ""),
            (
                {"n_tasks": 64, "utilizations": [1.0], "periods": [10**15 + 2 * k + 1 for k in range(45)]},
                "periods",
                "common multiple",
            ),
            ({"policy": "fiffo"}, "policy", "did you mean 'fifo'?"),
            ({"overrun_policy": "continu"}, "overrun_policy", "did you mean 'continue'?"),
            (
                {"n_tasks": 60, "periods": [20 * NS_PER_MS + 20_000 * k for k in range(60)]},
                "periods",
                "fewer different periods",
            ),
        ],
    )
    def test_impossible_requests_name_the_parameter(
        self, changes: dict[str, Any], key: str, hint: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            generator(**changes)
        assert caught.value.where == key
        assert caught.value.what.startswith(key)
        assert hint in caught.value.next_step

    def test_a_set_that_does_not_exist(self) -> None:
        with pytest.raises(UsageError, match="point_idx is 3"):
            generator().make(3, 0)
        with pytest.raises(UsageError, match="set_idx is -1"):
            generator().make(0, -1)


GOLDEN = """
- name: golden
  priority: rm
  overrun_policy: continue
  stop: 4.2s
  tasks:
    - {name: fast, period: 70ms, wcet: 28.5ms, n_jobs: 60}
    - {period: 200ms, wcet: 47500us, n_jobs: 21, offset: 0}
    - {period_ns: 120000000, wcet_ns: 28500000, n_jobs: 35}
"""


def explicit(text: str) -> ExplicitTaskSets:
    return ExplicitTaskSets(yaml.safe_load(text))


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        explicit(text)
    return caught.value


class TestExplicitTaskSets:
    """Sets that were written down."""

    def test_times_are_read_with_their_units(self) -> None:
        (taskset,) = explicit(GOLDEN).variants()
        assert taskset.name == "golden"
        assert taskset.stop_ns == 4_200_000_000
        assert [task.period_ns for task in taskset.tasks] == [70_000_000, 200_000_000, 120_000_000]
        assert [task.wcet_ns for task in taskset.tasks] == [28_500_000, 47_500_000, 28_500_000]
        assert [task.name for task in taskset.tasks] == ["fast", "task1", "task2"]
        assert [task.priority_rank for task in taskset.tasks] == [0, 2, 1], "rate-monotonic"
        assert taskset.provenance.generator == "explicit"

    def test_is_a_source(self) -> None:
        source: TaskSetSource = explicit(GOLDEN)
        assert source.n_variants == 1

    def test_every_attribute_can_be_written(self) -> None:
        (taskset,) = explicit("""
        - admission_control: false
          overrun_policy: abort_at_deadline
          stop_ns: 5000000
          tasks:
            - {name: a, period: 10ms, wcet: 1ms, deadline: 9ms, offset: 2ms, priority_rank: 4, n_jobs: 3, policy: rr,
               workload: executable, workload_args: {path: bin/thing, argv: [-v, "2"]}, kill_after_start: 5ms,
               mem_limit: 4M, cpu_affinity: [0, 1]}
            - {period: 10ms, policy: deadline, wcet: 1ms, dl_runtime: 1.5ms, workload_args: {cpu: 900us}}
        """).variants()
        assert not taskset.admission_control
        assert taskset.overrun_policy is OverrunPolicy.ABORT_AT_DEADLINE
        assert taskset.stop_ns == 5_000_000
        first, second = taskset.tasks
        assert first.as_dict() == {
            "name": "a",
            "period_ns": 10_000_000,
            "wcet_ns": 1_000_000,
            "deadline_ns": 9_000_000,
            "offset_ns": 2_000_000,
            "priority_rank": 4,
            "n_jobs": 3,
            "policy": "rr",
            "workload": "executable",
            "workload_args": {"path": "bin/thing", "argv": ["-v", "2"]},
            "kill_after_start_ns": 5_000_000,
            "mem_limit_bytes": 4 << 20,
            "cpu_affinity": [0, 1],
            "dl_runtime_ns": None,
        }
        assert (second.dl_runtime_ns, second.spin_ns) == (1_500_000, 900_000)

    def test_lists_are_several_values(self) -> None:
        source = explicit("""
        - tasks:
            - {period: [10ms, 40ms], wcet: 1ms}
            - {period: 20ms, workload: pi, workload_args: {arg1: [10, 20, 30]}}
        - tasks: [{period: 10ms, wcet: 1ms}]
        """)
        variants = list(source.variants())
        assert source.n_variants == len(variants) == 7
        assert [v.tasks[1].workload_args["arg1"] for v in variants[:3]] == [10, 20, 30]
        # Ranks belong to the variant: the same task is the more urgent one or the less urgent one.
        assert [v.tasks[0].priority_rank for v in variants[:6]] == [0, 0, 0, 1, 1, 1]
        assert len({v.taskset_id for v in variants}) == 7

    def test_a_list_that_is_a_value_stays_one(self) -> None:
        source = explicit("""
        - tasks:
            - {period: 10ms, wcet: 1ms, cpu_affinity: [0, 1]}
            - {period: 10ms, wcet: 1ms, cpu_affinity: [[0], [0, 1]]}
            - {period: 10ms, workload: executable, workload_args: {path: x, argv: [[a], [b, c], []]}}
        """)
        variants = list(source.variants())
        assert len(variants) == 6
        assert {v.tasks[0].cpu_affinity for v in variants} == {(0, 1)}
        assert {v.tasks[1].cpu_affinity for v in variants} == {(0,), (0, 1)}
        assert {v.tasks[2].workload_args["argv"] for v in variants} == {("a",), ("b", "c"), ()}

    @pytest.mark.parametrize(("priority", "ranks"), [("rm", [1, 0]), ("dm", [0, 1]), ("explicit", [0, 0])])
    def test_priorities(self, priority: str, ranks: list[int]) -> None:
        (taskset,) = explicit(f"""
        - priority: {priority}
          tasks: [{{period: 20ms, deadline: 5ms, wcet: 1ms}}, {{period: 10ms, wcet: 1ms}}]
        """).variants()
        assert [task.priority_rank for task in taskset.tasks] == ranks

    def test_priorities_left_out(self) -> None:
        (as_written,) = explicit("""
        - tasks: [{period: 20ms, wcet: 1ms, priority_rank: 3}, {period: 10ms, wcet: 1ms, priority_rank: 5}]
        """).variants()
        assert [task.priority_rank for task in as_written.tasks] == [3, 5]
        (by_period,) = explicit("- tasks: [{period: 20ms, wcet: 1ms}, {period: 10ms, wcet: 1ms}]").variants()
        assert [task.priority_rank for task in by_period.tasks] == [1, 0]
        (alone,) = explicit("- tasks: [{wcet: 1ms}]").variants()
        assert alone.tasks[0].period_ns is None

    @pytest.mark.parametrize(
        ("text", "where", "hint"),
        [
            ("- tasks: [{perod: 70ms}]", "tasksets.tasksets[0].tasks[0].perod", "did you mean 'period'?"),
            ("- tsks: []", "tasksets.tasksets[0].tsks", "did you mean 'tasks'?"),
            ("- tasks: [{zzz: 1}]", "tasksets.tasksets[0].tasks[0].zzz", "known: name"),
            ("- tasks: [{period: 70}]", "tasksets.tasksets[0].tasks[0].period", 'period: "10ms"'),
            ("- tasks: [{period: '70'}]", "tasksets.tasksets[0].tasks[0].period", 'period: "10ms"'),
            ("- tasks: [{period: true}]", "tasksets.tasksets[0].tasks[0].period", ""),
            ("- tasks: [{period: 70 parsecs}]", "tasksets.tasksets[0].tasks[0].period", "10ms"),
            ("- tasks: [{period: [10ms, 7x]}]", "tasksets.tasksets[0].tasks[0].period[1]", "10ms"),
            ("- tasks: [{period: []}]", "tasksets.tasksets[0].tasks[0].period", "leave it out"),
            ("- tasks: [{period_ns: 10ms}]", "tasksets.tasksets[0].tasks[0].period_ns", ""),
            ("- tasks: [{period: 1ms, period_ns: 5}]", "tasksets.tasksets[0].tasks[0].period_ns", ""),
            ("- tasks: [{n_jobs: many}]", "tasksets.tasksets[0].tasks[0].n_jobs", ""),
            ("- tasks: [{policy: fiffo}]", "tasksets.tasksets[0].tasks[0].policy", "did you mean 'fifo'?"),
            ("- tasks: [{policy: 3}]", "tasksets.tasksets[0].tasks[0].policy", ""),
            ("- tasks: [{name: 3}]", "tasksets.tasksets[0].tasks[0].name", ""),
            ("- tasks: [{mem_limit: 100}]", "tasksets.tasksets[0].tasks[0].mem_limit", "100M"),
            ("- tasks: [{cpu_affinity: 0}]", "tasksets.tasksets[0].tasks[0].cpu_affinity", ""),
            ("- tasks: [{workload_args: 5}]", "tasksets.tasksets[0].tasks[0].workload_args", ""),
            ("- tasks: [{workload_args: {arg1: x}}]", "tasksets.tasksets[0].tasks[0].workload_args.arg1", ""),
            (
                "- tasks: [{workload_args: {cpu: 5}}]",
                "tasksets.tasksets[0].tasks[0].workload_args.cpu",
                "cpu",
            ),
            ("- tasks: [hey]", "tasksets.tasksets[0].tasks[0]", ""),
            ("- tasks: {}", "tasksets.tasksets[0].tasks", ""),
            ("- hey", "tasksets.tasksets[0]", ""),
            ("- {}", "tasksets.tasksets[0]", ""),
            ("[]", "tasksets.tasksets", "at least one"),
            ("- admission_control: 1", "tasksets.tasksets[0].admission_control", ""),
            ("- stop: [1ms, 2ms]", "tasksets.tasksets[0].stop_ns", "one task set per value"),
            ("- {priority: rn, tasks: [{wcet: 1ms}]}", "tasksets.tasksets[0].priority", "rm"),
            (
                "- {priority: rm, tasks: [{wcet: 1ms, priority_rank: 1}]}",
                "tasksets.tasksets[0].tasks[0].priority_rank",
                "leave one",
            ),
            # What only the model knows is told with the place, too.
            ("- tasks: [{period: 10ms}]", "tasksets.tasksets[0].tasks[0]", ""),
            (
                "- tasks: [{period: 10ms, wcet: 11ms, policy: deadline}]",
                "tasksets.tasksets[0].tasks[0]",
                "shorten the runtime",
            ),
            # A combination in the middle of the list, found before anything runs.
            (
                "- tasks: [{period: [10ms, 2ms, 20ms], wcet: 5ms, policy: deadline}]",
                "tasksets.tasksets[0].tasks[0]",
                "shorten the runtime",
            ),
            ("- tasks: [{wcet: 1ms}, {wcet: 1ms}]", "tasksets.tasksets[0]", ""),
        ],
    )
    def test_what_is_wrong_is_named_in_full(self, text: str, where: str, hint: str) -> None:
        error = refused(text)
        assert error.where == where
        assert hint in error.next_step

    @given(tasksets())
    def test_any_set_that_is_written_down_is_read_as_it_was(self, taskset: TaskSet) -> None:
        written = {
            "name": taskset.name,
            "overrun_policy": taskset.overrun_policy.value,
            "admission_control": taskset.admission_control,
            "stop_ns": taskset.stop_ns,
            "priority": "explicit",
            "tasks": [task.as_dict() for task in taskset.tasks],
        }
        (read,) = explicit(yaml.safe_dump([written])).variants()
        assert read == taskset

    @pytest.mark.parametrize(
        "value",
        [
            1 << 20_000,
            [1 << 20_000],
            [{"tasks": [{"period": 1 << 20_000}]}],
            [{"tasks": [{"wcet": "1ms", "n_jobs": 1 << 20_000}]}],
            [{"tasks": [{"wcet": "1ms", "priority_rank": 1 << 63}]}],
            [{"tasks": [{"workload": "pi", "workload_args": {"arg1": 1 << 20_000}}]}],
            [{"name": 1 << 20_000, "tasks": [{"wcet": "1ms"}]}],
            [{"admission_control": 1 << 20_000, "tasks": [{"wcet": "1ms"}]}],
            [{"overrun_policy": 1 << 20_000, "tasks": [{"wcet": "1ms"}]}],
            [{"name": "a\ud800", "tasks": [{"wcet": "1ms"}]}],
            [{"tasks": [{"name": "a\nb", "wcet": "1ms"}]}],
            [{"tasks": [{"name": "x" * 201, "wcet": "1ms"}]}],
            [{"tasks": [{"workload": "executable", "workload_args": {"path": "a\0b"}}]}],
            [{"tasks": [{"workload": "executable", "workload_args": {"path": "a", "argv": ["\udcff"]}}]}],
            [{"tasks": [{"wcet": "1ms"}] * 65}],
            [{"x" * 10**6: 1, "tasks": []}],
        ],
        ids=range(16),
    )
    def test_what_no_table_can_hold_is_refused_in_a_few_words(self, value: Any) -> None:
        with pytest.raises(UsageError) as caught:
            ExplicitTaskSets(value)
        str(caught.value).encode()
        assert len(str(caught.value)) < 10_000

    def test_values_that_hold_each_other_are_not_unfolded(self) -> None:
        itself: list[Any] = []
        itself.append(itself)
        folded: list[Any] = ["x"]
        for _ in range(40):
            folded = [folded] * 9
        for one in (itself, [{"tasks": itself}], folded, [{"tasks": [{"period": folded}]}], {"a": folded}):
            with pytest.raises(UsageError):
                ExplicitTaskSets(one)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "task",
        [
            {key: ["1ms"] * 20 for key in ("period", "wcet", "deadline", "offset", "kill_after_start")},
            {"workload": "executable", "workload_args": {"path": ["a"] * 400, "argv": [["b"]] * 400}},
        ],
    )
    def test_more_combinations_than_can_be_checked_are_refused_at_once(self, task: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="combinations") as caught:
            ExplicitTaskSets([{"tasks": [task]}])
        assert caught.value.where.startswith("tasksets.tasksets[0].tasks[0]")

    def test_combinations_count_over_all_sets(self) -> None:
        some = {"period": ["10ms"] * 300, "wcet": ["1ms"] * 300}
        with pytest.raises(UsageError, match="combinations"):
            ExplicitTaskSets([{"tasks": [some]}, {"tasks": [some]}])

    def test_more_variants_than_64_bits_count_are_endless(self) -> None:
        tasks = [{"period": ["10ms", "20ms"], "wcet": "100us"}] * 64
        source = ExplicitTaskSets([{"tasks": tasks}])
        assert source.n_variants is None
        assert len(list(islice(source.variants(), 3))) == 3

    def test_the_key_can_be_another(self) -> None:
        with pytest.raises(UsageError, match=r"^sets\[0\]\.tsks is not known"):
            ExplicitTaskSets([{"tsks": []}], key="sets")


EXAMPLES = [name for name in sources.__all__ if not name.endswith("TaskSets")]


class TestExamples:
    """The sets that users of the original know."""

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_can_be_made_without_arguments(self, name: str) -> None:
        example: TaskSet = getattr(sources, name)()
        variants = list(example.variants())
        assert example.name == name
        assert len(variants) == example.n_variants
        assert all(type(variant) is TaskSet and not variant.choices for variant in variants)
        assert len({variant.taskset_id for variant in variants}) == len(variants)

    def test_every_workload_has_one(self) -> None:
        used = {t.workload for name in EXAMPLES for t in getattr(sources, name)().tasks}
        assert used == {
            "spin", "hey", "namaste", "pi", "tumatmul", "linpack", "cond_mod", "cond_42", "idle",
        }  # fmt: skip

    def test_every_example_is_in_the_table(self) -> None:
        documentation = sources.examples.__doc__ or ""
        assert all(f"`{name}`" in documentation for name in EXAMPLES)

    def test_what_the_table_says_of_spin(self) -> None:
        (taskset,) = sources.Spin0TaskSet().variants()
        assert taskset.utilization == pytest.approx(0.88, abs=0.005)
        jobs = [event.job for event in Simulation(taskset).events() if isinstance(event, JobEvent)]
        assert len(jobs) == 116
        assert not any(job.missed(taskset) for job in jobs)

    def test_workloads_of_unknown_cost_cannot_be_simulated(self) -> None:
        with pytest.raises(TaskSetError):
            Simulation(sources.Hey0TaskSet())
