"""Lines of logs: the last ones and those that are looked for, whatever stands in the file."""

from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from runner.text.log_lines import clean, last_lines, search


@given(st.text(max_size=2000))
def test_what_is_shown_moves_no_cursor(text):
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) <= 301
    assert clean(shown) == shown


def test_escape_sequences_go_as_a_whole():
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07text\x1bcend\r") == "red textend"


@given(st.lists(st.text("abc \t", max_size=8), max_size=30), st.integers(1, 10))
def test_the_last_lines_are_the_last_that_are_not_empty(tmp_path_factory, lines, n):
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text("\n".join(lines))
    found = last_lines(path, n)
    full = [clean(line) for line in lines if line.strip()]
    assert list(found.lines) == full[-n:]
    assert found.n_found == len(full)


@given(st.binary(max_size=3000), st.integers(1, 100))
def test_any_bytes_can_be_looked_through(tmp_path_factory, content, max_bytes):
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(content)
    every, with_a = search(path, [re.compile(rb""), re.compile(rb"a")], 5, max_bytes=max_bytes)
    assert len(every.lines) <= 5
    assert with_a.n_found <= every.n_found
    assert every.n_skipped_bytes == max(0, len(content) - max_bytes)


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    (found,) = search(path, [re.compile(rb"line")], 3, max_bytes=100)
    assert found.lines == ("line 997", "line 998", "line 999")
    assert 5 < found.n_found < 15


def test_a_line_without_an_end_is_looked_at_in_pieces(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1_000_000 + b"needle")
    (found,) = search(path, [re.compile(rb"needle")], 3)
    assert found.n_found == 1
    assert len(found.lines[0]) <= 301


def test_what_is_no_log_is_missing(tmp_path):
    assert last_lines(tmp_path / "log", 3).missing == "there is no such file"
    assert last_lines(tmp_path, 3).missing
    os.mkfifo(tmp_path / "pipe")
    assert last_lines(tmp_path / "pipe", 3).missing
