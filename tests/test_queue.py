"""The queue: submitted = done + bad + waiting + running, whatever happens in whichever order."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.errors import (
    DisturbedError,
    Fault,
    GuestDied,
    InfrastructureError,
    MachineKilled,
    RunnerError,
    SessionLost,
    TaskSetError,
    UsageError,
)
from runner.model import TaskSet
from runner.monitors.channel import MonitorChannel
from runner.queue.jobs import JobQueue
from runner.queue.lease import Job, Lease
from runner.queue.taskset_queue import TaskSetQueue
from tests.fleet_samples import HANG_S, Sets, eventually, one


def job(source: Sets | TaskSet) -> Job:
    """A job that nobody listens to."""
    return Job(source, MonitorChannel((), lambda call: None))


def queue(n: int | None, *, announced: bool = True, repeat: int = 1, **bounds: Any) -> TaskSetQueue:
    return TaskSetQueue(job(Sets(n, announced=announced)), repeat=repeat, **bounds)


def ruined() -> GuestDied:
    return GuestDied("x", fault=Fault.TASKSET)


class Book:
    """What has become of one measurement, written down in the plainest way."""

    def __init__(self) -> None:
        self.n_charged = 0
        self.counts: Counter[Fault] = Counter()
        self.n_others = 0
        self.due_s = 0.0
        self.n_disturbed = 0

    def blamed(self, error: RunnerError, n_others: int, n_ruined: int) -> Fault | None:
        fault = getattr(error, "fault", None)
        others_did_well = n_others > self.n_others and self.counts[Fault.TASKSET] + self.counts[Fault.GUEST]
        if fault is Fault.GUEST and others_did_well:
            return Fault.TASKSET
        return Fault.GUEST if fault is Fault.TASKSET and n_ruined >= 2 else fault


def taken(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls on a queue of jobs, against a plain book of what has become of each measurement of each set."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue()
        self.sources: list[tuple[Sets, int]] = []
        self.held = False
        self.leases: list[Lease] = []
        self.now_s = 0.0
        self.ruined: defaultdict[int, set[tuple[int, str]]] = defaultdict(set)
        self.books: defaultdict[tuple[int, str, int], Book] = defaultdict(Book)
        self.measured: set[tuple[int, str, int]] = set()
        self.n_measured: Counter[tuple[int, str]] = Counter()
        self.bad: set[tuple[int, str]] = set()
        self.repeat: dict[int, int] = {}

    @precondition(lambda self: len(self.sources) < 4)
    @rule(
        n=st.integers(0, 5),
        announced=st.booleans(),
        max_tries=st.integers(1, 3),
        repeat=st.integers(1, 3),
    )
    def add(self, n: int, announced: bool, max_tries: int, repeat: int) -> None:
        source = Sets(n, announced=announced)
        self.sources.append((source, repeat))
        added = TaskSetQueue(
            job(source),
            max_tries=max_tries,
            max_guest_tries=max_tries + 1,
            max_host_tries=max_tries + 2,
            repeat=repeat,
            clock=lambda: self.now_s,
        )
        self.repeat[id(added.job)] = repeat
        self.queue.add(added)

    @rule()
    def acquire(self) -> None:
        lease = self.queue.try_acquire()
        if lease is None:
            pausing = [book for book in self.books.values() if book.due_s > self.now_s]
            assert self.held or self.n_waiting <= len(pausing)
            return
        assert not self.held
        assert 1 <= lease.repetition <= lease.queue.repeat
        assert self.key(lease) not in {self.key(other) for other in self.leases}
        assert self.key(lease) not in self.measured
        assert self.set_of(lease) not in self.bad
        book = self.books[self.key(lease)]
        assert lease.attempt == 1 + book.n_charged
        assert book.due_s <= self.now_s
        book.due_s = 0.0
        self.leases.append(lease)

    @rule(seconds=st.sampled_from([0.4, 1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self.end_well(self.pick(data))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        error=st.sampled_from(
            [
                *(GuestDied("x", fault=fault) for fault in Fault),
                MachineKilled("x"),
                TaskSetError("x"),
                DisturbedError("x"),
            ]
        ),
        charged=st.booleans(),
        asks=st.booleans(),
    )
    def give_back(self, data: st.DataObject, error: RunnerError, charged: bool, asks: bool) -> None:
        lease = self.pick(data)
        book, n_others = self.books[self.key(lease)], self.n_others(lease)
        ruined = self.ruined[id(lease.job)]
        blamed = book.blamed(error, n_others, len(ruined - {self.set_of(lease)}))
        assert lease.queue.blame(lease, error) is blamed
        if charged:
            ruined |= {self.set_of(lease)} if getattr(error, "fault", None) is Fault.TASKSET else set()
            book.n_charged += 1
            book.n_disturbed += isinstance(error, DisturbedError)
            if blamed is not None:
                book.counts[blamed] += 1
            if blamed in (Fault.TASKSET, Fault.GUEST):
                book.n_others = n_others
            if blamed is Fault.HOST:
                book.due_s = self.now_s + min(30.0, 0.5 * 2 ** (book.counts[Fault.HOST] - 1))
        bounds = lease.queue.bounds
        used_up = any(book.counts[fault] >= bounds[fault] for fault in Fault)
        used_up = charged and (used_up or book.n_disturbed >= bounds[Fault.TASKSET])
        expected = (isinstance(error, TaskSetError) or used_up) and self.set_of(lease) not in self.bad
        if asks:
            assert lease.queue.would_be_bad(lease, error, charged=charged) == expected
        assert self.queue.give_back(lease, error, charged=charged) == expected
        if expected:
            self.bad.add(self.set_of(lease))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_twice(self, data: st.DataObject) -> None:
        lease = self.pick(data)
        self.end_well(lease)
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

    def n_others(self, lease: Lease) -> int:
        """Measurements of the job's other sets."""
        own = self.n_measured[self.set_of(lease)]
        return sum(n for (job_id, _), n in self.n_measured.items() if job_id == id(lease.job)) - own

    @staticmethod
    def set_of(lease: Lease) -> tuple[int, str]:
        return id(lease.job), lease.taskset.taskset_id

    def key(self, lease: Lease) -> tuple[int, str, int]:
        return *self.set_of(lease), lease.repetition

    def pick(self, data: st.DataObject) -> Lease:
        return self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))

    def end_well(self, lease: Lease) -> None:
        self.queue.done(lease)
        self.ruined[id(lease.job)].clear()
        self.measured.add(self.key(lease))
        self.n_measured[self.set_of(lease)] += 1

    @property
    def n_waiting(self) -> int:
        """Measurements of sets that are not bad, and neither made nor leased."""
        over = sum(n for which, n in self.n_measured.items() if which not in self.bad)
        out = sum(self.set_of(lease) not in self.bad for lease in self.leases)
        dropped = sum(self.repeat[job_id] for job_id, _ in self.bad)
        return sum((source.n or 0) * repeat for source, repeat in self.sources) - over - out - dropped

    @invariant()
    def every_set_is_somewhere_once(self) -> None:
        whole = {which for which, n in self.n_measured.items() if n == self.repeat[which[0]]}
        assert self.queue.n_bad == len(self.bad)
        assert self.queue.n_done == len(whole - self.bad)
        assert self.queue.n_running == len(self.leases)
        if self.queue.n_left is not None:
            assert self.queue.n_left == self.n_waiting
        if self.queue.n_total is not None:
            assert self.queue.n_total == sum(source.n or 0 for source, _ in self.sources)
        if self.queue.drained:
            assert self.n_waiting == 0
            assert not self.leases

    def teardown(self) -> None:
        """Whatever state it is in, it can be brought to its end."""
        self.queue.release()
        for lease in self.leases:
            self.queue.done(lease)
        self.now_s += 1e6
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
    three.give_back(first, DisturbedError("x"))
    again = taken(three.acquire())
    assert (again.taskset, again.attempt) == (first.taskset, 2)
    three.give_back(again, ruined(), charged=False)
    assert taken(three.acquire()).taskset == first.taskset


