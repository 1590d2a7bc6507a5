"""Sources that follow results: the same sets on any number of machines, in any order, and after any interruption."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import combinations, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.progress import read_progress
from runner.distributor import Distributor
from runner.errors import Fault, GuestDied, TaskSetError, UsageError
from runner.events import JobEvent, Outcome, RunResult, Validity
from runner.machines.kinds import without_host
from runner.model import TaskSet, TaskSetSource
from runner.model.adaptive import AdaptiveSource, Rounds, Verdict, uninformed
from runner.monitors.channel import MonitorChannel
from runner.monitors.dispatcher import MonitorDispatcher
from runner.monitors.sqlite import SQLiteMonitor
from runner.queue.lease import Job, Lease
from runner.queue.supply import Supply
from runner.queue.taskset_queue import TaskSetQueue
from runner.sessions.simulation import SimulationSession
from runner.simulator import Simulation
from runner.tasksets import BoundaryTaskSets, GrowingTaskSets
from runner.tasksets.growing import grown
from tests.fleet_samples import one, wait_to_end
from tests.monitor_samples import Recorder
from tests.test_progress import run_of

PERIODS = ["20ms", "25ms", "30ms", "40ms", "50ms", "60ms", "75ms", "100ms", "150ms", "200ms"]
UTILIZATIONS = [0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0]


def boundary(n_sets: int = 60, **changes: Any) -> BoundaryTaskSets:
    arguments: dict[str, Any] = {
        "n_tasks": 4,
        "utilizations": UTILIZATIONS,
        "periods": PERIODS,
        "hyperperiods": 1,
    }
    return BoundaryTaskSets(n_sets=n_sets, round=8, seed=3, **{**arguments, **changes})


def growing(**changes: Any) -> GrowingTaskSets:
    """Seven tasks with 30 % each: any three fit, no four do."""
    tasks = [
        {"name": f"t{k}", "period": f"{20 + 10 * k}ms", "wcet": f"{6 + 3 * k}ms", "n_jobs": 4}
        for k in range(7)
    ]
    return GrowingTaskSets(**{"tasks": tasks, "max_tasks": 4, **changes})


class Scripted:
    """Rounds of that many sets; each set's number tells the verdicts on the round before."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.told: list[list[Verdict]] = []

    n_variants = None

    def variants(self) -> Iterator[TaskSet]:
        return uninformed(self.rounds())

    def rounds(self) -> Rounds:
        number = 0
        for size in self.sizes:
            verdicts = yield (one(number * 100 + place) for place in range(size))
            self.told.append(list(verdicts))
            number = number * 7 + sum(3**place * (verdict is True) for place, verdict in enumerate(verdicts))


def measured(lease: Lease) -> RunResult:
    jobs = tuple(event.job for event in Simulation(lease.taskset).events() if isinstance(event, JobEvent))
    return RunResult(outcome=Outcome.COMPLETED, jobs=jobs, validity=Validity.COMPUTED)


class Worker:
    """A runner with several machines, that end in an order of chance; forgets everything but its file."""

    def __init__(
        self, path: Path, source: TaskSetSource, *, repeat: int = 1, n_machines: int = 1, seed: int = 0
    ) -> None:
        self._owned = ExitStack()
        progress = read_progress(path)
        dispatcher = self._owned.enter_context(MonitorDispatcher())
        self._channel = dispatcher.channel((SQLiteMonitor(path),))
        self.queue = TaskSetQueue(Job(source, self._channel, progress=progress), repeat=repeat)
        self._channel.submission(self.queue.submission)
        self._random = Random(seed)
        self._n_machines = n_machines
        self.ids: dict[int, str] = {}

    def work(self, n_ends: int | None = None) -> None:
        """Measure until nothing is left, or so many measurements have ended."""
        leases: list[Lease] = []
        while n_ends is None or n_ends > 0:
            while len(leases) < self._n_machines and (lease := self.queue.acquire()) is not None:
                self._channel.start(run_of(lease))
                self.ids[lease.set_idx] = lease.taskset.taskset_id
                leases.append(lease)
            if not leases:
                assert self.queue.drained
                return
            lease = leases.pop(self._random.randrange(len(leases)))
            result = measured(lease)
            self._channel.finish(run_of(lease), result)
            self.queue.done(lease, result)
            n_ends = None if n_ends is None else n_ends - 1

    def close(self) -> None:
        self._owned.close()


