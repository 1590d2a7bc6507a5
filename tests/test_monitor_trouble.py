"""Monitors that do not keep up: blocked by a full disk, stuck in a pipe that nobody reads. The others never notice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from runner.errors import HostError
from runner.events import TaskDoneEvent
from runner.monitors import dispatcher as dispatching
from runner.monitors import listener
from runner.monitors.dispatcher import MonitorDispatcher
from tests.fleet_samples import eventually
from tests.monitor_samples import Recorder, good, run

RUN = run()


def event(number: int) -> TaskDoneEvent:
    return TaskDoneEvent(task_idx=0, t_ns=number)


class Blockable(Recorder):
    """Keeps what it is told in memory while there is no room; `n_tries` counts how often it tried."""

    def __init__(self) -> None:
        super().__init__()
        self.room = threading.Event()
        self.n_tries = 0
        self.n_kept = 0

    def __taskset_event__(self, run, event) -> None:
        self.n_kept += 1
        self.blocked = "no room"

    def idle(self) -> None:
        self.n_tries += 1
        if self.room.is_set():
            self.n_kept, self.blocked = 0, ""


class Pipe(Recorder):
    """Writes to a pipe, as `print` does under `| less`; it is read when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.into = os.pipe()
        self.reader: threading.Thread | None = None

    def __taskset_event__(self, run, event) -> None:
        os.write(self.into, b"x" * 4096)

    def read_on(self) -> None:
        """From now on somebody reads."""

        def read() -> None:
            while os.read(self.out, 1 << 16):
                pass

        self.reader = threading.Thread(target=read)
        self.reader.start()

    def shut(self) -> None:
        os.close(self.into)
        if self.reader is not None:
            self.reader.join(5)
        os.close(self.out)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(listener, "STUCK_S", 0.2)
    monitor = Pipe()
    yield monitor
    monitor.shut()


def test_a_blocked_monitor_is_told_of_and_asked_to_try_again() -> None:
    monitor, told = Blockable(), threading.Event()
    with MonitorDispatcher(on_trouble=told.set) as dispatcher:
        channel = dispatcher.channel((monitor,))
        assert dispatcher.troubles() == {}
        channel.event(RUN, event(0))
        assert told.wait(5)
        assert dispatcher.troubles() == {"Blockable": "monitor Blockable is blocked: no room"}
        eventually(lambda: monitor.n_tries >= 2, 10)  # once a second, though nothing is published
        told.clear()
        monitor.room.set()
        assert told.wait(5)
        assert dispatcher.troubles() == {}
        assert monitor.n_kept == 0
        n_tries = monitor.n_tries
        time.sleep(1.2 * listener.RETRY_S)
        assert monitor.n_tries == n_tries  # it costs nothing any more


def test_one_that_is_blocked_at_the_end_has_a_few_tries_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "RETRY_S", 0.02)
    monkeypatch.setattr(listener, "LAST_TRIES_S", 0.2)
    kept, freed = Blockable(), Blockable()
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((kept, freed))
        channel.event(RUN, event(0))
        eventually(lambda: len(dispatcher.troubles()) == 2)
        freed.room.set()
    assert (kept.n_kept, freed.n_kept) == (1, 0)
    assert kept.told[-1] == freed.told[-1] == ("close", None)


def test_a_pipe_that_nobody_reads_is_noticed_and_holds_up_no_other_monitor(pipe: Pipe) -> None:
    data = Recorder()
    data.required = True
    told = threading.Event()
    with MonitorDispatcher(on_trouble=told.set) as dispatcher:
        channel = dispatcher.channel((pipe, data))
        for number in range(200):  # 64 KiB fit into the pipe
            channel.event(RUN, event(number))
        channel.finish(RUN, good())
        eventually(lambda: len(data.of("event")) == 200 and bool(data.of("finish")))
        eventually(lambda: "Pipe" in dispatcher.troubles())
        why = dispatcher.troubles()["Pipe"]
        assert why.startswith("monitor Pipe is stuck in __taskset_event__ since ")
        eventually(
            lambda: dispatcher.settled
        )  # it is not waited for: nothing that the run is for depends on it
        pipe.read_on()
        assert told.wait(5)  # it has come back
        eventually(lambda: dispatcher.troubles() == {})
    assert len(pipe.of("finish")) == 1


