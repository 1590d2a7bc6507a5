"""Genode's protocol: what a task loader says to our session, and what our guest's task loader is told."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

from runner.errors import InfrastructureError, TaskSetError
from runner.events import EndEvent, Event
from runner.genode import (
    GoSend,
    Matcher,
    MessageDecoder,
    Pong,
    Profile,
    Tag,
    encode_binary,
    encode_descriptions,
    encode_sized,
    encode_tag,
    parse_profile,
)
from runner.model import OverrunPolicy
from runner.simulator import Simulation
from tests.genode_peer import GARBAGE, profile, rows_of, word
from tests.mutations.feeder import unbounded_memory
from tests.mutations.kind import Kind
from tests.mutations.messages import SETS, Tables, pieces
from tests.mutations.mutators import NUMBERS, changed_bytes, changed_tokens
from tests.task_loader.client import make

_SETS = tuple(replace(taskset, overrun_policy=OverrunPolicy.KILL_AND_SKIP) for taskset in SETS)
_WORDS = (
    *("START", "EXIT", "JOBS_DONE", "NOT_SCHEDULED", "event", "events", "profile", "task-id", "time-stamp"),
    *(
        "<",
        ">",
        "/>",
        '"',
        "'",
        "&lt;",
        "&a;",
        "&#0;",
        "<!DOCTYPE a [",
        "]>",
        "<![CDATA[",
        "<?x?>",
        "-1",
        "1e9",
    ),
    *("periodictask", "taskset", "offset", "config", "arg1", "0", "128", "100M"),
)


def _told(taskset_idx: int) -> list[bytes]:
    """The profiles of a simulated set, some events in each, every other one with something behind it."""
    rows = [
        row for event in Simulation(_SETS[taskset_idx]).events() for row in rows_of(event, stopping=False)
    ]
    return [
        profile(*rows[at : at + 5], garbage=GARBAGE if at % 2 else b"\0")[4:] for at in range(0, len(rows), 5)
    ]


def _sized(content: bytes, chance: Random) -> bytes:
    """With its size in front, or with another one."""
    lies = [len(content) - 1, len(content) + 1, *(n for n in NUMBERS if isinstance(n, int))]
    size = len(content) if chance.random() < 0.9 else chance.choice(lies)
    return word(size % (1 << 32)) + content


class GenodeProfiles(Kind):
    """A task loader's messages, cut into any pieces: sizes, XML, and what may come of a job in which order."""

    name = "genode"
    share = 60
    refusals = (InfrastructureError, TaskSetError)
    memory_mib = 64

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._profiles = [_told(idx) for idx in range(len(_SETS))]
        self._tables = Tables()

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(_SETS))
        told = list(self._profiles[which])
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            at = chance.randrange(len(told))
            match chance.randrange(5):
                case 0:
                    told[at] = changed_bytes(told[at], chance, told)
                case 1 | 2:
                    text = changed_tokens(told[at].decode("ascii", "replace"), chance, _WORDS)
                    told[at] = text.encode("utf-8", "replace")
                case 3:
                    told.insert(at, told[chance.randrange(len(told))])
                case _ if len(told) > 1:
                    del told[at]
        said = b"".join(_sized(one, chance) for one in told)
        if chance.random() < 0.2:
            at = chance.randrange(len(said))
            said = said[:at] + chance.choice((word(Tag.AVAILABLE), word(Tag.GO_SEND), b"")) + said[at:]
        return bytes([which, chance.choice((0, 1, 7, 255))]) + said

    def feed(self, data: bytes) -> str:
        taskset = _SETS[data[0]]
        decoder, matcher, events = MessageDecoder(), Matcher(taskset), list[Event]()
        for piece in pieces(data[2:], data[1]):
            decoder.feed(piece)
            while (message := decoder.next_message()) is not None:
                match message:
                    case Profile(content):
                        events += matcher.take(parse_profile(content))
                    case Pong() | GoSend():
                        pass
        events += matcher.end()
        assert isinstance(events[-1], EndEvent)
        self._tables.store(taskset, events)
        return "accepted"


class GenodeRequests(Kind):
    """Requests, read by the guest's own parser, built for this computer under the address and undefined-behaviour sanitizers."""

    name = "genode_requests"
    share = 20

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._parser = make(scratch / "genode_check")
        self._parts = [
            encode_tag(Tag.CLEAR),
            encode_sized(Tag.OPTIMIZE, b"<goal><fairness>1</fairness></goal>"),
            *(encode_sized(Tag.SEND_DESCS, encode_descriptions(one)) for one in _SETS),
            encode_tag(Tag.SEND_BINARIES, 1) + encode_binary("own", b"\x7fELF program"),
            *(encode_tag(tag) for tag in (Tag.START, Tag.STOP, Tag.AVAILABLE)),
        ]

    def make(self, chance: Random) -> bytes:
        parts = [chance.choice(self._parts) for _ in range(chance.randint(1, 12))]
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(parts))
            if chance.random() < 0.5:
                parts[at] = changed_bytes(parts[at], chance, self._parts)
            else:
                tag, text = parts[at][:4], parts[at][8:].decode("ascii", "replace")
                content = changed_tokens(text, chance, _WORDS).encode("utf-8", "replace")
                parts[at] = tag + _sized(content, chance)
        return chance.choice((b"1", b"4")) + b"".join(parts)

    def feed(self, data: bytes) -> str:
        done = subprocess.run(
            [self._parser, data[:1]],
            input=data[1:],
            capture_output=True,
            check=False,
            timeout=self.limit_s,
            preexec_fn=unbounded_memory,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        assert not done.stderr, done.stderr.decode(errors="replace")
        refused = any(line.startswith((b"bad", b"fault")) for line in done.stdout.splitlines())
        return "refused, as it should" if refused else "accepted"
