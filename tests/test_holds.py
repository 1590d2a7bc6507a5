"""Reasons that hold the queue compose, and each is said when it begins and ends, however often it does."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.admission.holds import AT_ONCE, INTERVAL_S, Holds, Notices

SOURCES = ("disk", "machines", "monitor A")


def test_several_reasons_hold_until_the_last_is_gone():
    holds = Holds()
    assert holds.text == ""
    holds.set("disk", "no room")
    holds.set_all("monitor", {"A": "A is stuck", "B": "B is blocked", "C": ""})
    assert holds.text == "no room; A is stuck; B is blocked"
    holds.set("disk", "")
    holds.set("disk", "")
    holds.set_all("monitor", {"B": "B is blocked still"})
    assert holds.reasons == {"monitor B": "B is blocked still"}
    holds.set_all("monitor", {})
    assert holds.text == ""


@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.sampled_from(("", "x", "y")))))
def test_what_holds_is_what_was_said_last_by_each_source(steps):
    holds, last = Holds(), {}
    for source, reason in steps:
        holds.set(source, reason)
        last[source] = reason
    assert holds.reasons == {source: reason for source, reason in last.items() if reason}


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.dictionaries(st.sampled_from(SOURCES), st.just("x"))), max_size=300
    )
)
def test_lines_are_bounded_and_in_the_end_what_was_said_is_what_is(steps):
    notices, now_s = Notices(), 0.0
    said: dict[str, list[str]] = {source: [] for source in SOURCES}
    reasons: dict[str, str] = {}
    for wait_s, reasons in steps:
        now_s += wait_s
        for source, reason in notices.due(reasons, now_s):
            said[source].append(reason)
    for lines in said.values():
        assert all(bool(one) != bool(other) for one, other in itertools.pairwise(lines))
        assert len(lines) <= AT_ONCE + now_s / INTERVAL_S + 1
    late = dict(notices.due(reasons, now_s + INTERVAL_S))
    for source, lines in said.items():
        last = late[source] if source in late else (lines[-1] if lines else "")
        assert last == reasons.get(source, "")


def test_a_condition_is_said_once_while_it_lasts_whatever_its_figures():
    notices = Notices()
    assert notices.due({"disk": "5 MiB free"}, 0.0) == [("disk", "5 MiB free")]
    assert notices.due({"disk": "4 MiB free"}, 1000.0) == []
    assert notices.due({}, 1001.0) == [("disk", "")]
    assert notices.due({}, 2000.0) == []