@pytest.mark.parametrize("fault", [Fault.GUEST, Fault.TASKSET])
def test_after_a_guest_that_failed_another_set_goes_first(fault: Fault) -> None:
    """If that one goes well, the guests are not sick."""
    two = queue(2)
    first = taken(two.acquire())
    two.give_back(first, GuestDied("x", fault=fault))
    other = taken(two.acquire())
    assert other.taskset != first.taskset
    two.done(other)
    again = taken(two.acquire())
    assert (again.taskset, again.attempt) == (first.taskset, 2)
    two.give_back(again, SessionLost("x"))
    assert taken(two.acquire()).taskset == first.taskset, "there is no other any more"


def test_a_set_whose_guests_fail_while_others_go_well_is_the_one_to_blame() -> None:
    four = queue(4, max_tries=2, max_guest_tries=9)
    victim = taken(four.acquire())
    assert four.blame(victim, SessionLost("x")) is Fault.GUEST
    four.give_back(victim, SessionLost("x"))
    for number in (1, 2):
        four.done(taken(four.acquire()))
        victim = taken(four.acquire())
        assert four.blame(victim, SessionLost("x")) is Fault.TASKSET
        assert four.give_back(victim, SessionLost("x")) == (number == 2)


def test_no_set_is_blamed_while_all_ruin_their_guests() -> None:
    """A damaged snapshot, say: the third set in a row is a witness for the first two."""
    many = queue(9, max_tries=2)
    for number, fault in enumerate((Fault.TASKSET, Fault.TASKSET, Fault.GUEST, Fault.GUEST)):
        lease = taken(many.acquire())
        assert lease.taskset == one(number + 1)
        assert many.blame(lease, ruined()) is fault
        assert not many.give_back(lease, ruined())
    many.done(taken(many.acquire()))
    again = taken(many.acquire())
    assert (again.taskset, many.blame(again, ruined())) == (one(1), Fault.TASKSET)
    assert many.give_back(again, ruined()), "its second"
    assert taken(many.acquire()).taskset == one(2)


