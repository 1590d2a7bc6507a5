"""What messages show of values: never more than a line, of whatever there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.text.excerpt import excerpt, printable

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(ANYTHING)
def test_an_excerpt_is_one_short_line_that_can_be_written(value: object) -> None:
    shown = excerpt(value)
    assert len(shown) < 3000
    assert "\n" not in shown
    shown.encode()


def test_small_values_are_shown_as_they_are() -> None:
    assert excerpt("20") == "'20'"
    assert excerpt([1, "a"]) == "[1, 'a']"
    assert excerpt({"a": None}) == "{'a': None}"
    assert excerpt([1, 2, 3, 4]) == "[1, 2, 3, …]"


def test_numbers_beyond_what_python_writes_are_measured() -> None:
    assert excerpt(1 << 100_000) == "a number of 100001 bits"


def test_values_that_hold_themselves_or_too_much_take_no_time() -> None:
    itself: list[object] = []
    itself.append(itself)
    assert excerpt(itself) == "[[[…]]]"
    bomb: list[object] = ["x"]
    for _ in range(60):
        bomb = [bomb] * 9
    assert len(excerpt(bomb)) < 100


def test_what_a_guest_says_moves_no_cursor_and_can_be_written() -> None:
    error = UsageError("a\x1b[2J\ud800", where="\u2028", evidence="one\n\ttwo\r\x9b0m")
    assert str(error) == (
        "a\\x1b[2J\\ud800\n  where: \\u2028\n  last output:\n    | one\n    | \ttwo\\x0d\\x9b0m"
    )
    assert printable("Grüße, 世界\n") == "Grüße, 世界\n"


def test_an_error_is_never_longer_than_one_can_read() -> None:
    assert len(str(UsageError("x" * 10**6, where="y" * 10**6))) < 10_000
