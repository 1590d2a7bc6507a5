"""The monitors' thread: order, isolation, back-pressure, and an end that loses nothing."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import HostError, RunnerError, UsageError
from runner.events import TaskDoneEvent
from runner.fleet import FleetState, RunState
from runner.monitors.base import AbstractMonitor
from runner.monitors.dispatcher import MonitorDispatcher
from runner.monitors.listener import FLEET_INTERVAL_S
from tests.monitor_samples import Recorder, failed, good, run

RUN = run()


def event(number: int) -> TaskDoneEvent:
    return TaskDoneEvent(task_idx=0, t_ns=number)


def fleet(n_done: int) -> FleetState:
    return FleetState(state=RunState.RUN, desired_machines=1, n_done=n_done)


class Failing(Recorder):
    """Raises in every call about a task set."""

    error: type[BaseException] = ValueError

    def __taskset_event__(self, run, event) -> None:
        raise self.error("no event for me")

    def __taskset_finish__(self, run, result) -> None:
        raise self.error("no result for me")


class Unopenable(Recorder):
    """Cannot be opened."""

    def open(self) -> None:
        raise HostError("the disk is missing")


class Gated(Recorder):
    """Stays in its first call until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def __taskset_event__(self, run, event) -> None:
        self.entered.set()
        self.gate.wait(30)
        super().__taskset_event__(run, event)


