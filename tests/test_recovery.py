"""The ladder: the least that can help, then more, and back to the ground after a success."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from runner.errors import (
    BootFailed,
    Fault,
    GuestDied,
    HostShortage,
    ProtocolError,
    RunnerError,
    SessionLost,
)
from runner.faults.recovery import BOUNDS, SAME_GUEST, STEPS, Ladder, Recovery, least_step

#: What the machines that there are can do.
POSSIBLE = (frozenset(STEPS), frozenset(STEPS) - SAME_GUEST, frozenset({Recovery.TASK_LOADER}))


def steps_of(
    faults: Iterator[Fault], least: Recovery, possible: frozenset[Recovery] = POSSIBLE[0]
) -> list[Recovery]:
    """What is done about one failure after the other."""
    ladder, steps = Ladder(), []
    for fault in faults:
        ladder, step = ladder.after(fault, least, possible)
        steps.append(step)
    return steps


class Climber(RuleBasedStateMachine):
    """Any failures and successes, on any machine."""

    @initialize(possible=st.sampled_from(POSSIBLE))
    def begin(self, possible: frozenset[Recovery]) -> None:
        self.possible = possible
        self.ladder = Ladder()
        self.in_a_row: list[Recovery] = []

    @rule(fault=st.sampled_from(Fault), least=st.sampled_from(STEPS[:3]))
    def fails(self, fault: Fault, least: Recovery) -> None:
        before = self.ladder.step
        self.ladder, step = self.ladder.after(fault, least, self.possible)
        assert step in self.possible
        highest = max(self.possible, key=STEPS.index)
        assert STEPS.index(step) >= min(STEPS.index(least), STEPS.index(highest)), (
            "what cannot help is not tried"
        )
        if fault is Fault.GUEST:
            assert before is None or STEPS.index(step) >= STEPS.index(before), "nobody climbs down"
            self.in_a_row = [*self.in_a_row, step] if step in self.in_a_row[-1:] else [step]
            assert step is highest or len(self.in_a_row) <= BOUNDS[step]
        else:
            assert STEPS.index(step) <= STEPS.index(Recovery.SNAPSHOT), "more could not help either"
            self.in_a_row = [step] if self.ladder.step is step else self.in_a_row

    @rule()
    def succeeds(self) -> None:
        self.ladder, self.in_a_row = Ladder(), []


TestClimber = Climber.TestCase


@given(st.sampled_from(STEPS[:3]), st.sampled_from(POSSIBLE))
def test_whoever_goes_on_failing_gets_to_the_top(least: Recovery, possible: frozenset[Recovery]) -> None:
    steps = steps_of(itertools.repeat(Fault.GUEST, sum(BOUNDS.values())), least, possible)
    assert steps[-1] is max(possible, key=STEPS.index)


def test_the_whole_ladder() -> None:
    assert steps_of(itertools.repeat(Fault.GUEST, 7), Recovery.MESSAGE) == [*STEPS, *STEPS[-1:] * 2]
    assert steps_of(itertools.repeat(Fault.GUEST, 2), Recovery.SNAPSHOT) == [*STEPS[2:4]]


@pytest.mark.parametrize("fault", [Fault.TASKSET, Fault.HOST])
def test_what_is_not_the_guests_doing_gets_a_fresh_guest_at_most(fault: Fault) -> None:
    steps = steps_of(itertools.repeat(fault, 5), Recovery.TASK_LOADER)
    assert steps == [Recovery.TASK_LOADER, *[Recovery.SNAPSHOT] * 4]
    ladder, _ = Ladder(Recovery.COLD_BOOT, 1).after(fault, Recovery.SNAPSHOT)
    assert ladder.step is Recovery.COLD_BOOT, "and takes nothing back"


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ProtocolError("garbage"), Recovery.MESSAGE),
        (SessionLost("reset"), Recovery.TASK_LOADER),
        (GuestDied("panic"), Recovery.SNAPSHOT),
        (BootFailed("no ready"), Recovery.SNAPSHOT),
        (HostShortage("no memory"), Recovery.SNAPSHOT),
    ],
)
def test_what_can_help_depends_on_what_is_left(error: RunnerError, step: Recovery) -> None:
    assert least_step(error) is step