def order(ids: dict[int, str]) -> list[str]:
    return [ids[idx] for idx in sorted(ids)]


class TestSupply:
    """Rounds, one after the other."""

    def test_a_plain_source_is_drawn_from(self) -> None:
        supply = Supply(one())
        assert not supply.wants_verdicts
        assert supply.next() is not None
        supply.tell(0, True)
        assert supply.next() is None
        assert supply.ended

    def test_the_next_round_waits_for_every_verdict_and_gets_them_in_order(self) -> None:
        source = Scripted(3, 2)
        supply = Supply(source)
        assert all(supply.next() is not None for _ in range(3))
        supply.tell(2, True)
        supply.tell(0, False)
        assert supply.next() is None
        assert not supply.ended
        supply.tell(1, None)
        assert supply.next() is not None
        assert source.told == [[False, None, True]]

    def test_verdicts_may_come_before_the_round_is_drawn(self) -> None:
        source = Scripted(2, 1)
        supply = Supply(source)
        for idx in range(3):
            assert supply.next() is not None
            supply.tell(idx, True)
        assert supply.next() is None
        assert supply.ended
        assert source.told == [[True, True], [True]]

    def test_an_empty_round_is_followed_by_the_next(self) -> None:
        supply = Supply(Scripted(0, 1, 0))
        assert supply.next() is not None
        supply.tell(0, True)
        assert supply.next() is None
        assert supply.ended

    def test_without_verdicts(self) -> None:
        assert len(list(Scripted(2, 0, 3).variants())) == 5


class TestQueue:
    """What a queue tells its source."""

    def queue(self, source: AdaptiveSource, repeat: int = 1) -> TaskSetQueue:
        return TaskSetQueue(Job(source, MonitorChannel((), lambda call: None)), repeat=repeat)

    def test_a_machine_without_a_set_waits_for_the_others(self) -> None:
        queue = self.queue(Scripted(1, 1))
        lease = queue.acquire()
        assert lease is not None
        assert queue.acquire() is None
        assert not queue.drained
        assert queue.n_left is None
        queue.done(lease, measured(lease))
        second = queue.acquire()
        assert second is not None
        assert not queue.drained
        queue.done(second, measured(second))
        assert queue.acquire() is None
        assert (queue.drained, queue.n_total, queue.n_done) == (True, 2, 2)

    def test_a_set_that_is_given_up_has_no_verdict(self) -> None:
        source = Scripted(2, 0)
        queue = self.queue(source)
        good, bad = queue.acquire(), queue.acquire()
        assert good is not None
        assert bad is not None
        assert queue.give_back(bad, TaskSetError("x"))
        queue.done(good, measured(good))
        assert queue.acquire() is None
        assert queue.drained
        assert source.told == [[True, None], []]

    def test_what_gives_way_is_tried_again_when_nothing_else_can_come(self) -> None:
        queue = self.queue(Scripted(1, 1))
        lease = queue.acquire()
        assert lease is not None
        queue.give_back(lease, GuestDied("x", fault=Fault.TASKSET))
        again = queue.acquire()
        assert again is not None
        assert again.attempt == 2

    def test_all_repetitions_count(self) -> None:
        source = Scripted(1, 0)
        queue = self.queue(source, repeat=2)
        first, second = queue.acquire(), queue.acquire()
        assert first is not None
        assert second is not None
        queue.done(first, measured(first))
        queue.done(second, RunResult(outcome=Outcome.REJECTED))
        assert queue.acquire() is None
        assert source.told == [[False], []]


