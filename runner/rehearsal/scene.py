"""One run that is rehearsed: its process, the faults that happen to it, and what is seen of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, Self

from runner.paths import RunPaths
from runner.rehearsal.fault import WAIT, Injection
from runner.rehearsal.link import Call
from runner.rehearsal.mount_namespace import entering, seen_by
from runner.rehearsal.processes import descendants
from runner.rehearsal.relay import Relay
from runner.rehearsal.setup import Setup
from runner.rehearsal.switchboard import Switchboard

_LOOK_S = 0.01
# A fault that was not noticed in time is watched for so much longer, to tell late from never.
_GRACE_S = 5.0
# So long after a run's end it may take until nothing of it is there any more.
_GONE_S = 3.0
# Monitors hear of a set a moment after it is over; of one that failed they hear something else.
_BEHIND_S = 1.0


class Scene:
    """A run folder, the runs in it one after the other, and the faults that happen meanwhile; left, no process and no fault is.

    Threads: the owner's, and those of the switchboard, which call `_answer`.

    Attributes:
        setup: The user's config.
        folder: Of this scene alone; `cache`, of images and snapshots, is all scenes'.
        injections: The faults, in the order in which they are to happen.
        owned: Whatever a fault needs until the end.
        runner_pid: The runner's process, as far as it has said anything.
        ended: Whether the present run has ended.
    """

    def __init__(self, setup: Setup, folder: Path, injections: Sequence[Injection] = ()) -> None:
        self.setup = setup
        self.folder = folder
        self.cache = folder.parent / "cache"
        self._link = folder / "link"
        self.injections = tuple(injections)
        self.owned = ExitStack()
        self.runner_pid: int | None = None
        self.ended = False
        self.namespaced = False
        self._changed = Condition()
        self._calls: list[tuple[float, Call]] = []
        self._relays: dict[int | None, Relay] = {}
        # By their ids: a set that is tried again is the same one.
        self._handed_over: set[str] = set()
        self._closing = False
        self._waited_until_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        #: What all runs have printed.
        self.output = folder / "output.txt"

    def __enter__(self) -> Self:
        for one in ("tmp", "conf"):
            (self.folder / one).mkdir(parents=True)
        self._arguments = self.setup.write(self.folder / "conf", self._link)
        self.owned.enter_context(Switchboard(self._link, self._answer))
        self.owned.callback(self._close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.owned.close()

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.kill()
        for one in self.injections:
            self._heal(one)

    @property
    def paths(self) -> RunPaths:
        """The run folder's files, where other processes see them when no run is under way."""
        return RunPaths(self.folder / "run")

    @property
    def temporary(self) -> Path:
        """Where the runs put temporary files."""
        return self.folder / "tmp"

    def inside(self, path: Path) -> Path:
        """A path of the run's as it is reached from here, also where the run has a file system of its own."""
        there = self.namespaced and not self.ended
        return seen_by(self.runner_pid, path) if there and self.runner_pid is not None else path

    @property
    def entering(self) -> list[str]:
        """What has a command see the file systems that the run sees."""
        return entering(self._process.pid) if self.namespaced and self._process is not None else []

    # The run

    def run(self, *, resumes: bool, limit_s: float) -> int:
        """Start the run, or go on with it, and watch until it has ended; its exit code, negative for a signal.

        Raises:
            TimeoutError: it had not ended after `limit_s` seconds; it has by then.
        """
        command = [sys.executable, "-m", "runner"]
        if resumes:
            command += [f"resume={self.paths.folder}"]
        else:
            command += [*self._arguments, f"hydra.run.dir={self.paths.folder}", "report=false"]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "RTFLEET_CACHE": str(self.cache)}
        for one in self.injections:
            if not one.healed:
                environment |= one.fault.environment(self.setup, self.folder)
                command = one.fault.wrapped(command, self.paths.folder)
                one.fault.before(self, one)
        self.ended, self.runner_pid = False, None
        self.namespaced = command[0] == "unshare"
        end_s = time.monotonic() + limit_s
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                # Ctrl-C in the terminal is for the rehearsal.
                start_new_session=True,
            )
        while self._process.poll() is None:
            if time.monotonic() > end_s:
                self.kill()
                raise TimeoutError(f"the run had not ended after {limit_s:.0f} s")
            self.look()
            time.sleep(_LOOK_S)
        self.ended = True
        gone_s = time.monotonic() + _GONE_S
        while self.look() and time.monotonic() < gone_s:
            time.sleep(_LOOK_S)
        code = self._process.returncode
        return code if code <= 128 else 128 - code  # as a shell tells it

    def kill(self) -> None:
        """End the run's process, and whatever else descends from us, at once."""
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.ended = True

    def look(self) -> bool:
        """See which faults were noticed, and heal those that were, or should have been long ago; whether any is left."""
        for one in self.injections:
            if one.injected_s is None or one.healed:
                continue
            deadline_s = one.fault.deadline_s(self.setup, one) or 0.0
            late = time.monotonic() > one.injected_s + deadline_s + _GRACE_S
            if not self._is_open(one) or late:
                self._heal(one)
        return any(one.open or one.begun for one in self.injections)

    def _is_open(self, one: Injection) -> bool:
        """Whether a fault has happened and was not noticed yet, as things are now."""
        if one.open and one.fault.noticed(self, one):
            one.noticed_s = time.monotonic()
        return one.open

    def _heal(self, one: Injection) -> None:
        if one.injected_s is not None and not one.healed:
            one.fault.heal(self, one)
            with self._changed:
                one.healed = True
                self._changed.notify_all()

    # What is seen of it

    def told(self, injection: Injection, *kinds: str, machine: bool = False) -> list[Call]:
        """The calls of these kinds since a fault happened; of the same machine only, if so wanted."""
        if injection.injected_s is None:
            return []
        own = injection.call.facts.get("machine") if machine and injection.call is not None else None
        with self._changed:
            return [
                call
                for at_s, call in self._calls
                if at_s >= injection.injected_s
                and call.what in kinds
                and own in (None, call.facts.get("machine", own))
            ]

    def status(self) -> Mapping[str, Any]:
        """`status.json`; empty while there is none."""
        with suppress(OSError, ValueError):
            found = json.loads(self.inside(self.paths.status).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def held(self, injection: Injection) -> str:
        """Why the run, since then, has said that it starts nothing further; empty if it has not."""
        told = [str(call.facts.get("held") or "") for call in self.told(injection, "fleet")]
        return "\n".join(filter(None, [str(self.status().get("held") or ""), *told]))

    def logged(self, injection: Injection) -> str:
        """What was logged since a fault happened."""
        with suppress(OSError), self.inside(self.paths.log).open("rb") as file:
            file.seek(injection.log_start_byte)
            return file.read().decode(errors="replace")
        return ""

    def log_bytes(self) -> int:
        """How long the run's log is."""
        with suppress(OSError):
            return self.inside(self.paths.log).stat().st_size
        return 0

    # The switchboard's threads

    def _answer(self, call: Call) -> str:
        with self._changed:
            self.runner_pid = call.pid
            self._calls.append((time.monotonic(), call))
            if call.what == "next":
                self._changed.wait_for(lambda: not self._monitors_are_behind(), _BEHIND_S)
                self._changed.wait_for(self._may_go_on)
            if call.what == "start":
                self._handed_over.add(str(call.facts["taskset_id"]))
            if call.what == "ssh" and self.injections:
                relay = self.owned.enter_context(Relay(int(call.facts["port"])))
                self._relays[call.host_pid] = relay
                return str(relay.port)
            one = next((one for one in self.injections if self._is_due(one, call)), None)
            answer = self._injected(one, call) if one is not None else ""
            if one is not None and answer == WAIT:  # whoever asked is stuck until then
                self._changed.wait_for(lambda: one.healed or self._closing)
                return ""
            return answer

    def relay_of(self, call: Call) -> Relay | None:
        """Through which the session to that emulator's guest goes."""
        return self._relays.get(call.host_pid)

    def _monitors_are_behind(self) -> bool:
        """Whether a fault is due that happens when monitors hear of a set that was handed over before."""
        return not self._closing and any(
            one.injected_s is None and "finish" in one.fault.moments and len(self._handed_over) >= one.at
            for one in self.injections
        )

    def _may_go_on(self) -> bool:
        """Whether another set may be handed over: not before what needs it was noticed, nor when something is due that waits for that."""
        held = any(one.open and one.fault.holds for one in self.injections)
        waits = any(self._has_come(one) and self._must_wait(one) for one in self.injections)
        return self._closing or not (held or waits)

    def _is_due(self, one: Injection, call: Call) -> bool:
        return call.what in one.fault.moments and self._has_come(one) and not self._must_wait(one)

    def _has_come(self, one: Injection) -> bool:
        return not one.begun and one.injected_s is None and len(self._handed_over) >= one.at

    def _must_wait(self, one: Injection) -> bool:
        """A run that is held, or that is over, notices nothing else."""
        others = [other for other in self.injections if other is not one and self._is_open(other)]
        shown = [other for other in others if other.fault.deadline_s(self.setup, other) is not None]
        return any(other.fault.holds or other.fault.exits or one.fault.exits for other in shown)

    def _injected(self, one: Injection, call: Call) -> str:
        log_bytes = self.log_bytes()
        self._waited_until_s = time.monotonic()
        one.begun = True
        try:
            word = one.fault.inject(self, one, call)
            if word is not None:
                machine = call.facts.get("machine", "")
                place = f"set {len(self._handed_over)}, {call.what}{f', {machine}' if machine else ''}"
                one.begin(call, place, log_bytes, self._waited_until_s)
        finally:
            one.begun = False
            self._changed.notify_all()
        return word or ""

    def wait(self, wait_s: float) -> None:
        """Let time pass before a fault happens: other calls are answered meanwhile. For `Fault.inject`."""
        self._changed.wait_for(lambda: self._closing, wait_s)
        self._waited_until_s = time.monotonic()
