"""The queue: submitted = done + bad + waiting + running, whatever happens in whichever order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.errors import (
    InfrastructureError,
    MachineKilled,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.model import TaskSet
from runner.monitors.channel import MonitorChannel
from runner.queue import Job, JobQueue, Lease, TaskSetQueue
from tests.fleet_samples import HANG_S, Sets, eventually, one


def job(source: Sets | TaskSet) -> Job:
    """A job that nobody listens to."""
    return Job(source, MonitorChannel((), lambda call: None))


def queue(n: int | None, *, announced: bool = True, max_tries: int = 3) -> TaskSetQueue:
    return TaskSetQueue(job(Sets(n, announced=announced)), max_tries=max_tries)


def taken(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls on a queue of jobs, against a plain book of what has become of each set."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue()
        self.sources: list[Sets] = []
        self.held = False
        self.leases: list[Lease] = []
        self.charged: Counter[tuple[int, str]] = Counter()
        self.ended: Counter[tuple[int, str]] = Counter()
        self.n_bad = 0
        self.max_tries: dict[int, int] = {}

    @precondition(lambda self: len(self.sources) < 4)
    @rule(n=st.integers(0, 5), announced=st.booleans(), max_tries=st.integers(1, 3))
    def add(self, n: int, announced: bool, max_tries: int) -> None:
        source = Sets(n, announced=announced)
        self.sources.append(source)
        added = TaskSetQueue(job(source), max_tries=max_tries)
        self.max_tries[id(added.job)] = max_tries
        self.queue.add(added)

    @rule()
    def acquire(self) -> None:
        lease = self.queue.try_acquire()
        if lease is None:
            assert self.held or self.n_waiting == 0
            return
        assert not self.held
        assert self.key(lease) not in {self.key(other) for other in self.leases}
        assert not self.ended[self.key(lease)]
        assert lease.attempt == 1 + self.charged[self.key(lease)]
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        lease = self.pick(data)
        self.queue.done(lease)
        self.ended[self.key(lease)] += 1

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        error=st.sampled_from([SessionLost("x"), MachineKilled("x"), TaskSetError("x")]),
        charged=st.booleans(),
    )
    def give_back(self, data: st.DataObject, error: RunnerError, charged: bool) -> None:
        lease = self.pick(data)
        self.charged[self.key(lease)] += charged
        bad = self.queue.give_back(lease, error, charged=charged)
        used_up = charged and self.charged[self.key(lease)] >= self.max_tries[id(lease.job)]
        assert bad == (isinstance(error, TaskSetError) or used_up)
        self.ended[self.key(lease)] += bad
        self.n_bad += bad

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_twice(self, data: st.DataObject) -> None:
        lease = self.pick(data)
        self.queue.done(lease)
        self.ended[self.key(lease)] += 1
        with pytest.raises(UsageError, match="is not leased"):
            self.queue.done(lease)
        with pytest.raises(UsageError, match="is not leased"):
            self.queue.give_back(lease, SessionLost("x"))

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.held = held
        if held:
            self.queue.hold()
        else:
            self.queue.release()

    @staticmethod
    def key(lease: Lease) -> tuple[int, str]:
        return id(lease.job), lease.taskset.taskset_id

    def pick(self, data: st.DataObject) -> Lease:
        return self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))

    @property
    def n_waiting(self) -> int:
        return sum(source.n or 0 for source in self.sources) - len(self.leases) - self.ended.total()

    @invariant()
    def every_set_is_somewhere_once(self) -> None:
        assert set(self.ended.values()) <= {0, 1}
        assert self.queue.n_bad == self.n_bad
        assert self.queue.n_done == self.ended.total() - self.n_bad
        assert self.queue.n_running == len(self.leases)
        if self.queue.n_left is not None:
            assert self.queue.n_left == self.n_waiting
        if self.queue.n_total is not None:
            assert self.queue.n_total == sum(source.n or 0 for source in self.sources)
        if self.queue.drained:
            assert self.n_waiting == 0
            assert not self.leases

    def teardown(self) -> None:
        """Whatever state it is in, it can be brought to its end."""
        self.queue.release()
        for lease in self.leases:
            self.queue.done(lease)
        while (rest := self.queue.try_acquire()) is not None:
            self.queue.done(rest)
        assert self.queue.drained
        assert self.queue.n_left == 0
        assert self.queue.n_total == self.queue.n_done + self.queue.n_bad


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_million_variants_are_not_drawn_ahead() -> None:
    source = Sets(1_000_000)
    many = TaskSetQueue(job(source))
    assert (source.n_drawn, many.n_left, many.drained) == (0, 1_000_000, False)
    taken(many.acquire())
    assert (source.n_drawn, many.n_left, many.n_running) == (1, 999_999, 1)


def test_an_endless_source_is_never_drained() -> None:
    endless = queue(None)
    for _ in range(100):
        endless.done(taken(endless.acquire()))
    assert (endless.n_total, endless.n_left, endless.n_done, endless.drained) == (None, None, 100, False)


def test_an_unannounced_number_is_known_at_the_end() -> None:
    unknown = queue(2, announced=False)
    leases = [taken(unknown.acquire()), taken(unknown.acquire())]
    assert unknown.n_total is None
    assert unknown.acquire() is None
    assert (unknown.n_left, unknown.drained) == (0, False)
    for lease in leases:
        unknown.done(lease)
    assert unknown.drained


@pytest.mark.parametrize("announced", [2, 5])
def test_a_source_that_announces_a_wrong_number_ends_all_the_same(announced: int) -> None:
    """Three sets, announced as two or as five: what is announced limits, what comes counts."""
    source = Sets(3)
    source.n_variants = announced
    wrong = TaskSetQueue(job(source))
    while (lease := wrong.acquire()) is not None:
        wrong.done(lease)
    assert wrong.drained
    assert wrong.n_total == wrong.n_done == min(3, announced)


def test_a_source_that_breaks_keeps_what_it_gave() -> None:
    broken = TaskSetQueue(job(Sets(5, fails_at=2)))
    leases = [taken(broken.acquire()), taken(broken.acquire())]
    with pytest.raises(ArithmeticError):
        broken.acquire()
    assert isinstance(broken.error, ArithmeticError)
    assert broken.acquire() is None  # it is not asked again
    assert not broken.drained
    broken.give_back(leases[0], SessionLost("x"))
    broken.done(taken(broken.acquire()))
    broken.done(leases[1])
    assert broken.drained


def test_what_comes_back_is_next() -> None:
    three = queue(3)
    first = taken(three.acquire())
    three.give_back(first, SessionLost("x"))
    again = taken(three.acquire())
    assert (again.taskset, again.attempt) == (first.taskset, 2)


def test_the_last_try_is_known_before() -> None:
    """So that monitors hear of it before the run can end."""
    two_tries = queue(1, max_tries=2)
    lease = taken(two_tries.acquire())
    assert not two_tries.would_be_bad(lease, SessionLost("x"), charged=True)
    assert two_tries.would_be_bad(lease, TaskSetError("x"), charged=False)
    two_tries.give_back(lease, SessionLost("x"))
    lease = taken(two_tries.acquire())
    assert two_tries.would_be_bad(lease, SessionLost("x"), charged=True)
    assert not two_tries.would_be_bad(lease, MachineKilled("x"), charged=False)


def test_no_tries_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="max_tries is 0") as caught:
        queue(1, max_tries=0)
    assert caught.value.where == "machines.max_tries"


def test_jobs_come_in_their_order_and_a_later_one_fills_up() -> None:
    jobs = JobQueue()
    first, second = queue(1), queue(1)
    jobs.add(first)
    jobs.add(second)
    one_lease, two_lease = taken(jobs.try_acquire()), taken(jobs.try_acquire())
    assert (one_lease.queue, two_lease.queue) == (first, second)
    jobs.give_back(one_lease, SessionLost("x"))
    assert taken(jobs.try_acquire()).queue is first


def acquiring(jobs: JobQueue, wanted: threading.Event) -> tuple[threading.Thread, list[Lease | None]]:
    """A machine that waits for a set."""
    answers: list[Lease | None] = []
    thread = threading.Thread(target=lambda: answers.append(jobs.acquire(wanted.is_set)))
    thread.start()
    return thread, answers


@pytest.fixture
def wanted() -> threading.Event:
    """Set: the machine is wanted."""
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_machine_waits_for_what_may_come_back(wanted: threading.Event, ends_well: bool) -> None:
    jobs = JobQueue()
    jobs.add(queue(1))
    lease = taken(jobs.try_acquire())
    thread, answers = acquiring(jobs, wanted)
    thread.join(0.05)
    assert thread.is_alive()
    if ends_well:
        jobs.done(lease)
    else:
        jobs.give_back(lease, SessionLost("x"))
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert [answer.taskset if answer else None for answer in answers] == [
        None if ends_well else lease.taskset
    ]


def test_a_machine_that_waits_can_be_sent_away(wanted: threading.Event) -> None:
    jobs = JobQueue()
    jobs.add(queue(1))
    taken(jobs.try_acquire())
    thread, answers = acquiring(jobs, wanted)
    wanted.clear()
    jobs.wake()
    thread.join(HANG_S)
    assert answers == [None]


def test_a_machine_waits_while_the_queue_is_held(wanted: threading.Event) -> None:
    jobs = JobQueue()
    jobs.hold()
    jobs.add(queue(1))
    assert jobs.try_acquire() is None
    thread, answers = acquiring(jobs, wanted)
    thread.join(0.05)
    assert thread.is_alive()
    jobs.release()
    thread.join(HANG_S)
    assert [taken(answer).taskset for answer in answers] == [one(1)]


def test_many_machines_share_one_queue() -> None:
    """Eight threads, sets that come back at random: each is done once."""
    jobs, done = JobQueue(), Counter[str]()
    jobs.add(queue(300, announced=False, max_tries=1000))
    jobs.add(queue(300))
    lock = threading.Lock()

    def work(seed: int) -> None:
        turn = seed
        while (lease := jobs.acquire(lambda: True)) is not None:
            turn += 1
            if turn % 7 == 0:
                jobs.give_back(lease, InfrastructureError("x"), charged=False)
            else:
                with lock:
                    done[f"{id(lease.job)} {lease.taskset.taskset_id}"] += 1
                jobs.done(lease)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: not any(thread.is_alive() for thread in threads), HANG_S)
    assert len(done) == 600
    assert set(done.values()) == {1}
    assert (jobs.n_done, jobs.n_bad, jobs.n_running, jobs.n_left) == (600, 0, 0, 0)


def test_a_source_may_be_a_plain_task_set() -> None:
    plain = TaskSetQueue(job(one()))
    assert (plain.n_total, taken(plain.acquire()).taskset) == (1, one())


def test_variants_are_asked_for_once() -> None:
    """A second call would start the sets over."""

    class Once(Sets):
        n_asked = 0

        def variants(self) -> Iterator[TaskSet]:
            self.n_asked += 1
            return super().variants()

    source = Once(3)
    asked = TaskSetQueue(job(source))
    while (lease := asked.acquire()) is not None:
        asked.done(lease)
    assert source.n_asked == 1