MAKERS: list[Callable[[], TaskSetSource]] = [growing, boundary]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("repeat", [1, 2])
def test_the_same_sets_whatever_the_order_and_the_interruptions(
    tmp_path: Path, make: Callable[[], TaskSetSource], repeat: int
) -> None:
    plain = Worker(tmp_path / "plain.sqlite", make(), repeat=repeat)
    plain.work()
    plain.close()
    for seed in (1, 2):
        ids: dict[int, str] = {}
        for n_ends in (5, 1, 17, 0, 30, None):
            worker = Worker(tmp_path / f"{seed}.sqlite", make(), repeat=repeat, n_machines=3, seed=seed)
            worker.work(n_ends)
            ids.update(worker.ids)
            worker.close()
        assert order(ids) == order(plain.ids)


@pytest.mark.parametrize("n_machines", [1, 3])
def test_a_fleet_follows_results(tmp_path: Path, n_machines: int) -> None:
    recorder = Recorder()
    with Distributor(
        n_machines, kind=without_host(lambda host: SimulationSession(), ideal=True), folder=tmp_path / "run"
    ) as fleet:
        fleet.add_job(growing(), recorder)
        wait_to_end(fleet)
        state = fleet.get_distributor_state()
    # 7 tasks, all pairs, all triples; and no set of four, for no triple that has room for a fourth is missing.
    assert (state.n_done, state.n_bad) == (state.n_total, 0)
    assert state.n_done > 7 + 21


class TestGrowing:
    """Every task alone first, then only combinations of sets that succeeded."""

    def sets(self, verdict: Callable[[Sequence[int]], Verdict], **changes: Any) -> list[tuple[int, ...]]:
        rounds = growing(**changes).rounds()
        found: list[tuple[int, ...]] = []
        verdicts: list[Verdict] | None = None
        while True:
            try:
                sets = list(next(rounds) if verdicts is None else rounds.send(verdicts))
            except StopIteration:
                return found
            members = [tuple(one.provenance.params["tasks"]) for one in sets]
            found += members
            verdicts = [verdict(one) for one in members]

    def test_all_combinations_if_all_succeed(self) -> None:
        expected = [one for size in (1, 2, 3, 4) for one in combinations(range(7), size)]
        assert self.sets(lambda members: True) == expected

    def test_no_set_of_which_a_part_failed(self) -> None:
        found = self.sets(lambda members: set(members) not in ({2}, {0, 1}))
        assert (0, 1) in found
        assert not [one for one in found if len(one) > 1 and 2 in one]
        assert not [one for one in found if len(one) > 2 and {0, 1} <= set(one)]
        assert (0, 3, 4, 5) in found

    def test_what_is_open_is_no_success(self) -> None:
        assert self.sets(lambda members: None) == [(idx,) for idx in range(7)]
        assert len(list(growing().variants())) == 7

    @given(
        st.sets(
            st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)).filter(
                lambda t: t[0] < t[1] < t[2]
            )
        )
    )
    def test_grown_is_what_the_definition_says(self, known: set[tuple[int, ...]]) -> None:
        expected = [
            one for one in combinations(range(6), 4) if all(part in known for part in combinations(one, 3))
        ]
        assert list(grown(sorted(known))) == expected

    def test_several_values_are_several_tasks(self) -> None:
        source = growing(
            tasks=[{"period": ["10ms", "20ms"], "wcet": "1ms"}, {"period": "30ms", "wcet": "1ms"}]
        )
        assert [one.tasks[0].period_ns for one in source.variants()] == [10_000_000, 20_000_000, 30_000_000]

    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"tasks": []}, "tasks"),
            ({"tasks": [{"period": "10ms", "wcet": "1ms", "n_job": 1}]}, "tasks[0].n_job"),
            ({"tasks": [7]}, "tasks[0]"),
            ({"max_tasks": 0}, "max_tasks"),
            ({"priority": "rn"}, "priority"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], where: str) -> None:
        with pytest.raises(UsageError) as caught:
            growing(**changes)
        assert caught.value.where == where


