"""The control file's text: what an operator may write, and what happens to everything else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.fleet import RunState
from runner.operator.control import Control, parse, render

LIMIT = 7
GOOD = "machines: 3\nstate: run\n"


def refusal(text: str, limit: int = LIMIT) -> UsageError:
    """The error for this text, which says where and what to do, and fits on a screen."""
    with pytest.raises(UsageError) as caught:
        parse(text, limit)
    error = caught.value
    assert error.what.startswith("control file: ")
    assert error.where.startswith("line "), error.where
    assert 1 <= int(error.where.removeprefix("line ")) <= text.count("\n") + 1
    assert error.next_step
    assert len(str(error)) < 1000
    return error


@given(st.integers(0, 10**6), st.sampled_from(RunState), st.integers(0, 10**6))
def test_what_is_written_can_be_read(machines: int, state: RunState, more: int) -> None:
    control = Control(machines, state)
    assert parse(render(control, machines + more), machines + more) == control


def test_what_is_written_explains_itself() -> None:
    text = render(Control(2, RunState.RUN), LIMIT)
    assert all(state.value in text for state in RunState)
    assert "0 … 7" in text


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "state: run\nmachines: 3\n",
        "machines: 3\nstate: run",
        "machines:    3   # three\n\n\nstate: run # go\n",
        "machines: 3\r\nstate: run\r\n",
        "{machines: 3, state: run}",
        "machines: '3'\nstate: \"run\"\n",
        "---\nmachines: 3\nstate: run\n...\n",
        "\ufeffmachines: 3\nstate: run\n",
        "\ufeff" + render(Control(3, RunState.RUN), LIMIT),
    ],
)
def test_ways_to_write_the_same(text: str) -> None:
    assert parse(text, LIMIT) == Control(3, RunState.RUN)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("3\n", 1, "empty, or no list"),
        ("- machines\n- state\n", 1, "empty, or no list"),
        ("machines: 3\n", 2, "state is missing"),
        ("\nstate: run", 2, "machines is missing"),
        ("machines: 3\nstate: run\nmachine: 4\n", 3, "unknown key 'machine'"),
        ("machines: 3\nstate: run\nmachines: 4\n", 3, "machines stands there twice"),
        ("machines: 3\nstate: run\nstate: run\n", 3, "state stands there twice"),
        ("machines: 8\nstate: run\n", 1, "machines is '8', not a number from 0 to 7"),
        ("machines: -1\nstate: run\n", 1, "machines is '-1'"),
        ("machines: 3.0\nstate: run\n", 1, "machines is '3.0'"),
        ("machines: 0x3\nstate: run\n", 1, "machines is '0x3'"),
        ("machines: ٣\nstate: run\n", 1, "machines is"),
        ("machines: 3 4\nstate: run\n", 1, "machines is '3 4'"),
        ("machines:\nstate: run\n", 1, "machines is ''"),
        ("machines: yes\nstate: run\n", 1, "machines is 'yes'"),
        ("machines: [3]\nstate: run\n", 1, "machines is no single value"),
        ("machines: 3\nstate: {run: run}\n", 2, "state is no single value"),
        ("machines: 3\nstate: RUN\n", 2, "not one of run, pause, drain, kill"),
        ("machines: 3\nstate: stop\n", 2, "state is 'stop'"),
        ("machines: 3\n\tstate: run\n", 2, "no valid YAML"),
        ("machines: 3\nstate: 'run\n", 3, "no valid YAML"),
        ("machines: 3\nstate: run\n  oops\n: :\n", None, ""),
        ("machines: 3\n---\nstate: run\n", 2, "no valid YAML"),
        ("machines: 3\nstate: \x00run\n", 2, "no valid YAML"),
        ("\n\n\x07machines: 3\nstate: run\n", 3, "no valid YAML"),
        ("machines: *other\nstate: run\n", 1, "no valid YAML"),
        ("<<: {machines: 3}\nstate: run\n", 1, "unknown key '<<'"),
        ("? [machines]\n: 3\nstate: run\n", 1, "no key"),
        ("<<<<<<< HEAD\nmachines: 3\nstate: run\n", None, ""),
    ],
)
def test_malformed_texts_are_refused_with_their_line(text: str, line: int | None, what: str) -> None:
    error = refusal(text)
    assert what in error.what
    if line is not None:
        assert error.where == f"line {line}"


@pytest.mark.parametrize(
    "text",
    [
        f"machines: {'9' * 100_000}\nstate: run\n",
        f"machines: 3\nstate: {'x' * 100_000}\n",
        f"{'x' * 900}: 3\nstate: run\n",
        f"machines: {'[' * 5000}\nstate: run\n",
        f"machines: {'[' * 1500}{']' * 1500}\nstate: run\n",
        f"{'{a: ' * 1500}\n",
        "\n".join(f"key{number}: {number}" for number in range(50_000)),
    ],
    ids=["digits", "letters", "key", "brackets", "closed-brackets", "maps", "keys"],
)
@pytest.mark.timeout(60)  # what is quadratic in their length takes far longer
def test_huge_texts_are_refused_briefly(text: str) -> None:
    refusal(text)


BOMB = "a: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        f"machines: 3\nstate: run\nbomb:\n{''.join(f'  {line}' for line in BOMB.splitlines(True))}",
        # As a key: whoever shows it expands it.
        "? "
        + "["
        + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" if i else "&a0 [x, x]" for i in range(40))
        + "]\n: 3\n",
        "machines: &a [*a]\nstate: run\n",
    ],
    ids=["mapping", "nested", "key", "itself"],
)
def test_aliases_are_not_expanded(text: str) -> None:
    began_s = time.monotonic()
    refusal(text)
    assert time.monotonic() - began_s < 1.0


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:sys.exit [3]", "!!python/object/new:sys.exit [3]", "!!python/name:sys.exit"],
)
def test_tags_are_not_executed(value: str) -> None:
    refusal(f"machines: {value}\nstate: run\n")
    refusal(f"machines: 3\nstate: {value}\n")


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*"{}[]&*!|>'\"%@`:-?,# \n\t", "machines", "state", "3", "run"])).map("".join)
)
def test_any_text_is_either_a_control_or_a_refusal(text: str) -> None:
    try:
        control = parse(text, LIMIT)
    except UsageError:
        refusal(text)
    else:
        assert 0 <= control.machines <= LIMIT
