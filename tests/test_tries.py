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
from runner.faults.tries import HOST_PAUSE_S, SICK_FROM, Experience, Others, Tries

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


@given(st.lists(st.tuples(errors, st.integers(0, 2), st.integers(0, 3)), max_size=40))
def test_every_history_ends_within_its_bounds(history: list[tuple[RunnerError, int, int]]) -> None:
    tries, n_measured = Tries(), 0
    for error, others_measured, n_ruined in history:
        n_measured += others_measured
        others = Others(n_measured, n_ruined)
        before, tries = tries, tries.failed(error, others)
        counts = (tries.n_taskset, tries.n_guest, tries.n_host, tries.n_disturbed)
        grown = sum(counts) - (before.n_taskset + before.n_guest + before.n_host + before.n_disturbed)
        assert grown == (not isinstance(error, MachineKilled | UsageError)), "each is counted once"
        blamed = before.blame(error, others)
        assert (blamed is Fault.TASKSET) == (tries.n_taskset > before.n_taskset)
        if tries.used_up(BOUNDS):
            break
        assert counts < (3, 5, 10, 3)
        assert HOST_PAUSE_S[0] * 0.5 <= tries.pause_s <= HOST_PAUSE_S[1]


def test_a_guest_that_fails_once_says_nothing_about_its_set() -> None:
    assert Tries().blame(GuestDied("x"), Others(n_measured=100)) is Fault.GUEST


def test_a_computer_that_is_short_says_nothing_about_anybody() -> None:
    tries = Tries().failed(HostShortage("x"), Others())
    assert tries.blame(GuestDied("x"), Others(n_measured=100)) is Fault.GUEST
    assert Tries(n_guest=2).blame(HostShortage("x"), Others(n_measured=100)) is Fault.HOST


def test_where_nothing_else_is_measured_the_guests_may_be_sick() -> None:
    tries = Tries()
    for _ in range(4):
        tries = tries.failed(GuestDied("x"), Others(7))
        assert not tries.used_up(BOUNDS)
    assert tries.n_guest == 4
    assert tries.failed(GuestDied("x"), Others(7)).used_up(BOUNDS)


def test_what_others_have_gone_through() -> None:
    experience = Experience()
    for set_idx in range(9):
        experience.failed(set_idx, GuestDied("x", fault=Fault.TASKSET))
        experience.failed(90 + set_idx, GuestDied("x"))
    assert experience.beside(0, 0).n_ruined >= SICK_FROM
    for _ in range(3):
        experience.measured()
    assert experience.beside(0, 1) == Others(n_measured=2)
    experience.failed(5, GuestDied("x", fault=Fault.TASKSET))
    assert experience.beside(5, 3) == Others()
    assert experience.beside(6, 3) == Others(n_ruined=1)