class TestBoundary:
    """Measurements where schedulability flips."""

    def test_nothing_known_is_the_same_everywhere(self) -> None:
        targets = [one.provenance.utilization_target for one in boundary(70).variants()]
        assert {targets.count(total) for total in UTILIZATIONS} == {10}

    def test_measurements_gather_where_it_flips_and_classes_are_balanced(self) -> None:
        """Schedulable sets become rare between .8 and .95."""
        counts = dict.fromkeys(UTILIZATIONS, 0)
        n_good = 0
        rounds = boundary(200, utilizations=UTILIZATIONS).rounds()
        random = Random(1)
        sets = next(rounds)
        while True:
            verdicts: list[Verdict] = []
            for one_set in sets:
                total = one_set.provenance.utilization_target or 0.0
                chance = {0.8: 0.9, 0.85: 0.7, 0.9: 0.3, 0.95: 0.1}.get(total, float(total < 0.85))
                counts[total] += 1
                verdicts.append(random.random() < chance)
                n_good += verdicts[-1] is True
            try:
                sets = rounds.send(verdicts)
            except StopIteration:
                break
        assert counts[0.85] + counts[0.9] > 0.45 * 200, "alike it would be 0.29"
        assert counts[0.6] + counts[1.0] < 0.2 * 200, "alike it would be 0.29"
        assert 0.4 < n_good / 200 < 0.6

    def test_sets_are_those_of_the_generator(self) -> None:
        source = boundary()
        for taskset in islice(source.variants(), 20):
            params = taskset.provenance.params
            assert source._made_by.make(params["point_idx"], params["set_idx"]) == taskset

    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"policy": ["fifo", "deadline"]}, "n_sets"),
            ({"sets_per_utilization": 3}, "sets_per_utilization"),
            ({"n_sets": 0}, "n_sets"),
            ({"utilizations": [5.0]}, "utilizations[0]"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], where: str) -> None:
        with pytest.raises(UsageError) as caught:
            boundary(**changes)
        assert caught.value.where == where


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 10**6), st.integers(1, 4))
def test_any_rounds_are_told_in_order(sizes: list[int], seed: int, n_machines: int) -> None:
    """Whatever order sets end in, the source is sent what it would be if they ended one by one."""
    random = Random(seed)
    source, plain = Scripted(*sizes), Scripted(*sizes)
    supply = Supply(source)
    out: list[int] = []
    drawn: list[TaskSet] = []
    while True:
        while len(out) < n_machines and (taskset := supply.next()) is not None:
            drawn.append(taskset)
            out.append(len(drawn) - 1)
        if not out:
            break
        idx = out.pop(random.randrange(len(out)))
        supply.tell(idx, int(drawn[idx].taskset_id, 16) % 2 == 0)
    expected, one_by_one = Supply(plain), []
    while (taskset := expected.next()) is not None:
        one_by_one.append(taskset)
        expected.tell(len(one_by_one) - 1, int(taskset.taskset_id, 16) % 2 == 0)
    assert drawn == one_by_one
    assert source.told == plain.told


DOCUMENT = Path(__file__).parents[1] / "docs" / "tasksets.md"


def test_what_the_document_shows_works() -> None:
    """A session as shown, and a source that follows results: it finds the largest C at which both deadlines are met."""
    session, breakdown = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    shown = doctest.DocTestParser().get_doctest(session, {}, "tasksets.md", str(DOCUMENT), 0)
    assert doctest.DocTestRunner().run(shown).failed == 0
    names: dict[str, Any] = {}
    exec(breakdown, names)
    queue = TestQueue().queue(names["Breakdown"]())
    costs = []
    while (lease := queue.acquire()) is not None:
        costs.append(lease.taskset.tasks[1].wcet_ns or 0)
        queue.done(lease, measured(lease))
    # Of 50 ms the other task takes 27 ms at most: 23 are left.
    assert costs[-1] == pytest.approx(23_000_000, abs=2000)
