"""A board on the network as a host: nothing of it is on this computer but its name and, maybe, a switch for its power."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, GuestDied, HostError, UsageError
from runner.faults.recovery import SAME_GUEST, Recovery
from runner.genode import PORT, Tag, encode_tag
from runner.hosts.base import AbstractHost, BootKind, HostFacts, HostPhase, SshCredentials
from runner.specs import Accelerator, BoardSpec

_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
# A board that listens takes a connection at once; one that hangs may never.
_REBOOT_S = 5.0


def parse_address(text: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        UsageError: it is no address.
    """
    match = _ADDRESS.fullmatch(text)
    port = int(match[2] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise UsageError(
            f"{text!r} is no address of a board",
            where="machines.board.addresses",
            next_step="write board1, 10.200.45.7, [fe80::1] or any of them with a port: board1:3001",
        )
    return match[1].strip("[]"), port


def check_boards(spec: BoardSpec, *, limit: int) -> None:
    """Refuse what contradicts itself.

    Raises:
        UsageError: too few boards, two machines on one, no address, a time that is none.
    """
    where = "machines.board.addresses"
    addresses = [parse_address(text) for text in spec.addresses]
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"{where} names a board twice", where=where, next_step="name each board once")
    if len(addresses) < limit:
        raise UsageError(
            f"{where} names {len(addresses)} boards, and there may be {limit} machines",
            where=where,
            next_step=f"name more, or set machines.limit={len(addresses)} (and machines.count to no more)",
        )
    if spec.power and "{address}" not in " ".join(spec.power) and len(addresses) > 1:
        raise UsageError(
            "machines.board.power does not say which board: every machine would switch the same one",
            where="machines.board.power",
            next_step="write {address} where the command expects the board's name",
        )


class BoardHost(AbstractHost):
    """One board.

    Args:
        spec: The boards; the number at the end of `name` picks one.
        fresh: Whether it need not be restarted: nothing was run on it yet.
    """

    def __init__(self, spec: BoardSpec, name: str, folder: Path, *, fresh: bool = True) -> None:
        number = re.search(r"[1-9]\d*$", name)
        idx = int(number[0]) - 1 if number else 0
        if idx >= len(spec.addresses):
            raise UsageError(
                f"there is no board for machine {name}: machines.board.addresses names {len(spec.addresses)}",
                where="machines.board.addresses",
                next_step="name more boards",
            )
        self._spec = spec
        self._name = name
        self._folder = folder
        self._fresh = fresh
        self._address = parse_address(spec.addresses[idx])
        self._phase = HostPhase.NEW
        self._killed = False
        self._facts: HostFacts | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def phase(self) -> HostPhase:
        return HostPhase.DEAD if self._killed and self._phase is not HostPhase.STOPPED else self._phase

    @property
    def facts(self) -> HostFacts:
        if self._facts is None:
            raise self._wrong("facts")
        return self._facts

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    @property
    def ssh_address(self) -> tuple[str, int]:
        raise self._wrong("ssh_address")

    @property
    def credentials(self) -> SshCredentials:
        raise self._wrong("credentials")

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        """Have it begin anew, unless it is fresh: by its power switch, else by asking it to reboot."""
        if self._phase is not HostPhase.NEW:
            raise self._wrong("start")
        self._phase = HostPhase.STARTING
        began_s = time.monotonic()
        if recovery not in SAME_GUEST and (not self._fresh or self._spec.power):
            if self._spec.power:
                self._switch(deadline.at_most(self._spec.power_timeout_s))
            else:
                self._reboot(deadline.at_most(_REBOOT_S))
        self._facts = HostFacts(
            name=self._name,
            arch="board",
            accel=Accelerator.NONE,
            cpu_mips=None,
            icount_shift=None,
            vcpus=self._spec.vcpus or 0,
            memory_mib=0,
            qemu_version="",
            image_digest="",
            kernel_release="genode",
            boot=BootKind.COLD,
            start_s=time.monotonic() - began_s,
        )
        self._phase = HostPhase.PAUSED

    def pause(self) -> None:
        """Nothing: a board cannot stand still, and does no harm while it idles."""
        self._phase = HostPhase.PAUSED

    def resume(self) -> None:
        self._phase = HostPhase.RUNNING

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        """Nobody tells of a board's death: the session finds that."""

    def stop(self) -> None:
        self._phase = HostPhase.STOPPED

    def kill(self) -> None:
        self._killed = True

    def _switch(self, deadline: Deadline) -> None:
        text = self._address[0]
        command = [word.replace("{address}", text) for word in self._spec.power]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=deadline.remaining_s or 0.001,
                check=True,
            )
        except subprocess.TimeoutExpired as exc:
            raise BootFailed(
                f"{self._name}: the command for the board's power was not done within {deadline.budget_s:g} s",
                where="machines.board.power",
                next_step="raise machines.board.power_timeout_s",
            ) from exc
        except subprocess.CalledProcessError as exc:
            raise BootFailed(
                f"{self._name}: the command for the board's power failed with status {exc.returncode}",
                where="machines.board.power",
                evidence=exc.stderr[-2000:].decode(errors="replace"),
            ) from exc
        except OSError as exc:
            raise HostError.because(
                exc,
                f"{self._name}: the command for the board's power cannot be started",
                where="machines.board.power",
                next_step="name a program on the PATH, then its arguments, each a word of its own",
            ) from exc

    def _reboot(self, deadline: Deadline) -> None:
        """Ask it; whether it does so shows when the session connects."""
        with (
            suppress(OSError),
            socket.create_connection(self._address, deadline.remaining_s or 0.001) as line,
        ):
            line.sendall(encode_tag(Tag.REBOOT))

    def _wrong(self, method: str) -> UsageError:
        return UsageError(
            f"host {self._name}: {method} makes no sense for a board that is {self.phase.value}",
            next_step="use a GenodeSession, and one host per start",
        )