def test_what_this_computer_broke_is_tried_again_after_a_while() -> None:
    now_s = 0.0
    one_set = queue(1, max_host_tries=9, clock=lambda: now_s)
    for pause_s in (0.5, 1.0, 2.0):
        one_set.give_back(taken(one_set.acquire()), GuestDied("x", fault=Fault.HOST))
        assert (one_set.pause_s, one_set.n_left, one_set.drained) == (pause_s, 1, False)
        assert one_set.acquire() is None
        now_s += pause_s
    one_set.done(taken(one_set.acquire()))
    assert one_set.pause_s is None


def test_each_kind_of_failure_has_bounds_of_its_own() -> None:
    now_s = 0.0
    one_set = queue(1, max_tries=2, max_guest_tries=2, max_host_tries=2, clock=lambda: now_s)
    for fault in Fault:
        assert not one_set.give_back(taken(one_set.acquire()), GuestDied("x", fault=fault))
        now_s += 1.0
    last = taken(one_set.acquire())
    assert last.attempt == 4
    assert one_set.give_back(last, GuestDied("x", fault=Fault.HOST))


def test_the_last_try_is_known_before() -> None:
    """So that monitors hear of it before the run can end."""
    two_tries = queue(1, max_tries=2)
    lease = taken(two_tries.acquire())
    assert not two_tries.would_be_bad(lease, ruined(), charged=True)
    assert two_tries.would_be_bad(lease, TaskSetError("x"), charged=False)
    two_tries.give_back(lease, ruined())
    lease = taken(two_tries.acquire())
    assert two_tries.would_be_bad(lease, ruined(), charged=True)
    assert not two_tries.would_be_bad(lease, MachineKilled("x"), charged=False)


def test_no_tries_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="max_tries is 0") as caught:
        queue(1, max_tries=0)
    assert caught.value.where == "machines.max_tries"


def test_no_measurement_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="repeat is 0") as caught:
        queue(1, repeat=0)
    assert caught.value.where == "repeat"


def test_each_set_is_measured_so_many_times_before_the_next() -> None:
    thrice = queue(2, repeat=3)
    leases = [taken(thrice.acquire()) for _ in range(6)]
    assert [(lease.taskset, lease.repetition) for lease in leases] == [
        (one(number), repetition) for number in (1, 2) for repetition in (1, 2, 3)
    ]
    assert thrice.acquire() is None
    assert (thrice.n_total, thrice.n_left, thrice.n_running) == (2, 0, 6)
    for lease in leases[:5]:
        thrice.done(lease)
    assert (thrice.n_done, thrice.drained) == (1, False)
    thrice.done(leases[5])
    assert (thrice.n_done, thrice.drained) == (2, True)


def test_a_repetition_that_comes_back_keeps_its_number() -> None:
    twice = queue(1, repeat=2)
    first, second = taken(twice.acquire()), taken(twice.acquire())
    twice.give_back(first, SessionLost("x"))
    again = taken(twice.acquire())
    assert (again.repetition, again.attempt) == (1, 2)
    assert (second.repetition, second.attempt) == (2, 1)


