"""One QEMU at work: its process, its monitor, and what became of it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from threading import Condition
from types import TracebackType
from typing import Any, Self

from runner.deadline import Deadline
from runner.errors import BootFailed, Fault, GuestDied, HostError, HostShortage, SessionLost
from runner.qemu.berth import Berth
from runner.qemu.bounded_log import make_room, open_log, size_bytes
from runner.qemu.command import Wiring
from runner.qemu.confinement import Confinement
from runner.qemu.failure import (
    FATAL_EVENTS,
    describe_event,
    describe_exit,
    explain,
    fault_of_event,
    fault_of_exit,
    tail,
)
from runner.qemu.killswitch import KillSwitch
from runner.qemu.launcher import LAUNCHER
from runner.qemu.process import Launch, Process
from runner.qemu.qmp import Command, QmpMonitor
from runner.qemu.shared_memory import Memory
from runner.qemu.tap import open_tap

# A QEMU in good health answers within a millisecond; a host that swaps may take long.
# HMP's `info usernet`: `TCP[HOST_FORWARD]  12  127.0.0.1  40693  10.0.2.15  22  0  0`.
_FORWARDED = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s")
_ANSWER_S = 10.0

# Ending a healthy QEMU by SIGKILL takes 3 ms (measured).
_SIGKILL_S = 10.0

# A command and the bell that follows it make a handful of events. A guest can ring thousands of times a second.
_EVENTS_UNASKED_MAX = 1000

# QEMU closes its monitor an instant before its process ends.
_LOST_BEFORE_EXIT_S = 1.0


class Emulator:
    """A QEMU that takes commands; its guest stands still at first. Left as a context manager, it ends.

    Guarantees: whoever waits or calls learns of QEMU's end at once, with the reason. After `end()` nothing is left.
    Threads: `wait_for` and `end` are for the owner; everything else is for any thread.

    Attributes:
        berth: Where it is at home.
        version: QEMU's version: `7.2.22`.
    """

    def __init__(
        self,
        berth: Berth,
        build: Callable[[Wiring], list[str]],
        deadline: Deadline,
        switch: KillSwitch,
        *,
        bell: str = "",
        memories: Sequence[Memory] = (),
        confinement: Confinement,
    ) -> None:
        """Start QEMU and wait until it takes commands.

        Args:
            build: Makes QEMU's command.
            switch: Kills QEMU when it is pulled.
            bell: Name of a QMP event by which this guest says what it has to say, and which is not its end therefore.
            memories: What QEMU's command refers to, beside what `Wiring` does.
            confinement: What QEMU may do.

        Raises:
            HostError: QEMU cannot run here, or not with this command; says why.
            BootFailed: it did not answer in time.
            MachineKilled: the switch was pulled.
        """
        self.berth = berth
        self._log = berth.log
        self._switch = switch
        self._fatal = FATAL_EVENTS - {bell}
        self._changed = Condition()
        self._events: deque[tuple[str, Mapping[str, object]]] = deque(maxlen=_EVENTS_UNASKED_MAX)
        self._n_unasked = 0
        self._death: GuestDied | None = None
        self._watcher: Callable[[GuestDied], None] | None = None
        self._expected = False
        self._owned = ExitStack()
        make_room(berth.console_log)
        self._console_start_byte = size_bytes(berth.console_log)
        self._process, channel = _start(berth, build, memories, confinement)
        self._seen_stopped = False
        self._monitor = QmpMonitor(berth.name, channel, self._on_event, self._on_lost, self._look)
        self._owned.callback(self._process.join)
        self._owned.callback(self._monitor.close)
        try:
            self._owned.enter_context(switch.attached(self._kill))
            self.version = self._await_greeting(deadline)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def death(self) -> GuestDied | None:
        """Why it ended though nobody asked for it; None otherwise."""
        return self._death

    def evidence(self) -> str:
        """The last words of this guest and this QEMU."""
        return self.berth.evidence(self._console_start_byte)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """What QEMU returns for a QMP command.

        Raises:
            GuestDied: QEMU ended, or does not answer.
            ProtocolError: QEMU refused the command.
            MachineKilled: the switch was pulled.
        """
        self._n_unasked = 0
        try:
            return self._monitor.execute(command, Deadline.after(_ANSWER_S), **arguments)
        except SessionLost as exc:
            raise self._lost(exc) from exc

    def forwarded_port(self, port: int) -> tuple[str, int]:
        """The loopback address and port that lead to a port of the guest's on QEMU's own network.

        Raises:
            HostError: QEMU names none.
            As `execute`.
        """
        text = str(self.execute("human-monitor-command", command_line="info usernet"))
        for match in _FORWARDED.finditer(text):
            if int(match[3]) == port:
                return match[1], int(match[2])
        raise HostError(
            f"{self.berth.name}: QEMU names no port that leads to the guest's port {port}",
            evidence=text,
            next_step="see what it can do: python -m host_setup check",
        )

    def execute_all(self, *commands: Command) -> None:
        """Give several commands at once; those after one that was refused are not given.

        Raises:
            As `execute`.
        """
        self._n_unasked = 0
        try:
            self._monitor.execute_all(commands, Deadline.after(_ANSWER_S))
        except SessionLost as exc:
            raise self._lost(exc) from exc

    def wait_for(
        self, names: Collection[str], deadline: Deadline, *, goal: str
    ) -> tuple[str, Mapping[str, object]]:
        """The next QMP event that has one of these names; those before it are dropped.

        Args:
            goal: Ends the sentence "waited 30 s for …".

        Raises:
            BootFailed: the deadline passed.
            GuestDied: QEMU or the guest ended.
            MachineKilled: the switch was pulled.
        """
        event = self.next_event(names, deadline)
        if event is None:
            raise BootFailed(
                f"{self.berth.name}: waited {deadline.budget_s:g} s for {goal}, in vain",
                evidence=self.evidence(),
                log_path=self.berth.console_log,
                next_step="if the host is merely slow, raise machines.qemu.boot_timeout_s",
            )
        return event

    def next_event(
        self, names: Collection[str], deadline: Deadline
    ) -> tuple[str, Mapping[str, object]] | None:
        """As `wait_for`, but None when the deadline passed."""
        with self._changed:
            while True:
                while self._events:
                    name, data = self._events.popleft()
                    if name in names:
                        return name, data
                self._switch.check()
                if self._death is not None:
                    raise self._death
                if deadline.passed:  # also for a guest that keeps saying something else
                    return None
                self._changed.wait(deadline.remaining_s)

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        """Have `on_death` called once when QEMU or the guest ends unasked; at once if that has happened."""
        with self._changed:
            self._watcher = on_death
            death = self._death
        if death is not None:
            on_death(death)

    def end(self) -> None:
        """End QEMU and release everything; again does nothing.

        QEMU is not asked to quit: it holds nothing that is worth saving, and SIGKILL leaves nothing behind that it would
        have cleared away. What it writes, it writes at once, and its sockets and memory have no names.

        Raises:
            HostError: it is still there after SIGKILL.
        """
        with self._changed:
            self._expected = True
        if not self._process.wait(Deadline.after(0)):
            self._process.signal(signal.SIGKILL)
        if not self._process.wait(Deadline.after(_SIGKILL_S)):
            raise HostError(
                f"{self.berth.name}: QEMU (process {self.pid}) does not end, not even by SIGKILL",
                next_step=f"look what it waits for: cat /proc/{self.pid}/stack",
            )
        self._owned.close()

    def _kill(self) -> None:
        with self._changed:
            self._expected = True
            self._changed.notify_all()
        self._process.signal(signal.SIGKILL)

    def _await_greeting(self, deadline: Deadline) -> str:
        try:
            return self._monitor.wait_ready(deadline)
        except SessionLost as exc:
            self._switch.check()
            self._process.wait(Deadline.after(_LOST_BEFORE_EXIT_S))
            raise self._refusal(deadline) from exc

    def _refusal(self, deadline: Deadline) -> BootFailed | HostError:
        """Why there was no greeting."""
        returncode = self._process.returncode
        if returncode is None:
            return BootFailed(
                f"{self.berth.name}: QEMU did not answer within {deadline.budget_s:g} s",
                evidence=self.evidence(),
                log_path=self.berth.stderr_log,
            )
        words = tail(self.berth.stderr_log, n_lines=12)
        reason = explain(words, returncode)
        if returncode < 0 and not reason.shortage:
            return BootFailed(
                f"{self.berth.name}: {describe_exit(returncode)} before it could run the guest",
                evidence=words,
                log_path=self.berth.stderr_log,
                fault=fault_of_exit(returncode),
            )
        return (HostShortage if reason.shortage else HostError)(
            f"{self.berth.name}: QEMU could not run the guest: {reason.cause}",
            where=describe_exit(returncode),
            evidence=words,
            next_step=reason.next_step,
        )

    def _lost(self, exc: SessionLost) -> GuestDied:
        self._switch.check()
        return self._death or GuestDied(
            f"{self.berth.name}: {exc.what}",
            where=exc.where,
            evidence=self.evidence(),
            log_path=self.berth.console_log,
            fault=Fault.HOST if self._process.stopped else Fault.GUEST,
        )

    def _on_event(self, name: str, data: Mapping[str, object]) -> None:
        self._log.debug("QMP event %s %s", name, dict(data))
        with self._changed:
            self._events.append((name, data))
            self._changed.notify_all()
        if name in self._fatal:
            self._die(describe_event(name, data), fault_of_event(name, data))
        self._n_unasked += 1
        if self._n_unasked > _EVENTS_UNASKED_MAX:
            self._die(
                f"the guest raised {_EVENTS_UNASKED_MAX} events in a row ({name}) that nobody had asked for",
                Fault.TASKSET,
            )
            self._process.signal(signal.SIGKILL)

    def _on_lost(self) -> None:
        """Runs on the monitor's thread as soon as QEMU ends, and after every event, which may say more of its end."""
        self._process.wait(Deadline.after(_LOST_BEFORE_EXIT_S))
        returncode = self._process.returncode
        if returncode is None:
            self._die("QEMU closed its monitor but did not end", Fault.GUEST)
        else:
            self._die(describe_exit(returncode), fault_of_exit(returncode))
        self._process.signal(signal.SIGKILL)

    def _look(self) -> None:
        """Runs on the monitor's thread once a second: a QEMU that somebody has stopped says nothing any more.

        Twice in a row, for who is only looking at it with a debugger lets it go on at once.
        """
        before, self._seen_stopped = self._seen_stopped, self._process.stopped
        if before and self._seen_stopped:
            self._die(f"somebody has stopped QEMU (process {self.pid})", Fault.HOST)

    def _die(self, reason: str, fault: Fault) -> None:
        """Note an end that nobody asked for; only the first reason counts."""
        with self._changed:
            if self._expected or self._death is not None:
                return
            death = GuestDied(
                f"{self.berth.name}: {reason}",
                evidence=self.evidence(),
                log_path=self.berth.console_log,
                fault=fault,
            )
            self._death = death
            watcher = self._watcher
            self._changed.notify_all()
        self._log.info("%s", death.what)
        if watcher is not None:
            watcher(death)