def test_one_that_stays_stuck_is_left_behind_with_an_error_after_all_others_were_closed(pipe: Pipe) -> None:
    before, after = Recorder(), Recorder()
    dispatcher = MonitorDispatcher()
    dispatcher.__enter__()
    channel = dispatcher.channel((before, pipe, after))
    for number in range(50):
        channel.event(RUN, event(number))
    with pytest.raises(
        HostError, match=r"monitor Pipe has been in __taskset_event__ since .* for more than 0.3 s"
    ):
        dispatcher.close(stall_s=0.3)
    for monitor in (before, after):
        assert len(monitor.of("event")) == 50
        assert monitor.told[-1] == ("close", None)
    pipe.read_on()
    dispatcher.close()  # now it comes to its end
    assert pipe.told[-1] == ("close", None)


def test_it_is_said_once_whom_the_end_waits_for(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise a run that is over would stand still for a minute without a word."""
    dispatcher = MonitorDispatcher()
    dispatcher.__enter__()
    channel = dispatcher.channel((pipe, Recorder()))
    for number in range(50):
        channel.event(RUN, event(number))
    with pytest.raises(HostError):
        dispatcher.close(stall_s=1.0)
    said = [one.getMessage() for one in caplog.records if "the end waits for" in one.getMessage()]
    assert len(said) == 1
    assert "monitor Pipe is stuck in __taskset_event__ since" in said[0]
    pipe.read_on()
    dispatcher.close()


def test_nobody_waits_for_room_while_nothing_new_begins(pipe: Pipe) -> None:
    """What is under way comes to its end, and a kill reaches a machine that publishes to a monitor that is stuck."""
    with MonitorDispatcher(capacity=5) as dispatcher:
        channel = dispatcher.channel((pipe,))

        def publish() -> None:
            for number in range(100):
                channel.event(RUN, event(number))

        publisher = threading.Thread(target=publish)
        publisher.start()
        publisher.join(0.1)
        assert publisher.is_alive()
        dispatcher.relent(True)
        publisher.join(5)
        assert not publisher.is_alive()
        dispatcher.relent(False)
        late = threading.Thread(target=channel.event, args=(RUN, event(100)))
        late.start()
        late.join(0.1)
        assert late.is_alive()
        pipe.read_on()
        late.join(5)
        assert not late.is_alive()


def test_what_a_required_monitor_still_has_to_write_is_waited_for() -> None:
    monitor = Blockable()
    monitor.required = True
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((monitor,))
        eventually(lambda: dispatcher.settled)
        channel.event(RUN, event(0))
        time.sleep(0.05)
        assert not dispatcher.settled
        monitor.room.set()
        eventually(lambda: dispatcher.settled)


def test_one_that_does_not_open_is_begun_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears everything once it is open; a required one is worth waiting for, but not for ever."""
    monkeypatch.setattr(dispatching, "OPEN_S", 0.05)
    monkeypatch.setattr(dispatching, "OPEN_REQUIRED_S", 0.1)

    class Slow(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.gate = threading.Event()

        def open(self) -> None:
            self.gate.wait(30)
            super().open()

    slow, needed, other = Slow(), Slow(), Recorder()
    needed.required = True
    with MonitorDispatcher() as dispatcher:
        channel = dispatcher.channel((slow, other))
        channel.event(RUN, event(7))
        eventually(lambda: len(other.of("event")) == 1)
        with pytest.raises(HostError, match=r"monitor Slow#2 is stuck in open since .* pointless without it"):
            dispatcher.channel((needed,))
        slow.gate.set()
        needed.gate.set()
    assert [name for name, _ in slow.told] == ["open", "event", "close"]


def test_two_monitors_that_publish_to_each_other_do_not_wait_for_each_other() -> None:
    class Echo(Recorder):
        other: Echo

        def __taskset_start__(self, run, *_) -> None:
            for number in range(20):
                channels[self.other].event(run, event(number))

    first, second = Echo(), Echo()
    first.other, second.other = second, first
    with MonitorDispatcher(capacity=2) as dispatcher:
        channels = {monitor: dispatcher.channel((monitor,)) for monitor in (first, second)}
        for channel in channels.values():
            channel.start(RUN)
    assert len(first.of("event")) == len(second.of("event")) == 20
