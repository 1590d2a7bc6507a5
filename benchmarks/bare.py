"""QEMU with nothing round it: the same command, snapshot and mailbox as the runner's, driven by the barest loop there is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from runner import mailbox
from runner.errors import HostError, InfrastructureError
from runner.events import JobEvent, Outcome, RunResult
from runner.model import TaskSet
from runner.qemu.architectures import architecture
from runner.qemu.command import Hardware, KernelBoot, SnapshotRestore, Wiring, build_command, snapshot_key
from runner.qemu.image import GuestImage, cache_root
from runner.qemu.probe import find_binary
from runner.qemu.shared_memory import MailboxMemory
from runner.qemu.snapshot import Snapshot
from runner.specs import Accelerator, QemuSpec

_ANSWER_S = 60.0
# QEMU ends when this process does, whatever ends it.
_TIED_TO_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True, kw_only=True)
class BareRun:
    """One task set on one QEMU that was started for it, and where the time went.

    Attributes:
        to_qmp_s: From nothing until QEMU speaks.
        load_s: Until the snapshot is loaded.
        request_s: Until the set is in the mailbox.
        run_s: Until the guest has rung.
        reply_s: Until its job table is read and checked.
        close_s: Until QEMU is gone.
        cpu_s: CPU time of QEMU, over its whole life.
        result: Like the runner's.
    """

    to_qmp_s: float
    load_s: float
    request_s: float
    run_s: float
    reply_s: float
    close_s: float
    cpu_s: float
    result: RunResult


class BareMachine:
    """Runs task sets, each on a QEMU of its own, from the snapshot that the runner has made.

    Args:
        spec: What the runner has made a snapshot of.
        folder: For console and messages.

    Raises:
        HostError: the runner has not made that snapshot yet.
    """

    def __init__(self, spec: QemuSpec, folder: Path) -> None:
        arch = architecture(spec.arch)
        image = GuestImage.current(spec.arch)
        self._hardware = Hardware(binary=find_binary(spec), spec=spec, arch=arch, accel=Accelerator.TCG)
        key = snapshot_key(self._hardware, KernelBoot(image.kernel, image.initrd), image.identity)
        self._snapshot = Snapshot(cache_root() / "snapshots" / key)
        if not self._snapshot.sealed():
            raise HostError("there is no booted snapshot", where=str(self._snapshot.folder))
        self._folder = folder

    def run(self, taskset: TaskSet) -> BareRun:
        """One set, from the start of QEMU to its end.

        Raises:
            InfrastructureError: QEMU or the guest did something else than they should.
        """
        stamps_s = [time.monotonic()]

        def stamp() -> None:
            stamps_s.append(time.monotonic())

        with (
            MailboxMemory("bare", self._hardware.spec.mailbox_mib << 20) as memory,
            self._qemu(memory) as qemu,
        ):
            stamp()
            memory.refill(self._snapshot.mailbox.read_bytes())
            qemu.load(self._snapshot.state)
            stamp()
            mailbox.write_request(memory.region, taskset, sequence=1, files={})
            stamp()
            qemu.command("cont")
            qemu.wait_for("GUEST_PANICKED")
            stamp()
            events = list(mailbox.read_reply(memory.region, taskset, sequence=1))
            stamp()
            cpu_s = qemu.quit()
            stamp()
        spans_s = [end - begin for begin, end in pairwise(stamps_s)]
        names = ("to_qmp_s", "load_s", "request_s", "run_s", "reply_s", "close_s")
        jobs = tuple(event.job for event in events if isinstance(event, JobEvent))
        result = RunResult(outcome=Outcome.COMPLETED, jobs=jobs)
        return BareRun(**dict(zip(names, spans_s, strict=True)), cpu_s=cpu_s, result=result)

    @contextmanager
    def _qemu(self, memory: MailboxMemory) -> Iterator[_Qemu]:
        with ExitStack() as opened:
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                wiring = Wiring(
                    name="bare",
                    qmp_fd=theirs.fileno(),
                    console_log=self._folder / "bare-console.log",
                    mailbox=memory.path,
                )
                command = build_command(self._hardware, SnapshotRestore(self._snapshot.ram), wiring)
                process = subprocess.Popen(
                    [*_TIED_TO_PARENT, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), memory.fd],
                    start_new_session=True,
                )
            opened.callback(process.wait)
            opened.callback(process.kill)
            yield _Qemu(process, ours)


class _Qemu:
    """A process and its monitor, one line at a time."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        channel.settimeout(_ANSWER_S)
        self._lines = channel.makefile("rb")
        self._events: deque[Mapping[str, Any]] = deque()
        self._next()  # the greeting
        self.command("qmp_capabilities")

    def load(self, state: Path) -> None:
        """Load the devices' state."""
        capabilities = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
        self.command("migrate-set-capabilities", {"capabilities": capabilities})
        self.command("migrate-set-parameters", {"announce-rounds": 0})
        fd = os.open(state, os.O_RDONLY)
        try:
            self.command("getfd", {"fdname": "state"}, fd)
        finally:
            os.close(fd)
        self.command("migrate-incoming", {"uri": "fd:state"})
        while (status := self.wait_for("MIGRATION")["status"]) != "completed":
            if status in ("failed", "cancelled"):
                raise InfrastructureError("QEMU does not load the snapshot")

    def command(
        self, name: str, arguments: Mapping[str, object] | None = None, fd: int | None = None
    ) -> None:
        """Give a command and wait until it is done; events that come meanwhile are kept for `wait_for`."""
        sent = json.dumps({"execute": name, "arguments": dict(arguments or {})}).encode()
        socket.send_fds(self._channel, [sent], [] if fd is None else [fd])
        while True:
            message = self._next()
            if "error" in message:
                raise InfrastructureError(f"QEMU refused {name}: {message['error']}")
            if "return" in message:
                return
            self._events.append(message)

    def wait_for(self, event: str) -> Mapping[str, Any]:
        """The data of the next event of that name."""
        while True:
            message = self._events.popleft() if self._events else self._next()
            if message.get("event") == event:
                return dict(message.get("data", {}))

    def quit(self) -> float:
        """End it; the CPU seconds of its life."""
        self.command("quit")
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def _next(self) -> Mapping[str, Any]:
        line = self._lines.readline()
        if not line:
            raise InfrastructureError("QEMU hung up")
        message: Mapping[str, Any] = json.loads(line)
        return message
