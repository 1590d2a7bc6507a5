"""The line between a run that is rehearsed and the rehearsal: a question whenever something can be injected, a word in answer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Call:
    """What a run says of itself.

    Attributes:
        what: Where it is: `next` (a set is about to be handed over), `start` (it was), `bell` (it is over, its answer not read yet),
            `ssh` (a guest's port), `stop`, `finish`, `bad`, `incident`, `fleet` (what monitors are told).
        pid: The runner's process.
        facts: What goes with it.
    """

    what: str
    pid: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def host_pid(self) -> int | None:
        """The emulator's process, where there is one."""
        return self.facts.get("host_pid")

    def encode(self) -> bytes:
        """As it is sent."""
        return json.dumps({"what": self.what, "pid": self.pid, "facts": dict(self.facts)}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Call:
        """What was sent."""
        fields = json.loads(line)
        return cls(fields["what"], fields["pid"], fields["facts"])


@contextmanager
def short_name(path: str | Path) -> Iterator[str]:
    """A name of a socket while the block runs; its path may be longer than the 108 bytes that the kernel takes."""
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def ask(address: str, what: str, **facts: object) -> str:
    """What the rehearsal answers, which may take as long as it likes; empty: go on, as also when there is no rehearsal any more."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            with short_name(address) as name:
                line.connect(name)
            line.sendall(Call(what, os.getpid(), facts).encode())
            with line.makefile("rb") as answer:
                return answer.readline(_MAX_BYTES).decode().strip()
    except OSError:
        return ""
