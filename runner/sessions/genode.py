"""The session over TCP to a task loader that speaks Genode's protocol: QEMU guests, boards, and our own guests on port 3001."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from runner.deadline import Deadline
from runner.errors import Fault, ProtocolError, RunnerError, TaskSetError, UsageError
from runner.events import Event
from runner.genode import (
    Binary,
    GoSend,
    Matcher,
    Pong,
    Profile,
    Tag,
    check_binary,
    check_goal,
    encode_binary,
    encode_descriptions,
    encode_sized,
    encode_tag,
    packages,
    parse_profile,
)
from runner.hosts.base import AbstractHost
from runner.model import TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.genode_line import GenodeLine
from runner.specs import Reach
from runner.units import NS_PER_S

# Profiles come at most a tenth of a second after what they tell.
_QUIET_S = 0.5


class GenodeSession(AbstractSession):
    """Task sets over Genode's task-loader protocol.

    Guarantees: every call ends by its deadline, whatever the other side does; a program is sent once per connection, and again only
    when it has changed. Times are the host's, in whole milliseconds; releases and CPU times are not known.

    Session parameters: one text, the admission control's goal in XML.

    Args:
        host: A started host that runs and has an `address`.
        binaries: Folder with one file per workload (`hey`, `pi`, …), to be sent when needed; None: the host knows them.
    """

    reach: ClassVar[Reach] = Reach.GENODE

    def __init__(self, host: AbstractHost, *, binaries: str | None = None) -> None:
        self._host = host
        self._folder = None if binaries is None else Path(binaries)
        if self._folder is not None and not self._folder.is_dir():
            raise UsageError(
                f"there is no folder {binaries}",
                where="binaries",
                next_step="name the folder with the programs",
            )
        self._goal = b""
        self._goal_told = True
        self._line = GenodeLine(host)
        self._matcher: Matcher | None = None
        self._stop_at_s: float | None = None
        self._stopping = False
        #: Programs that were sent, by name, and their digests.
        self._sent: dict[str, bytes] = {}

    def open(self, deadline: Deadline) -> None:
        """Connect and have the task loader answer; a guest that has no address yet is waited for."""
        self._line.open(deadline)

    @property
    def where(self) -> str:
        return " at {}:{}".format(*self._host.address)

    def configure(self, parameters: tuple[Any, ...]) -> None:
        """Take over the admission control's goal; without parameters there is none."""
        if len(parameters) > 1:
            raise UsageError(
                f"a GenodeSession takes one session parameter, add_job() was given {len(parameters)}",
                next_step="give the goal of the admission control, in XML, or nothing",
            )
        goal = check_goal(parameters[0]) if parameters else b""
        self._goal_told = self._goal_told and goal == self._goal
        self._goal = goal

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        """Clear the host, send goal, descriptions and the programs that it has not got, and start."""
        self._line.check()
        if self._matcher is not None:
            raise UsageError(
                f"{self._host.name}: a task set was started before the last one ended",
                next_step="read its events() first",
            )
        descriptions = encode_descriptions(taskset, vcpus=self._host.facts.vcpus or None)
        missing = self._missing(taskset)
        with self._line.during("starting a task set"):
            self._line.send(encode_tag(Tag.CLEAR), deadline)
            self._line.ping(deadline)
            if not self._goal_told:
                self._line.send(encode_sized(Tag.OPTIMIZE, self._goal), deadline)
                self._goal_told = True
            self._line.send(encode_sized(Tag.SEND_DESCS, descriptions), deadline)
            self._send_all(missing, deadline)
            self._line.send(encode_tag(Tag.START), deadline)
        self._matcher, self._stopping = Matcher(taskset), False
        self._stop_at_s = None if taskset.stop_ns is None else time.monotonic() + taskset.stop_ns / NS_PER_S

    def events(self, deadline: Deadline) -> Iterator[Event]:
        """What the profiles tell, until every task has run all its jobs, or the set was stopped."""
        self._line.check()
        if self._matcher is None:
            raise UsageError(f"{self._host.name}: no task set was started", next_step="call start() first")
        return self._matched(self._matcher, deadline)

    def stop(self, deadline: Deadline) -> None:
        """Have the tasks stopped; what is known of them by then still comes."""
        self._line.check()
        if self._matcher is not None and not self._stopping:
            self._stopping = True
            with self._line.during("stopping a task set"):
                self._line.ask(encode_tag(Tag.STOP), deadline)

    def regain(self, deadline: Deadline) -> bool:
        """Stop and clear the host, and pass over what it says before it answers; not where the line is out of step."""
        if not self._line.usable:
            return False
        with self._line.during("bringing the session back"):
            self._line.send(encode_tag(Tag.STOP) + encode_tag(Tag.CLEAR), deadline)
            self._line.ping(deadline)
        self._matcher = None
        return True

    def close(self) -> None:
        """Hang up."""
        self._line.close()

    def abort(self, error: RunnerError) -> None:
        """Hang up under the owner's feet, who then raises `error`."""
        self._line.abort(error)

    def _matched(self, matcher: Matcher, deadline: Deadline) -> Iterator[Event]:
        while not matcher.done:
            if self._stop_at_s is not None and time.monotonic() >= self._stop_at_s:
                self.stop(deadline)
            settled = self._stopping and not self._line.asked
            with self._line.during("running a task set"):
                message = self._line.message(self._patience(deadline, settled=settled), Fault.TASKSET)
            if message is None and settled:
                break  # nothing more comes of a set that was stopped
            if message is None and deadline.passed:
                raise self._line.late(deadline, Fault.TASKSET)
            match message:
                case Pong() if self._line.asked:
                    self._line.asked = False
                case Profile(content):
                    yield from matcher.take(parse_profile(content))
                case Pong() | GoSend():
                    raise ProtocolError(f"{self._host.name}: {message!r} came while a task set runs")
        yield from self._ended(matcher, deadline)

    def _ended(self, matcher: Matcher, deadline: Deadline) -> Iterator[Event]:
        """Leave the host empty, then tell the end: who hears of it may start the next set at once."""
        with self._line.during("ending a task set"):
            self._line.send(encode_tag(Tag.STOP) + encode_tag(Tag.CLEAR), deadline)
        self._matcher = None
        yield from matcher.end()

    def _patience(self, deadline: Deadline, *, settled: bool) -> Deadline:
        """Until when to wait for the next message before looking around."""
        if settled:
            return deadline.at_most(_QUIET_S)
        if self._stop_at_s is not None and not self._stopping:
            return deadline.at_most(max(0.0, self._stop_at_s - time.monotonic()))
        return deadline

    def _missing(self, taskset: TaskSet) -> list[tuple[Binary, bytes]]:
        """The programs that the host has not got, or not as they are now."""
        missing = []
        for binary in packages(taskset, self._folder):
            try:
                content = binary.path.read_bytes()
            except (OSError, ValueError) as exc:  # ValueError: a path with a null byte
                raise TaskSetError(
                    f"the program {binary.path} cannot be read: {exc}",
                    next_step="correct workload_args.path, or machines.session.binaries",
                ) from exc
            check_binary(binary, content)
            if self._sent.get(binary.name) != hashlib.sha256(content).digest():
                missing.append((binary, content))
        return missing

    def _send_all(self, missing: list[tuple[Binary, bytes]], deadline: Deadline) -> None:
        if not missing:
            return
        self._line.owes = True
        self._line.send(encode_tag(Tag.SEND_BINARIES, len(missing)), deadline)
        for binary, content in missing:
            while not isinstance(message := self._line.awaited(deadline, go_send=True), GoSend):
                if not isinstance(message, Profile):  # of the set before
                    raise ProtocolError(f"{self._host.name}: {message!r} came instead of GO_SEND")
            self._sent.pop(binary.name, None)
            self._line.send(encode_binary(binary.name, content), deadline)
            self._sent[binary.name] = hashlib.sha256(content).digest()
        self._line.owes = False
