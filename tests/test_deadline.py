"""Time budgets."""

from __future__ import annotations

import time

from runner.deadline import Deadline


def test_a_deadline_passes() -> None:
    deadline = Deadline.after(0.05)
    assert not deadline.passed
    assert 0 < deadline.remaining_s <= 0.05
    time.sleep(0.06)
    assert deadline.passed


def test_what_is_left_is_never_negative() -> None:
    """It is passed on as a timeout, and a negative one means many things."""
    deadline = Deadline.after(-1.0)
    assert deadline.remaining_s == 0.0
    assert deadline.passed


def test_at_most_takes_the_earlier_one() -> None:
    long, short = Deadline.after(100.0), Deadline.after(0.5)
    assert long.at_most(0.5).remaining_s <= 0.5
    assert long.at_most(0.5).budget_s == 0.5
    assert short.at_most(100.0) is short


def test_the_budget_stays_what_was_granted() -> None:
    """Messages name it after it has passed."""
    deadline = Deadline.after(0.01)
    time.sleep(0.02)
    assert deadline.budget_s == 0.01