def test_a_set_that_is_bad_is_bad_once_and_is_not_measured_further() -> None:
    queued = queue(2, repeat=4)
    first, second, third = (taken(queued.acquire()) for _ in range(3))
    queued.give_back(second, SessionLost("x"))
    error = TaskSetError("x")
    assert queued.would_be_bad(first, error, charged=True)
    assert not queued.would_be_bad(third, error, charged=True), "one speaks for the set"
    assert not queued.give_back(third, error), "also when it is sooner"
    assert queued.give_back(first, error)
    assert (queued.n_bad, queued.n_left, queued.n_running) == (1, 4, 0)
    assert taken(queued.acquire()).taskset == one(2), "neither what came back nor the fourth repetition"


def test_what_is_still_out_counts_for_nothing_once_the_set_is_bad() -> None:
    queued = queue(1, repeat=2)
    first, second = taken(queued.acquire()), taken(queued.acquire())
    queued.give_back(first, TaskSetError("x"))
    assert not queued.drained, "its machine is still busy"
    assert queued.compare(second, "b") is None
    queued.done(second)
    assert (queued.n_done, queued.n_bad, queued.drained) == (0, 1, True)


def test_tables_of_one_set_are_compared() -> None:
    queued = queue(2, repeat=4)
    leases = [taken(queued.acquire()) for _ in range(4)]
    assert queued.compare(leases[1], "a1") is None
    assert queued.compare(leases[0], "a1") is None
    assert queued.compare(leases[2], None) is None, "nothing is known of it"
    error = queued.compare(leases[3], "b2")
    assert isinstance(error, TaskSetError)
    for part in (one(1).taskset_id, "a1", "b2", "repetitions 2 and 4"):
        assert part in error.what
    assert error.next_step
    assert queued.give_back(leases[3], error)
    assert (queued.n_bad, queued.n_running) == (1, 3)
    other = taken(queued.acquire())
    assert other.taskset == one(2)
    assert queued.compare(other, "b2") is None, "another set has another table"


def test_only_equal_identities_are_compared() -> None:
    """On a guest that is kept, each repetition runs after another predecessor."""
    queued = queue(1, repeat=3)
    first, second, third = (taken(queued.acquire()) for _ in range(3))
    assert queued.compare(first, "a", identity="x") is None
    assert queued.compare(second, "b", identity="y") is None
    assert queued.compare(third, "b", identity="x") is not None


def test_sets_that_have_ended_take_no_memory() -> None:
    endless = queue(None, repeat=2)
    tracemalloc.start()
    try:
        for count in range(2000):
            for _ in range(2):
                lease = taken(endless.acquire())
                assert endless.compare(lease, f"{count:064x}") is None
                endless.done(lease)
            if count == 200:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # 1,800 sets' digests alone would be 200 KiB.
    assert after - before < 50_000


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


def test_a_machine_waits_no_longer_than_this_computer_needs(wanted: threading.Event) -> None:
    """Nobody wakes it: it wakes by itself when the measurement is due."""
    jobs = JobQueue()
    jobs.add(queue(1))
    jobs.give_back(taken(jobs.try_acquire()), GuestDied("x", fault=Fault.HOST))
    assert jobs.try_acquire() is None
    thread, answers = acquiring(jobs, wanted)
    thread.join(HANG_S)
    assert [taken(answer).attempt for answer in answers] == [2]


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
    """Eight threads, measurements that come back at random: each is made once."""
    jobs, done = JobQueue(), Counter[str]()
    jobs.add(queue(300, announced=False, max_tries=1000))
    jobs.add(queue(100, repeat=3))
    lock = threading.Lock()

    def work(seed: int) -> None:
        turn = seed
        while (lease := jobs.acquire(lambda: True)) is not None:
            turn += 1
            if turn % 7 == 0:
                jobs.give_back(lease, InfrastructureError("x"), charged=False)
            else:
                with lock:
                    done[f"{id(lease.job)} {lease.taskset.taskset_id} {lease.repetition}"] += 1
                jobs.done(lease)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: not any(thread.is_alive() for thread in threads), HANG_S)
    assert len(done) == 600
    assert set(done.values()) == {1}
    assert (jobs.n_done, jobs.n_bad, jobs.n_running, jobs.n_left) == (400, 0, 0, 0)


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
