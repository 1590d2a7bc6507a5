"""The control file: the operator's desired state of a run. Pure: text in, values out."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from runner.errors import UsageError
from runner.fleet import RunState

# The file as it is written has some 600; whatever is much longer is another file by mistake, and slow to parse.
MAX_CHARS = 4_000
_STATES = ", ".join(state.value for state in RunState)


@dataclass(frozen=True)
class Control:
    """What the operator wants.

    Attributes:
        machines: How many machines.
        state: What to do with them.
    """

    machines: int
    state: RunState


def render(control: Control, limit: int) -> str:
    """The control file as it is written when a run starts: the values, and comments that explain them."""
    return f"""\
# What you want of this run. Edit and save; it takes effect within a second, and status.json shows it.
# It is a state, not a command: saving the same content again changes nothing.

# How many machines, 0 … {limit}. More start at once; surplus ones finish their task set first.
machines: {control.machines}

# run    keep that many machines busy
# pause  start no further task set; those that run finish; the machines stay
# drain  finish what runs, close the machines, end the run (what is left can be resumed)
# kill   end all machines at once; their task sets go back to the queue; end the run
state: {control.state.value}
"""


def parse(text: str, limit: int) -> Control:
    """The values of a control file.

    Raises:
        UsageError: when the text is no mapping of exactly `machines` and `state` with values in range; `where` is the line.
    """
    root = _composed(text)
    if not isinstance(root, yaml.MappingNode):
        raise _refusal("empty, or no list of `key: value`", "line 1")
    values: dict[str, tuple[str, str]] = {}
    for key, value in root.value:
        line = f"line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal("no key but something nested; the keys are machines and state", line)
        if key.value not in ("machines", "state"):
            raise _refusal(f"an unknown key {key.value[:40]!r}; the keys are machines and state", line)
        if key.value in values:
            raise _refusal(f"{key.value} stands there twice", line)
        if not isinstance(value, yaml.ScalarNode):
            raise _refusal(f"{key.value} is no single value", line)
        values[key.value] = (value.value, line)
    for name in ("machines", "state"):
        if name not in values:
            raise _refusal(f"{name} is missing", f"line {text.count(chr(10)) + 1}")
    return Control(_machines(*values["machines"], limit), _state(*values["state"]))


def _composed(text: str) -> yaml.Node | None:
    """The text as YAML nodes: nothing is constructed, so no tag can act and no alias can expand."""
    if len(text) > MAX_CHARS:
        raise _refusal(f"more than {MAX_CHARS} characters", "line 1")
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line if exc.problem_mark is not None else 0
        raise _refusal(f"no valid YAML: {exc.problem}", f"line {line + 1}") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position)
        raise _refusal(f"no valid YAML: the character {chr(exc.character)!r}", f"line {line + 1}") from exc
    except RecursionError:
        raise _refusal("no valid YAML: nested too deeply", "line 1") from None


def _machines(text: str, line: str, limit: int) -> int:
    # At most nine digits: whatever is longer is beyond any limit.
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= limit):
        raise _refusal(f"machines is {text[:40]!r}, not a number from 0 to {limit}", line)
    return int(text)


def _state(text: str, line: str) -> RunState:
    try:
        return RunState(text)
    except ValueError:
        raise _refusal(f"state is {text[:40]!r}, not one of {_STATES}", line) from None


def _refusal(what: str, line: str) -> UsageError:
    return UsageError(
        f"control file: {what}", where=line, next_step="correct the file; until then nothing changes"
    )
