"""A host whose mailbox and whose line can be tampered with, at the moments when it matters."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable

from runner.deadline import Deadline
from runner.errors import GuestDied
from runner.faults.recovery import Recovery
from runner.hosts.base import AbstractHost, HostFacts, HostPhase, SshCredentials
from runner.mailbox.layout import GUEST, GUEST_AT
from runner.rehearsal.link import ask

#: Answers at the bell: what to do to the guest's reply before it is read; a seed may follow.
GARBAGE, TORN = "garbage", "torn"


class TamperedHost(AbstractHost):
    """Another host, with everything of it as it is, but for its reply in the mailbox and the port to its SSH server.

    Args:
        inner: The true one; its owner goes on to end it.
        link: Where the rehearsal listens.
    """

    def __init__(self, inner: AbstractHost, link: str) -> None:
        self._inner = inner
        self._link = link

    def run_until_bell(self, deadline: Deadline) -> None:
        self._inner.run_until_bell(deadline)
        word, _, seed = ask(self._link, "bell", machine=self.name, host_pid=self.pid).partition(" ")
        if word == GARBAGE:
            _scribble(self._inner.mailbox, random.Random(seed))  # noqa: S311 - to be repeated, not to be secret
        elif word == TORN:
            _tear(self._inner.mailbox)

    @property
    def ssh_address(self) -> tuple[str, int]:
        address, port = self._inner.ssh_address
        relay = ask(self._link, "ssh", machine=self.name, host_pid=self.pid, port=port)
        return address, int(relay) if relay.isdigit() else port

    # As it is.

    @property
    def address(self) -> tuple[str, int]:
        return self._inner.address

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def phase(self) -> HostPhase:
        return self._inner.phase

    @property
    def facts(self) -> HostFacts:
        return self._inner.facts

    @property
    def credentials(self) -> SshCredentials:
        return self._inner.credentials

    @property
    def mailbox(self) -> mmap.mmap:
        return self._inner.mailbox

    @property
    def pid(self) -> int | None:
        return self._inner.pid

    def evidence(self) -> str:
        return self._inner.evidence()

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        self._inner.start(deadline, recovery)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        self._inner.watch(on_death)

    def stop(self) -> None:
        self._inner.stop()

    def kill(self) -> None:
        self._inner.kill()


def _scribble(region: mmap.mmap, rng: random.Random) -> None:
    """Random bytes where the guest's header is."""
    region[GUEST_AT : GUEST_AT + GUEST.size] = rng.randbytes(GUEST.size)


def _tear(region: mmap.mmap) -> None:
    """As if the guest had written but the first half of its text."""
    header = GUEST.unpack(region[GUEST_AT : GUEST_AT + GUEST.size])
    reply_offset, reply_bytes = header[4], header[5]
    half = reply_bytes // 2
    region[reply_offset + half : reply_offset + reply_bytes] = bytes(reply_bytes - half)