def test_a_life_is_told_in_order_and_from_one_thread():
    class Where(Recorder):
        threads: set[int] = set()  # noqa: RUF012 - one instance only

        def __getattribute__(self, name):
            if name == "told":
                self.threads.add(threading.get_ident())
            return super().__getattribute__(name)

    monitor = Where()
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        monitor.threads.clear()
        channel.start(RUN)
        channel.event(RUN, event(1))
        channel.stop(RUN, failed())
        channel.start(RUN)
        channel.finish(RUN, good())
        channel.bad(RUN, RunnerError("given up"))
    assert len(monitor.threads) == 1
    assert threading.get_ident() not in monitor.threads
    assert [name for name, _ in monitor.told] == [
        "open", "start", "event", "stop", "start", "finish", "bad", "close",
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    capacity=st.integers(1, 40),
    n_monitors=st.integers(1, 3),
)
def test_nothing_is_lost_and_each_publisher_keeps_its_order(counts, capacity, n_monitors):
    monitors = [Recorder() for _ in range(n_monitors)]
    with MonitorDispatcher(capacity=capacity) as dispatcher:
        channel = dispatcher.channel(monitors)

        def publish(publisher: int) -> None:
            for number in range(counts[publisher]):
                channel.event(RUN, TaskDoneEvent(task_idx=publisher, t_ns=number))

        threads = [threading.Thread(target=publish, args=(p,)) for p in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for monitor in monitors:
        for publisher, count in enumerate(counts):
            assert [e.t_ns for e in monitor.of("event") if e.task_idx == publisher] == list(range(count))
        assert monitor.told[-1] == ("close", None)


@pytest.mark.parametrize("error", [ValueError, HostError, SystemExit])
def test_a_monitor_that_raises_costs_nobody_else_anything(error, caplog):
    bad, after, seen = Failing(), Recorder(), []
    bad.error = error
    with MonitorDispatcher(on_failure=lambda monitor, exc: seen.append((monitor, type(exc)))) as dispatcher:
        channel = dispatcher.channel((bad, after))
        for number in range(50):
            channel.event(RUN, event(number))
        channel.finish(RUN, good())
    assert len(after.of("event")) == 50
    assert len(after.of("finish")) == 1
    assert dispatcher.failures == {"Failing": 51}
    assert dispatcher.required_failure is None
    # Once per method with a traceback, and a line with the counts at the end: 51 errors must not flood the log.
    assert seen == [(bad, error), (bad, error)]
    assert sum(record.exc_info is not None for record in caplog.records) == 2
    assert (
        caplog.messages[-1] == "monitor Failing failed: 50 x in __taskset_event__, 1 x in __taskset_finish__"
    )
    assert bad.told[-1] == ("close", None)


def test_a_monitor_that_cannot_be_opened_is_left_out(caplog):
    broken, other = Unopenable(), Recorder()
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((broken, other))
        channel.start(RUN)
    assert broken.told == []
    assert len(other.of("start")) == 1
    assert dispatcher.failures == {"Unopenable": 1}
    assert "the disk is missing" in caplog.text


def test_a_required_monitor_that_cannot_be_opened_is_an_error_at_once():
    broken = Unopenable()
    broken.required = True
    with MonitorDispatcher() as dispatcher:
        with pytest.raises(HostError, match="the disk is missing"):
            dispatcher.channel((broken,))
        # Not opened anew either: the answer stays the same.
        with pytest.raises(HostError, match="the disk is missing"):
            dispatcher.channel((broken,))
    assert isinstance(dispatcher.required_failure, HostError)
    assert dispatcher.failures == {"Unopenable": 1}


def test_the_first_failure_of_a_required_monitor_is_kept():
    monitor = Failing()
    monitor.required = True
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        channel.event(RUN, event(1))
        channel.finish(RUN, good())
    assert str(dispatcher.required_failure) == "no event for me"


def test_a_monitor_of_several_jobs_is_opened_and_closed_once():
    monitor = Recorder()
    with MonitorDispatcher() as dispatcher:
        dispatcher.channel((monitor,)).start(RUN)
        dispatcher.channel((monitor, Recorder())).start(RUN)
    assert [name for name, _ in monitor.told] == ["open", "start", "start", "close"]


def test_publishing_waits_while_too_much_waits():
    monitor = Gated()
    published = []
    with MonitorDispatcher(capacity=5) as dispatcher:
        channel = dispatcher.channel((monitor,))

        def publish() -> None:
            for number in range(30):
                channel.event(RUN, event(number))
                published.append(number)

        thread = threading.Thread(target=publish)
        thread.start()
        assert monitor.entered.wait(5)
        time.sleep(0.1)  # room enough to publish all 30, if nothing held the publisher back
        assert len(published) <= 5 + 5  # waiting, and under way
        monitor.gate.set()
        thread.join(5)
    assert [e.t_ns for e in monitor.of("event")] == list(range(30))


def test_who_waits_for_room_when_it_closes_is_still_heard():
    monitor = Gated()
    with MonitorDispatcher(capacity=1) as dispatcher:
        channel = dispatcher.channel((monitor,))
        channel.event(RUN, event(0))
        assert monitor.entered.wait(5)
        threads = [threading.Thread(target=channel.event, args=(RUN, event(n))) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        threading.Timer(0.05, monitor.gate.set).start()
    for thread in threads:
        thread.join(5)
    assert sorted(e.t_ns for e in monitor.of("event")) == [0, 1, 2, 3, 4]


def test_a_monitor_may_publish_itself_even_when_the_queue_is_full():
    class Echo(Recorder):
        def __taskset_start__(self, run) -> None:
            for number in range(10):
                channel.event(run, event(number))

    monitor = Echo()
    with MonitorDispatcher(capacity=2) as dispatcher:
        channel = dispatcher.channel((monitor,))
        channel.start(RUN)
        channel.start(RUN)
    assert len(monitor.of("event")) == 20


def test_a_monitor_may_add_a_job():
    inner = Recorder()

    class Adder(Recorder):
        def __taskset_finish__(self, run, result) -> None:
            dispatcher.channel((inner,)).start(run)

    with MonitorDispatcher() as dispatcher:
        dispatcher.channel((Adder(),)).finish(RUN, good())
    assert [name for name, _ in inner.told] == ["open", "start", "close"]


def test_events_that_nobody_hears_are_not_queued():
    class Quiet(AbstractMonitor):
        pass

    with MonitorDispatcher() as dispatcher:
        assert not dispatcher.channel((Quiet(),)).wants_events
        assert dispatcher.channel((Quiet(), Recorder())).wants_events


def test_the_fleet_is_told_ten_times_a_second_and_last():
    monitor = Recorder()
    with MonitorDispatcher() as dispatcher:
        dispatcher.channel((monitor,))
        end_s = time.monotonic() + 3.5 * FLEET_INTERVAL_S
        number = 0
        while time.monotonic() < end_s:
            number += 1
            dispatcher.publish_fleet(fleet(number))
            time.sleep(0.001)
    told = [state.n_done for state in monitor.of("fleet")]
    assert 2 <= len(told) <= 6  # at 0, 0.1, 0.2, 0.3 s, and the last; a busy host tells fewer
    assert told == sorted(set(told))
    assert told[-1] == number


def test_the_fleet_is_told_while_calls_keep_coming():
    class Slow(Recorder):
        def __taskset_event__(self, run, event) -> None:
            time.sleep(0.002)
            super().__taskset_event__(run, event)

    monitor = Slow()
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        for number in range(100):
            channel.event(RUN, event(number))
        dispatcher.publish_fleet(fleet(1))
    methods = [name for name, _ in monitor.told]
    assert methods.index("fleet") < 90  # not only once the queue is empty


def test_who_comes_late_hears_of_the_present_fleet():
    first, late = Recorder(), Recorder()
    with MonitorDispatcher() as dispatcher:
        dispatcher.channel((first,))
        dispatcher.publish_fleet(fleet(3))
        deadline_s = time.monotonic() + 5
        while not first.of("fleet") and time.monotonic() < deadline_s:
            time.sleep(0.005)
        dispatcher.channel((late,))
    assert [state.n_done for state in late.of("fleet")] == [3]


def test_an_idle_monitor_hears_so_after_a_burst():
    class Flushing(Recorder):
        def idle(self) -> None:
            self.told.append(("idle", None))

    monitor = Flushing()
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        for _ in range(100):
            channel.finish(RUN, good())
    assert [name for name, _ in monitor.told][-3:] == ["finish", "idle", "close"]
    assert len(monitor.of("finish")) == 100


def test_a_monitor_that_hangs_is_named():
    monitor = Gated()
    dispatcher = MonitorDispatcher()
    dispatcher.__enter__()
    dispatcher.channel((monitor,)).event(RUN, event(0))
    assert monitor.entered.wait(5)
    try:
        with pytest.raises(
            HostError, match=r"monitor Gated has been in __taskset_event__ since .* UTC, for more than 0.2 s"
        ):
            dispatcher.close(stall_s=0.2)
    finally:
        monitor.gate.set()
    dispatcher.close()
    assert len(monitor.of("event")) == 1


def test_a_bug_of_the_one_who_is_told_of_failures_shows_when_it_closes():
    def broken(monitor, error) -> None:
        raise ZeroDivisionError("a bug")

    dispatcher = MonitorDispatcher(on_failure=broken, capacity=2)
    dispatcher.__enter__()
    channel = dispatcher.channel((Failing(),))

    def publish_until_it_ends() -> None:
        while True:
            channel.event(RUN, event(0))

    # Publishers must not wait for ever for a thread that is gone.
    with pytest.raises(UsageError, match="it is closed"):
        publish_until_it_ends()
    with pytest.raises(ZeroDivisionError):
        dispatcher.close()
    dispatcher.close()


def test_a_wrong_order_of_calls_is_refused():
    dispatcher = MonitorDispatcher()
    with pytest.raises(UsageError, match="it is not started"):
        dispatcher.channel((Recorder(),))
    with dispatcher:
        channel = dispatcher.channel((Recorder(),))
    with pytest.raises(UsageError, match="took no __taskset_start__: it is closed"):
        channel.start(RUN)
    with pytest.raises(UsageError, match="entered while it is closed"), dispatcher:
        pass
    MonitorDispatcher().close()


def test_a_flood_of_events_arrives_whole():

    class Counting(AbstractMonitor):
        n = 0

        def __taskset_event__(self, run, event) -> None:
            self.n += 1

    monitor, one = Counting(), event(0)
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        for _ in range(100_000):
            channel.event(RUN, one)
    assert monitor.n == 100_000
