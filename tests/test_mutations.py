"""Some of the mutated inputs, the same each time; the rest by `python -m tests.mutations`."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from runner.errors import UsageError
from tests.mutations.feeder import Verdict, feed, feed_kind
from tests.mutations.kind import Kind
from tests.mutations.kinds import KINDS

#: How many of each kind: as many as take some seconds.
COUNTS = {
    "control": 1000,
    "tasksets": 300,
    "formats": 500,
    "configs": 40,
    "mailbox": 1000,
    "hello": 1000,
    "lines": 2000,
    "requests": 50,
    "genode": 1500,
    "genode_requests": 50,
    "qmp": 200,
    "ssh": 8,
    "databases": 100,
    "json": 1500,
    "records": 100,
    "states": 2000,
    "names": 300,
    "command_line": 3,
}


@pytest.fixture(scope="module", autouse=True)
def nobody_is_left_behind() -> Iterator[None]:
    """Python's multiprocessing keeps a process beside ours to the end, and other tests look for what is left."""
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def test_every_kind_has_its_share() -> None:
    assert COUNTS.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_every_input_is_accepted_or_refused(tmp_path: Path, name: str) -> None:
    tally = feed_kind(KINDS[name], count=COUNTS[name], seed=0, n_workers=1, reproducers=tmp_path)
    assert [verdict.wrong for verdict, _ in tally.wrong] == []
    assert tally.n_inputs == COUNTS[name]


class Misbehaving(Kind):
    """Answers as its input says."""

    name = "misbehaving"
    share = 0
    refusals = (UsageError,)
    limit_s: ClassVar[float] = 0.5
    memory_mib = 64

    def make(self, chance: Random) -> bytes:
        return b""

    def feed(self, data: bytes) -> str:
        match data:
            case b"refuse":
                raise UsageError("no")
            case b"traceback":
                raise LookupError("a bug")
            case b"printed":
                import logging

                logging.getLogger("a").error("oops", exc_info=LookupError("a bug"))
            case b"hang":
                while True:
                    pass
            case b"memory":
                bytearray(1 << 30)
            case b"swallowed":
                try:
                    bytearray(1 << 30)
                except MemoryError as exc:
                    raise UsageError("something else") from exc
            case b"die":
                import os

                os._exit(7)
        return "accepted"


def fed(data: bytes) -> Verdict:
    ((verdict, kept),) = feed(Misbehaving, seed=0, indices=[0], data=data)
    assert kept == (data if verdict.wrong else b"")
    return verdict


def test_right_answers_are_told_from_each_other() -> None:
    assert fed(b"").answer == "accepted"
    assert fed(b"refuse").answer == "UsageError"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"traceback", "LookupError: a bug"),
        (b"printed", "a traceback on standard error"),
        (b"hang", "hang"),
        (b"memory", "memory"),
        (b"swallowed", "memory"),
        (b"die", "died: the worker ended with 7"),
    ],
)
def test_whatever_else_happens_is_found(data: bytes, what: str) -> None:
    assert what in fed(data).wrong
