"""Whom a failed attempt is blamed on, and how often each may fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.errors import (
    DisturbedError,
    Fault,
    GuestDied,
    HostShortage,
    MachineKilled,
    RunnerError,
    UsageError,
)
from runner.tries import HOST_PAUSE_S, Tries

BOUNDS = {Fault.TASKSET: 3, Fault.GUEST: 5, Fault.HOST: 10}
errors = st.sampled_from(
    [
        *(GuestDied("x", fault=fault) for fault in Fault),
        HostShortage("x"),
        DisturbedError("x"),
        MachineKilled("x"),
        UsageError("x"),
    ]
)


@given(st.lists(st.tuples(errors, st.integers(0, 2)), max_size=40))
def test_every_history_ends_within_its_bounds(history: list[tuple[RunnerError, int]]) -> None:
    tries, n_others = Tries(), 0
    for error, others_measured in history:
        n_others += others_measured
        before, tries = tries, tries.failed(error, n_others)
        counts = (tries.n_taskset, tries.n_guest, tries.n_host, tries.n_disturbed)
        grown = sum(counts) - (before.n_taskset + before.n_guest + before.n_host + before.n_disturbed)
        assert grown == (not isinstance(error, MachineKilled | UsageError)), "each is counted once"
        blamed = before.blame(error, n_others)
        assert (blamed is Fault.TASKSET) == (tries.n_taskset > before.n_taskset)
        if tries.used_up(BOUNDS):
            break
        assert counts < (3, 5, 10, 3)
        assert HOST_PAUSE_S[0] * 0.5 <= tries.pause_s <= HOST_PAUSE_S[1]


def test_a_guest_that_fails_once_says_nothing_about_its_set() -> None:
    assert Tries().blame(GuestDied("x"), n_others=100) is Fault.GUEST


def test_a_computer_that_is_short_says_nothing_about_anybody() -> None:
    tries = Tries().failed(HostShortage("x"), 0)
    assert tries.blame(GuestDied("x"), n_others=100) is Fault.GUEST
    assert Tries(n_guest=2).blame(HostShortage("x"), n_others=100) is Fault.HOST


def test_where_nothing_else_is_measured_the_guests_may_be_sick() -> None:
    tries = Tries()
    for _ in range(4):
        tries = tries.failed(GuestDied("x"), 7)
        assert not tries.used_up(BOUNDS)
    assert tries.n_guest == 4
    assert tries.failed(GuestDied("x"), 7).used_up(BOUNDS)
