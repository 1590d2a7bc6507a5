"""Tasks and task sets check themselves: whoever holds one holds a valid one."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given

from runner.errors import UsageError
from runner.model import MAX_TASKS, WORKLOADS, OverrunPolicy, Policy, Task, TaskSet, TaskSetSource, rank_by
from runner.model.task import MAX_JOBS_PER_TASK, ONE_SHOT_LIMIT_NS
from runner.model.taskset import MAX_PRIORITY_LEVELS
from runner.units import MAX_TIME_NS, NS_PER_MS
from tests.strategies import tasks, tasksets

MS = NS_PER_MS


def task(**changes: Any) -> Task:
    return Task(**{"name": "tau", "period_ns": 10 * MS, "wcet_ns": MS, **changes})


class TestTask:
    """One task."""

    def test_deadline_is_implicit(self) -> None:
        assert task().relative_deadline_ns == 10 * MS
        assert task(deadline_ns=7 * MS).relative_deadline_ns == 7 * MS
        assert task(period_ns=None).relative_deadline_ns is None

    def test_releases_are_nominal(self) -> None:
        assert [task(offset_ns=3, n_jobs=3).release_ns(k) for k in range(3)] == [3, 10 * MS + 3, 20 * MS + 3]

    def test_utilization_is_exact(self) -> None:
        assert task(period_ns=3, wcet_ns=1).utilization == Fraction(1, 3)
        assert task(period_ns=None).utilization is None
        assert task(workload="hey", wcet_ns=None).utilization is None

    def test_spin_time(self) -> None:
        assert task().spin_ns == MS
        assert task(workload_args={"cpu_ns": 5}).spin_ns == 5

    def test_budget(self) -> None:
        assert task(policy="deadline").dl_budget_ns == MS
        assert task(policy="deadline", dl_runtime_ns=2 * MS).dl_budget_ns == 2 * MS

    @pytest.mark.parametrize(
        ("changes", "end_ns"),
        [
            ({"n_jobs": 3}, 30 * MS),
            ({"n_jobs": 3, "offset_ns": MS}, 31 * MS),
            ({"n_jobs": 3, "deadline_ns": 25 * MS}, 45 * MS),
            ({"n_jobs": 3, "deadline_ns": 5 * MS}, 30 * MS),
            ({"period_ns": None, "deadline_ns": 5 * MS}, 5 * MS),
            ({"period_ns": None, "kill_after_start_ns": 8 * MS, "offset_ns": MS}, 9 * MS),
            ({"period_ns": None}, ONE_SHOT_LIMIT_NS),
        ],
    )
    def test_end(self, changes: dict[str, Any], end_ns: int) -> None:
        assert task(**changes).end_ns == end_ns

    @pytest.mark.parametrize(
        ("changes", "field", "hint"),
        [
            ({"period_ns": 0}, "period_ns", ""),
            ({"period_ns": -5}, "period_ns", ""),
            ({"wcet_ns": 0}, "wcet_ns", ""),
            ({"deadline_ns": 0}, "deadline_ns", ""),
            ({"kill_after_start_ns": 0}, "kill_after_start_ns", ""),
            ({"mem_limit_bytes": 0}, "mem_limit_bytes", ""),
            ({"period_ns": MAX_TIME_NS + 1}, "period_ns", ""),
            ({"offset_ns": -1}, "offset_ns", ""),
            ({"priority_rank": -1}, "priority_rank", ""),
            ({"n_jobs": 0}, "n_jobs", ""),
            ({"n_jobs": MAX_JOBS_PER_TASK + 1}, "n_jobs", ""),
            ({"n_jobs": 2, "period_ns": None}, "n_jobs", "period"),
            ({"n_jobs": 1000, "period_ns": MAX_TIME_NS // 100}, "n_jobs", ""),
            ({"cpu_affinity": (64,)}, "cpu_affinity", ""),
            ({"cpu_affinity": (-1,)}, "cpu_affinity", ""),
            ({"workload": "hay"}, "workload", "hey"),
            ({"workload": "pi"}, "workload_args.arg1", ""),
            ({"workload": "pi", "workload_args": {"arg1": -1}}, "workload_args.arg1", ""),
            ({"workload": "pi", "workload_args": {"arg1": "many"}}, "workload_args.arg1", ""),
            ({"workload": "hey", "workload_args": {"arg2": 1}}, "workload_args.arg2", ""),
            ({"workload": "executable"}, "workload_args.path", ""),
            ({"wcet_ns": None}, "wcet_ns", ""),
            ({"workload_args": {"cpu_ns": 0}}, "workload_args.cpu_ns", ""),
            ({"policy": "deadline", "wcet_ns": 11 * MS}, "wcet_ns", "shorten the runtime"),
            ({"policy": "deadline", "dl_runtime_ns": 11 * MS}, "dl_runtime_ns", "shorten the runtime"),
            ({"policy": "deadline", "deadline_ns": 11 * MS}, "deadline_ns", "fifo"),
            ({"policy": "deadline", "dl_runtime_ns": 1023}, "dl_runtime_ns", ""),
            ({"policy": "deadline", "period_ns": 99_999, "wcet_ns": 2000}, "period_ns", ""),
            ({"policy": "deadline", "period_ns": 5000 * MS}, "period_ns", ""),
            ({"policy": "deadline", "period_ns": None}, "period_ns", ""),
            (
                {"policy": "deadline", "wcet_ns": None, "workload": "hey"},
                "dl_runtime_ns",
                "",
            ),
            (
                {"policy": "deadline", "workload": "executable", "workload_args": {"path": "x"}},
                "policy",
                "fifo",
            ),
        ],
    )
    def test_what_is_wrong_names_task_and_field(self, changes: dict[str, Any], field: str, hint: str) -> None:
        with pytest.raises(UsageError) as caught:
            task(**changes)
        assert caught.value.what.startswith(f"task 'tau'.{field} ")
        assert hint in caught.value.next_step

    def test_nothing_in_it_can_be_changed(self) -> None:
        """Monitors of the original changed the tasks that they were shown."""
        arguments: dict[str, Any] = {"cpu_ns": 5}
        made = task(workload_args=arguments)
        arguments["cpu_ns"] = 6
        assert made.spin_ns == 5
        with pytest.raises(TypeError):
            made.workload_args["cpu_ns"] = 7  # type: ignore[index]
        with pytest.raises(FrozenInstanceError):
            made.wcet_ns = 5  # type: ignore[misc]

    @given(tasks())
    def test_plain_values_make_the_task_again(self, drawn: Task) -> None:
        plain = drawn.as_dict()
        plain["workload_args"] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in plain["workload_args"].items()
        }
        assert Task(**{**plain, "cpu_affinity": tuple(plain["cpu_affinity"])}) == drawn

    @given(tasks())
    def test_no_release_lies_beyond_the_end(self, drawn: Task) -> None:
        assert drawn.release_ns(drawn.n_jobs - 1) < drawn.end_ns <= MAX_TIME_NS

    def test_the_kinds_of_workload_are_those_of_the_protocol(self) -> None:
        assert set(WORKLOADS) == {
            "spin", "hey", "namaste", "pi", "tumatmul", "linpack", "cond_mod", "cond_42", "idle", "executable",
        }  # fmt: skip


class TestTaskSet:
    """Tasks that run together."""

    @pytest.mark.parametrize("n", [0, MAX_TASKS + 1])
    def test_number_of_tasks(self, n: int) -> None:
        with pytest.raises(UsageError, match=rf"tasks has {n} tasks, must have 1…{MAX_TASKS}"):
            TaskSet((task(),) * n)
        assert len(TaskSet((task(),) * MAX_TASKS).tasks) == MAX_TASKS

    def test_number_of_priority_levels(self) -> None:
        """Ranks of tasks that have no fixed priority do not count."""
        ranked = tuple(task(priority_rank=rank) for rank in range(MAX_PRIORITY_LEVELS + 1))
        with pytest.raises(UsageError, match="use 49 priority ranks; a guest has 48"):
            TaskSet(ranked)
        TaskSet((*ranked[:-1], replace(ranked[-1], policy=Policy.OTHER)))

    def test_priorities_keep_the_order_of_ranks(self) -> None:
        """Dense and from the top, above the interrupt threads (50) and below the supervisor (99)."""
        ranks = [70, 3, 70, 12]
        made = TaskSet(
            (*(task(priority_rank=r) for r in ranks), task(policy="other"), task(policy="deadline"))
        )
        assert [made.priority(t) for t in made.tasks] == [96, 98, 96, 97, 0, 0]
        full = TaskSet(tuple(task(priority_rank=r) for r in range(MAX_PRIORITY_LEVELS)))
        assert min(full.priority(t) for t in full.tasks) == 51

    def test_end(self) -> None:
        assert TaskSet((task(n_jobs=2), task(n_jobs=3))).end_ns == 30 * MS
        assert TaskSet((task(n_jobs=2),), stop_ns=5).end_ns == 5
        with pytest.raises(UsageError, match="stop_ns"):
            TaskSet((task(),), stop_ns=0)

    def test_sums(self) -> None:
        made = TaskSet((task(), task(period_ns=15 * MS, wcet_ns=3 * MS)))
        assert made.utilization == pytest.approx(0.3)
        assert made.hyperperiod_ns == 30 * MS
        unknown = TaskSet((task(), task(period_ns=None)))
        assert unknown.utilization is None
        assert unknown.hyperperiod_ns is None

    def test_a_hyperperiod_beyond_the_range_is_unknown(self) -> None:
        periods = (10**9 + 7, 10**9 + 9, 998_244_353)
        assert TaskSet(tuple(task(period_ns=p) for p in periods)).hyperperiod_ns is None

    def test_identity_is_what_is_executed(self) -> None:
        made = TaskSet((task(), task(priority_rank=1)), name="a")
        assert made.taskset_id == TaskSet((task(name="x"), task(priority_rank=1)), name="b").taskset_id
        others = [
            TaskSet((task(priority_rank=1), task())),
            TaskSet((task(), task(priority_rank=1)), overrun_policy=OverrunPolicy.KILL_AND_SKIP),
            TaskSet((task(), task(priority_rank=1)), admission_control=False),
            TaskSet((task(), task(priority_rank=1)), stop_ns=5 * MS),
            TaskSet((task(n_jobs=2), task(priority_rank=1))),
        ]
        assert len({made.taskset_id, *(other.taskset_id for other in others)}) == 6

    def test_identity_never_changes(self) -> None:
        """It is the key of published data: a change here breaks every resumed run."""
        assert TaskSet((task(),)).taskset_id == "6b661e1ecde1a991"

    @given(tasksets())
    def test_any_valid_set_has_consistent_properties(self, drawn: TaskSet) -> None:
        assert len(drawn.taskset_id) == 16
        assert list(drawn.variants()) == [drawn]
        assert drawn.n_variants == 1
        for one in drawn.tasks:
            fixed = one.policy in (Policy.FIFO, Policy.RR)
            assert (51 <= drawn.priority(one) <= 98) if fixed else drawn.priority(one) == 0


class TestVariants:
    """Attributes with several values."""

    def test_every_combination_the_last_fastest(self) -> None:
        made = TaskSet(
            (task(), task()), choices={(0, "priority_rank"): (0, 1), (1, "n_jobs"): (5, 6, 7)}, name="many"
        )
        seen = [(v.tasks[0].priority_rank, v.tasks[1].n_jobs) for v in made.variants()]
        assert seen == [(0, 5), (0, 6), (0, 7), (1, 5), (1, 6), (1, 7)]
        assert made.n_variants == 6
        assert all(v.name == "many" and not v.choices for v in made.variants())

    def test_several_attributes_of_one_task(self) -> None:
        made = TaskSet((task(),), choices={(0, "period_ns"): (20 * MS, 30 * MS), (0, "n_jobs"): (2,)})
        assert [(v.tasks[0].period_ns, v.tasks[0].n_jobs) for v in made.variants()] == [
            (20 * MS, 2),
            (30 * MS, 2),
        ]

    def test_endless(self) -> None:
        """The original listed all of them in memory first; here the first attribute may go on for ever."""
        made = TaskSet((task(),), choices={(0, "n_jobs"): count(1), (0, "priority_rank"): (0, 1)})
        assert made.n_variants is None
        seen = [(v.tasks[0].n_jobs, v.tasks[0].priority_rank) for v in islice(made.variants(), 5)]
        assert seen == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]

    def test_an_attribute_that_does_not_exist(self) -> None:
        with pytest.raises(UsageError, match="'perod' of task 0"):
            TaskSet((task(),), choices={(0, "perod"): (1,)})
        with pytest.raises(UsageError, match="of task 1"):
            TaskSet((task(),), choices={(1, "period_ns"): (1,)})

    def test_a_set_is_a_source_and_so_is_a_class_of_the_users(self) -> None:
        class Own:
            n_variants = 2

            def variants(self) -> Iterator[TaskSet]:
                yield from (TaskSet((task(n_jobs=n),)) for n in (1, 2))

        sources: list[TaskSetSource] = [TaskSet((task(),))]
        assert sources[0].n_variants == 1
        assert len(list(Own().variants())) == Own.n_variants


class TestRankBy:
    """Rate- and deadline-monotonic order."""

    def test_equal_values_share_a_rank(self) -> None:
        periods_ms = (30, 10, 30, 20)
        ranked = rank_by((task(period_ns=ms * MS) for ms in periods_ms), "period_ns")
        assert [t.priority_rank for t in ranked] == [2, 0, 2, 1]
        assert [t.period_ns for t in ranked] == [ms * MS for ms in periods_ms], "the order of tasks stays"

    def test_by_deadline(self) -> None:
        ranked = rank_by((task(), task(period_ns=20 * MS, deadline_ns=5 * MS)), "deadline_ns")
        assert [t.priority_rank for t in ranked] == [1, 0]

    def test_a_task_without_a_place_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"task 'single'\.period_ns is missing"):
            rank_by((task(), task(name="single", period_ns=None)), "period_ns")


@given(tasksets())
def test_plain_pickle_takes_a_task_set_as_it_is(taskset: TaskSet) -> None:
    """What goes to another process thousands of times a second is not to need a slower way."""
    twin = pickle.loads(pickle.dumps(taskset))
    assert twin == taskset
    assert twin.taskset_id == taskset.taskset_id
    with pytest.raises(TypeError):
        twin.tasks[0].workload_args["cpu_ns"] = 1