def _start(
    berth: Berth, build: Callable[[Wiring], list[str]], memories: Sequence[Memory], confinement: Confinement
) -> tuple[Process, socket.socket]:
    """A new QEMU, and the socket on which it speaks QMP."""
    with ExitStack() as half_built, ExitStack() as theirs:
        ours, channel = socket.socketpair()
        half_built.callback(ours.close)
        theirs.callback(channel.close)
        console_fd = open_log(berth.console_log)
        theirs.callback(os.close, console_fd)
        tap_fd = None
        if berth.attachment is not None:
            tap_fd = open_tap(berth.attachment.tap)
            theirs.callback(os.close, tap_fd)
        wiring = Wiring(
            name=berth.name,
            qmp_fd=channel.fileno(),
            console_log=berth.console_log,
            console_fd=console_fd,
            ssh_port=berth.ssh_port,
            genode_port=berth.genode_port,
            mailbox=None if berth.mailbox is None else berth.mailbox.path,
            tap_fd=tap_fd,
            mac="" if berth.attachment is None else berth.attachment.mac,
        )
        shared = [*memories, *([] if berth.mailbox is None else [berth.mailbox])]
        launch = Launch(
            command=tuple(build(wiring)),
            pass_fds=(
                wiring.qmp_fd,
                console_fd,
                *(() if tap_fd is None else (tap_fd,)),
                *(memory.fd for memory in shared),
            ),
            stderr_path=berth.stderr_log,
            cpu=berth.cpu,
            confinement=confinement,
        )
        process = LAUNCHER.start_qemu(launch, anew=berth.loads_anew)
        half_built.pop_all()
    return process, ours
