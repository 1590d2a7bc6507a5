"""The simulated session: the contract of all sessions, and what is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from runner.deadline import Deadline
from runner.errors import MachineKilled, SessionLost, TaskSetError, UsageError
from runner.events import EndEvent, JobEvent, StartEvent
from runner.model import Task, TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.simulation import SimulationSession
from tests.session_contract import SessionContract, endless, periodic, run


@pytest.fixture
def session() -> Iterator[SimulationSession]:
    """An open one, as fast as possible."""
    session = SimulationSession()
    session.open(Deadline.after(1.0))
    yield session
    session.close()


class TestAsFastAsPossible(SessionContract):
    """No pacing: exact times."""

    @pytest.fixture
    def session(self) -> Iterator[AbstractSession]:
        session = SimulationSession()
        session.open(Deadline.after(1.0))
        yield session
        session.close()


class TestPaced(SessionContract):
    """With pacing the events are the same, only later."""

    @pytest.fixture
    def session(self) -> Iterator[AbstractSession]:
        session = SimulationSession(realtime_factor=20.0)
        session.open(Deadline.after(1.0))
        yield session
        session.close()


def test_events_are_a_function_of_the_set(session: SimulationSession) -> None:
    taskset = TaskSet((periodic(3, 7, 0, 60), periodic(3, 12, 1, 35), periodic(5, 20, 2, 21)))
    assert run(session, taskset) == run(session, taskset)


def test_pacing_takes_real_time() -> None:
    """20 s of simulated time at a factor of 100: 0.2 s."""
    session = SimulationSession(realtime_factor=100.0)
    session.open(Deadline.after(1.0))
    began_s = time.monotonic()
    run(session, TaskSet((periodic(10, 2000, 0, 11),)))
    assert 0.19 < time.monotonic() - began_s < 0.6
    session.close()


def test_stop_from_another_thread_does_not_wait_for_the_next_event() -> None:
    """The next event lies an hour ahead."""
    session = SimulationSession(realtime_factor=1.0)
    session.open(Deadline.after(1.0))
    hour_ns = 3_600_000_000_000
    session.start(TaskSet((Task(period_ns=hour_ns, wcet_ns=hour_ns, n_jobs=3),)), Deadline.after(1.0))
    thread = threading.Timer(0.1, session.stop, [Deadline.after(1.0)])
    thread.start()
    began_s = time.monotonic()
    events = list(session.events(Deadline.after(60.0)))
    assert time.monotonic() - began_s < 2.0
    assert isinstance(events[-1], EndEvent)
    assert events[-1].stopped
    assert len([event for event in events if isinstance(event, JobEvent)]) == 1
    thread.join()
    session.close()


def test_abort_wakes_a_wait_for_simulated_time() -> None:
    session = SimulationSession(realtime_factor=0.001)
    session.open(Deadline.after(1.0))
    session.start(endless(), Deadline.after(1.0))
    error = MachineKilled("killed")
    thread = threading.Timer(0.1, session.abort, [error])
    thread.start()
    began_s = time.monotonic()
    with pytest.raises(MachineKilled) as caught:
        list(session.events(Deadline.after(60.0)))
    assert time.monotonic() - began_s < 2.0
    assert caught.value is error
    thread.join()


def test_a_paced_set_ends_at_its_deadline() -> None:
    session = SimulationSession(realtime_factor=1.0)
    session.open(Deadline.after(1.0))
    hour_ns = 3_600_000_000_000
    session.start(TaskSet((Task(period_ns=hour_ns, wcet_ns=hour_ns),)), Deadline.after(1.0))
    events = session.events(Deadline.after(0.1))
    assert isinstance(next(events), StartEvent)
    with pytest.raises(SessionLost, match=r"not over within 0\.1 s"):
        next(events)
    session.close()


def test_calls_in_the_wrong_order_say_what_to_do(session: SimulationSession) -> None:
    with pytest.raises(UsageError, match="no task set was started"):
        session.events(Deadline.after(1.0))
    session.start(endless(), Deadline.after(1.0))
    with pytest.raises(UsageError, match="a task set is running"):
        session.start(endless(), Deadline.after(1.0))
    fresh = SimulationSession()
    with pytest.raises(UsageError, match="not open yet") as caught:
        fresh.start(endless(), Deadline.after(1.0))
    assert caught.value.next_step == "call open() first"
    fresh.close()
    with pytest.raises(UsageError, match="closed"):
        fresh.open(Deadline.after(1.0))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_factor_that_is_no_speed_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match="realtime_factor"):
        SimulationSession(realtime_factor=factor)


@pytest.mark.parametrize(
    ("task", "culprit"),
    [
        (Task(name="greeter", period_ns=1000, workload="hey"), "greeter"),
        (Task(name="pinned", period_ns=1000, wcet_ns=10, cpu_affinity=(1,)), "pinned"),
    ],
)
def test_what_cannot_be_simulated_names_the_task(
    session: SimulationSession, task: Task, culprit: str
) -> None:
    with pytest.raises(TaskSetError, match=culprit) as caught:
        session.start(TaskSet((task,)), Deadline.after(1.0))
    assert culprit in caught.value.where
    assert caught.value.next_step
