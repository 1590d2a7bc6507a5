"""Verdicts on runs: what breaks a limit is named, nothing gets better by more disturbance, and doubt is told from certainty."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.disturbance import ClockPair, DisturbanceLimits, drift_ns, verdict
from runner.events import Disturbance, Validity
from runner.units import NS_PER_MS, NS_PER_S, NS_PER_US

LIMITS = DisturbanceLimits()
QUIET = Disturbance(steal_ns=0, sched_delay_ns=0, clock_drift_ns=0)
FIGURES = ("steal_ns", "sched_delay_ns", "clock_drift_ns")

amounts = st.integers(0, 100 * NS_PER_S)
durations = st.integers(0, 1000 * NS_PER_S)
signed = st.integers(-100 * NS_PER_S, 100 * NS_PER_S)
disturbances = st.builds(
    Disturbance,
    steal_ns=st.none() | amounts,
    sched_delay_ns=st.none() | amounts,
    clock_drift_ns=st.none() | signed,
)
limits = st.builds(
    DisturbanceLimits,
    steal_fixed_ns=amounts,
    steal_ppm=st.integers(0, 1_000_000),
    sched_delay_fixed_ns=amounts,
    sched_delay_ppm=st.integers(0, 1_000_000),
    clock_drift_fixed_ns=amounts,
    clock_drift_ppm=st.integers(0, 1_000_000),
)


def disturbed(disturbance: Disturbance, duration_ns: int, limits: DisturbanceLimits) -> bool:
    return verdict(disturbance, duration_ns, limits)[0] is Validity.DISTURBED


# -- the verdict -------------------------------------------------------------------------------------------------------


@given(disturbances, durations, limits, st.sampled_from(FIGURES), amounts)
def test_more_disturbance_never_improves_the_verdict(
    less: Disturbance, duration_ns: int, limits: DisturbanceLimits, figure: str, extra_ns: int
) -> None:
    ns = getattr(less, figure)
    assume(ns is not None)
    more = replace(less, **{figure: ns - extra_ns if ns < 0 else ns + extra_ns})
    assert disturbed(more, duration_ns, limits) >= disturbed(less, duration_ns, limits)


@given(disturbances, durations, limits, st.integers(0, NS_PER_S))
def test_a_longer_run_may_suffer_no_less(
    disturbance: Disturbance, duration_ns: int, limits: DisturbanceLimits, extra_ns: int
) -> None:
    assert disturbed(disturbance, duration_ns + extra_ns, limits) <= disturbed(
        disturbance, duration_ns, limits
    )


@given(disturbances, durations, limits)
def test_the_reason_is_there_exactly_if_it_is_bad(
    disturbance: Disturbance, duration_ns: int, limits: DisturbanceLimits
) -> None:
    validity, reason = verdict(disturbance, duration_ns, limits)
    assert validity in {Validity.DISTURBED, Validity.UNDISTURBED}
    assert bool(reason) is (validity is Validity.DISTURBED)


@given(disturbances, durations, limits)
def test_the_clock_may_be_wrong_either_way(
    disturbance: Disturbance, duration_ns: int, limits: DisturbanceLimits
) -> None:
    assume(disturbance.clock_drift_ns is not None)
    mirrored = replace(disturbance, clock_drift_ns=-(disturbance.clock_drift_ns or 0))
    assert disturbed(mirrored, duration_ns, limits) == disturbed(disturbance, duration_ns, limits)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("steal_ns", "steal time 22.000 ms (limit 21.000 ms)"),
        ("sched_delay_ns", "waits of QEMU's threads for a CPU 111.000 ms (limit 110.000 ms)"),
        ("clock_drift_ns", "drift of the guest's clock 4.100 ms (limit 3.100 ms)"),
    ],
)
def test_each_limit_holds_and_says_so(figure: str, said: str) -> None:
    """Of a run of a second; to the nanosecond."""
    limit_ns = getattr(LIMITS, figure)(NS_PER_S)
    assert verdict(replace(QUIET, **{figure: limit_ns}), NS_PER_S, LIMITS) == (Validity.UNDISTURBED, "")
    assert disturbed(replace(QUIET, **{figure: limit_ns + 1}), NS_PER_S, LIMITS)
    beyond = replace(QUIET, **{figure: limit_ns + NS_PER_MS})
    assert verdict(beyond, NS_PER_S, LIMITS) == (Validity.DISTURBED, said)


def test_every_broken_limit_is_named() -> None:
    everything = Disturbance(steal_ns=NS_PER_S, sched_delay_ns=NS_PER_S, clock_drift_ns=-NS_PER_S)
    _, reason = verdict(everything, NS_PER_S, LIMITS)
    assert reason.count("limit") == reason.count("1000.000 ms") == 3
    assert "-1000.000 ms" in reason, "whether it gained or lost"


def test_what_is_not_known_breaks_nothing_but_must_not_be_all() -> None:
    assert not disturbed(Disturbance(clock_drift_ns=0), NS_PER_S, LIMITS)
    validity, reason = verdict(Disturbance(), NS_PER_S, LIMITS)
    assert validity is Validity.DISTURBED
    assert reason == "nothing is known of what disturbed it"


def test_the_defaults_tell_quiet_from_loaded() -> None:
    """The figures of DisturbanceLimits: the worst with a CPU to spare, the least without."""
    quiet = Disturbance(
        steal_ns=20 * NS_PER_MS, sched_delay_ns=80 * NS_PER_MS, clock_drift_ns=-250 * NS_PER_US
    )
    loaded = replace(quiet, sched_delay_ns=180 * NS_PER_MS)
    assert not disturbed(quiet, NS_PER_S, LIMITS)
    assert disturbed(loaded, NS_PER_S, LIMITS)


# -- drift -------------------------------------------------------------------------------------------------------------


@given(signed, signed, durations, signed, st.integers(0, NS_PER_MS))
def test_drift_is_what_the_guest_gained(
    guest_ns: int, host_ns: int, elapsed_ns: int, gained_ns: int, uncertainty_ns: int
) -> None:
    """Readings that are certain enough for the default limits."""
    before = ClockPair(guest_ns, host_ns, uncertainty_ns)
    after = ClockPair(guest_ns + elapsed_ns + gained_ns, host_ns + elapsed_ns, uncertainty_ns)
    assert drift_ns(before, after, LIMITS) == gained_ns


@given(amounts, durations, st.integers(0, NS_PER_S), limits)
def test_no_drift_is_held_back_that_is_beyond_the_limit_for_certain(
    gained_ns: int, elapsed_ns: int, uncertainty_ns: int, limits: DisturbanceLimits
) -> None:
    """Whatever is held back might be within the limit as well as beyond it."""
    before = ClockPair(0, 0, uncertainty_ns)
    drift = drift_ns(before, ClockPair(elapsed_ns + gained_ns, elapsed_ns, 0), limits)
    limit_ns = limits.clock_drift_ns(elapsed_ns)
    if drift is None:
        assert gained_ns - uncertainty_ns <= limit_ns < max(uncertainty_ns, gained_ns + uncertainty_ns)
    else:
        assert drift == gained_ns


def test_doubtful_readings_tell_a_large_drift_only() -> None:
    before = ClockPair(0, 0, 2 * NS_PER_MS)
    assert drift_ns(before, ClockPair(NS_PER_S, NS_PER_S, 2 * NS_PER_MS), LIMITS) is None
    assert drift_ns(before, ClockPair(2 * NS_PER_S, NS_PER_S, 2 * NS_PER_MS), LIMITS) == NS_PER_S
    assert drift_ns(before, ClockPair(NS_PER_S, NS_PER_S, NS_PER_MS), LIMITS) == 0
