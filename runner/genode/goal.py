"""The admission control's goal, a session parameter: a document that the task loader is given as it is."""

from __future__ import annotations

from xml.parsers import expat

from runner.errors import UsageError
from runner.text.excerpt import excerpt

MAX_GOAL_BYTES = 1 << 16


def check_goal(goal: object) -> bytes:
    """The document to be sent with OPTIMIZE; empty for none.

    Raises:
        UsageError: it is no text, too long, or not well-formed.
    """
    if not isinstance(goal, str):
        raise UsageError(
            f"the goal {excerpt(goal)} is no text",
            next_step="write it as XML: <goal><fairness>…</fairness></goal>",
        )
    if not goal.strip():
        return b""
    try:
        content = goal.encode("ascii")
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.Parse(content, True)
    except (UnicodeEncodeError, expat.ExpatError) as exc:
        raise UsageError(
            f"the goal {excerpt(goal)} is no ASCII XML: {exc}", next_step="close every element that it opens"
        ) from exc
    if len(content) > MAX_GOAL_BYTES:
        raise UsageError(f"the goal has {len(content)} bytes, must be at most {MAX_GOAL_BYTES}")
    return content


def _refuse_doctype(*_: object) -> None:
    raise UsageError("the goal has a document type", next_step="leave it out")
