"""One measurement: a task set on a station, from its start to a result that says what it is worth."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from runner.deadline import Deadline
from runner.disturbance import ClockPair, DisturbanceLimits, drift_ns, verdict
from runner.errors import ProtocolError
from runner.events import (
    Disturbance,
    EndEvent,
    Event,
    JobEvent,
    JobRecord,
    Outcome,
    RefusedEvent,
    Run,
    RunResult,
    StartEvent,
)
from runner.machines.station import MachineKind, Station
from runner.monitors.channel import MonitorChannel
from runner.qemu.noise import NoiseMeter
from runner.specs import MachinePolicy
from runner.units import NS_PER_S


def measure(
    run: Run, station: Station, kind: MachineKind, channel: MonitorChannel, *, events: deque[Event]
) -> RunResult:
    """Run the task set, tell the monitors what happens, and judge the result.

    Args:
        events: Receives what happens, for whoever asks why it failed.

    Raises:
        RunnerError: whatever the session raises.
        ProtocolError: the session ended without an end of the set.
    """
    if kind.limits is None:
        return replace(_execute(run, station, kind.policy, channel, events=events), validity=kind.validity)
    return _judged(run, station, kind.policy, kind.limits, channel, events=events)


def _judged(
    run: Run,
    station: Station,
    policy: MachinePolicy,
    limits: DisturbanceLimits,
    channel: MonitorChannel,
    *,
    events: deque[Event],
) -> RunResult:
    """The result, with what this computer did to it meanwhile; `error` says which limits were broken."""
    pid = None if station.host is None else station.host.pid
    meter = None if pid is None else NoiseMeter(pid)
    before = _clocks(station, policy)
    started_ns = time.monotonic_ns()
    if meter is not None:
        meter.begin()
    result = _execute(run, station, policy, channel, events=events)
    steal_ns, sched_delay_ns = (None, None) if meter is None else meter.end()
    duration_ns = time.monotonic_ns() - started_ns
    after = _clocks(station, policy)
    disturbance = Disturbance(
        steal_ns=steal_ns,
        sched_delay_ns=sched_delay_ns,
        clock_drift_ns=None if before is None or after is None else drift_ns(before, after, limits),
    )
    validity, reason = verdict(disturbance, duration_ns, limits)
    return replace(result, validity=validity, disturbance=disturbance, error=reason)


def _clocks(station: Station, policy: MachinePolicy) -> ClockPair | None:
    return station.session.clock_pair(Deadline.after(policy.request_timeout_s))


def _execute(
    run: Run, station: Station, policy: MachinePolicy, channel: MonitorChannel, *, events: deque[Event]
) -> RunResult:
    taskset, session = run.taskset, station.session
    started_s = time.monotonic()
    session.start(taskset, Deadline.after(policy.request_timeout_s))
    budget_s = policy.taskset_timeout_s + policy.taskset_timeout_factor * taskset.end_ns / NS_PER_S
    jobs: list[JobRecord] = []
    t0_ns = end_ns = None
    outcome = Outcome.COMPLETED
    for event in session.events(Deadline.after(budget_s)):
        channel.event(run, event)
        events.append(event)
        match event:
            case JobEvent(job):
                jobs.append(job)
            case StartEvent(t0_guest_ns):
                t0_ns = t0_guest_ns
            case RefusedEvent():
                outcome = Outcome.REJECTED
            case EndEvent(t_ns, stopped):
                end_ns = t_ns
                if stopped and outcome is Outcome.COMPLETED:
                    outcome = Outcome.TIMEOUT
    if end_ns is None:
        raise ProtocolError(f"{type(session).__name__}.events() ended without an EndEvent")
    return RunResult(
        outcome=outcome,
        jobs=tuple(jobs),
        t0_guest_ns=t0_ns,
        end_ns=end_ns,
        wall_s=time.monotonic() - started_s,
    )
