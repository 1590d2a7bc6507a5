"""Times and sizes as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.units import MAX_TIME_NS, parse_bytes, parse_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10ms", 10_000_000),
        ("1.5 us", 1_500),
        ("1.5µs", 1_500),
        ("3s", 3_000_000_000),
        ("2min", 120_000_000_000),
        ("70 ns", 70),
        ("28.5ms", 28_500_000),
        (".5ms", 500_000),
        ("1e3us", 1_000_000),
        ("  7ms ", 7_000_000),
        ("-5ms", -5_000_000),
        ("42", 42),
        (42, 42),
    ],
)
def test_times(text: str | int, expected: int) -> None:
    assert parse_ns(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100M", 100 << 20), ("1 GiB", 1 << 30), ("5MB", 5_000_000), ("4K", 4096), ("512", 512), (7, 7)],
)
def test_sizes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ms",
        "10 parsecs",
        "10 m s",
        "1..5ms",
        "10MS",
        "ten ms",
        "0x10ms",
        "1e9999s",
        "10ms20us",
        "nan",
        "inf s",
    ],
)
def test_what_is_no_time_names_the_key(text: str) -> None:
    with pytest.raises(UsageError, match=r"^tasks\[0\]\.period is ") as caught:
        parse_ns(text, key="tasks[0].period")
    assert caught.value.where == "tasks[0].period"


def test_a_truth_value_is_no_quantity() -> None:
    """YAML reads a bare `yes` or `on` as True, which Python would take for 1."""
    with pytest.raises(UsageError, match="not a quantity"):
        parse_ns(True)


def test_fractions_of_a_nanosecond_are_not_rounded_in_silence() -> None:
    with pytest.raises(UsageError, match="not a whole number of ns"):
        parse_ns("0.3ns")
    with pytest.raises(UsageError, match="not a whole number of B"):
        parse_bytes("0.3K")


def test_times_beyond_the_guests_range() -> None:
    assert parse_ns(MAX_TIME_NS) == MAX_TIME_NS
    for text in (MAX_TIME_NS + 1, -MAX_TIME_NS - 1, "1e12s"):
        with pytest.raises(UsageError, match="more than"):
            parse_ns(text)


@given(st.integers(-MAX_TIME_NS, MAX_TIME_NS))
def test_whole_nanoseconds_are_exact(value_ns: int) -> None:
    """No detour over floats: they hold only 53 bits."""
    assert parse_ns(f"{value_ns}ns") == value_ns


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    """No other error than ours, whatever the text."""
    with suppress(UsageError):
        assert isinstance(parse_ns(text), int)
