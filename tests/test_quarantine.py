"""Trust in machines: lost by failures, kept for shorter and shorter, restored by a success."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.errors import BootFailed, Fault
from runner.faults.quarantine import FIRST_ROUNDS, Failures, Standing, hopeless
from runner.specs import MachinePolicy


class Keeper(RuleBasedStateMachine):
    """One machine, whatever happens to it."""

    @initialize(max_failures=st.integers(1, 4), aside_s=st.floats(0.1, 10.0), factor=st.floats(1.0, 100.0))
    def begin(self, max_failures: int, aside_s: float, factor: float) -> None:
        self.policy = MachinePolicy(max_failures=max_failures, aside_s=aside_s, aside_max_s=aside_s * factor)
        self.standing = Standing()
        self.now_s = 1000.0
        self.n_in_a_row = 0
        self.last_s = 0.0

    @precondition(lambda self: not self.standing.aside)
    @rule(short=st.booleans())
    def fails(self, short: bool) -> None:
        probation = self.standing.n_asides > 0
        self.standing = self.standing.failed(self.now_s, self.policy, short=short)
        self.n_in_a_row += 1
        expected = probation or short or self.n_in_a_row >= self.policy.max_failures
        assert self.standing.aside == expected
        if self.standing.until_s is not None:
            aside_s = self.standing.until_s - self.now_s
            doubled_s = min(2 * self.last_s, self.policy.aside_max_s)
            assert abs(aside_s - (doubled_s or self.policy.aside_s)) < 1e-6
            self.last_s = aside_s

    @precondition(lambda self: self.standing.aside)
    @rule()
    def comes_back(self) -> None:
        assert self.standing.until_s is not None
        self.now_s = self.standing.until_s
        self.standing = self.standing.back()
        self.n_in_a_row = 0

    @precondition(lambda self: not self.standing.aside)
    @rule()
    def succeeds(self) -> None:
        self.standing = Standing()
        self.n_in_a_row, self.last_s = 0, 0.0

    @invariant()
    def never_longer_than_the_bound(self) -> None:
        if self.standing.until_s is not None:
            assert self.standing.until_s - self.now_s <= self.policy.aside_max_s + 1e-6


TestKeeper = Keeper.TestCase


def test_a_year_of_failures_overflows_nothing() -> None:
    standing, policy = Standing(), MachinePolicy()
    for _ in range(5000):
        standing = standing.back().failed(0.0, policy)
    assert standing.until_s == policy.aside_max_s


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), max_size=7), st.booleans())
def test_there_is_hope_as_long_as_one_may_come_back(
    machines: list[tuple[bool, int]], succeeded: bool
) -> None:
    standings = [Standing(until_s=1.0 if aside else None, n_asides=n) for aside, n in machines]
    rounds = MachinePolicy().max_asides if succeeded else FIRST_ROUNDS
    expected = all(aside and n >= rounds for aside, n in machines)
    assert hopeless(standings, MachinePolicy(), succeeded=succeeded) == expected


def test_the_verdict_names_what_failed_by_kind_and_count() -> None:
    failures = Failures()
    for number in range(3):
        failures.add(Fault.GUEST, f"boot {number} failed")
    failures.add(Fault.HOST, "no memory")
    verdict = failures.verdict(BootFailed("boot 2 failed", evidence="panic", next_step="see the console"))
    assert "3 x guest, last: boot 2 failed; 1 x host, last: no memory" in verdict.what
    assert (verdict.evidence, verdict.next_step) == ("panic", "see the console")
    assert "host_setup check" in Failures().verdict(ValueError("a bug")).next_step
