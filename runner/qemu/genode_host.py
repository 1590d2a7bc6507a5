"""A QEMU guest that boots the user's Genode image: cold each time."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, Fault, GuestDied, HostError, ProtocolError, UsageError
from runner.faults.recovery import Recovery
from runner.files.private import make_private
from runner.genode import PORT
from runner.hosts.base import AbstractHost, BootKind, HostFacts, HostPhase, SshCredentials
from runner.network import attachment, machine_number
from runner.qemu.berth import Berth
from runner.qemu.confinement import for_qemu
from runner.qemu.console_link import write_link
from runner.qemu.emulator import Emulator
from runner.qemu.genode_command import build_genode_command, check_genode_spec
from runner.qemu.killswitch import KillSwitch
from runner.qemu.shared_memory import COPIES
from runner.specs import Accelerator, Clock, GenodeSpec


def find_genode_qemu(spec: GenodeSpec) -> Path:
    """The QEMU that a spec asks for.

    Raises:
        HostError: it is not there.
    """
    found = shutil.which(spec.qemu_binary)
    if found is None:
        raise HostError(
            f"QEMU is missing: there is no program {spec.qemu_binary!r}",
            where="machines.genode.qemu_binary",
            next_step="python -m host_setup packages (it installs qemu-system-arm)",
        )
    return Path(found).absolute()


class GenodeHost(AbstractHost):
    """One guest on this computer, ready to run when QEMU is: when it has its address, the session finds out.

    Args:
        spec: What to emulate.
        name: Its number at the end says which place it has on a bridge.
    """

    def __init__(self, spec: GenodeSpec, name: str, folder: Path) -> None:
        check_genode_spec(spec)
        self._spec = spec
        self._name = name
        self._folder = folder.absolute()
        self._attachment = attachment(spec.network, machine_number(name))
        self._switch = KillSwitch(name)
        self._owned = ExitStack()
        self._phase = HostPhase.NEW
        self._emulator: Emulator | None = None
        self._facts: HostFacts | None = None
        self._image_digest = ""
        self._address: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def phase(self) -> HostPhase:
        emulator = self._emulator
        alive = self._phase in {HostPhase.PAUSED, HostPhase.RUNNING}
        if alive and (self._switch.pulled or (emulator is not None and emulator.death is not None)):
            return HostPhase.DEAD
        return self._phase

    @property
    def facts(self) -> HostFacts:
        if self._facts is None:
            raise self._wrong("facts", "call start() first")
        return self._facts

    @property
    def address(self) -> tuple[str, int]:
        if self._address is None:
            raise self._wrong("address", "call start() first")
        return self._address

    @property
    def ssh_address(self) -> tuple[str, int]:
        raise self._wrong("ssh_address", "use a GenodeSession: Genode has no SSH server")

    @property
    def credentials(self) -> SshCredentials:
        raise self._wrong("credentials", "use a GenodeSession: Genode has no SSH server")

    @property
    def pid(self) -> int | None:
        return None if self._emulator is None else self._emulator.pid

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        if self._phase is not HostPhase.NEW:
            raise self._wrong("start", "make a new host for each start")
        self._phase = HostPhase.STARTING
        began_s = time.monotonic()
        try:
            self._switch.check()
            make_private(self._folder)
            emulator = self._bring_up(deadline, recovery)
            self._switch.check()
        except (GuestDied, ProtocolError) as exc:
            self.stop()
            fault = Fault.HOST if exc.fault is Fault.HOST else Fault.GUEST
            raise BootFailed(exc.what, evidence=exc.evidence, log_path=exc.log_path, fault=fault) from exc
        except OSError as exc:
            self.stop()
            raise HostError.because(
                exc,
                f"{self._name}: its folder or its image cannot be used",
                where=str(self._folder),
                next_step="make the folder writable and see that its disk has room",
            ) from exc
        except BaseException:
            self.stop()
            raise
        icount = self._spec.clock is Clock.ICOUNT
        self._facts = HostFacts(
            name=self._name,
            arch="armhf",
            accel=Accelerator.TCG,
            cpu_mips=self._spec.cpu_mips if icount else None,
            icount_shift=self._spec.icount_shift if icount else None,
            vcpus=self._spec.vcpus,
            memory_mib=self._spec.memory_mib,
            qemu_version=emulator.version,
            image_digest=self._image_digest,
            kernel_release="genode",
            boot=BootKind.COLD,
            start_s=time.monotonic() - began_s,
        )
        self._phase = HostPhase.PAUSED

    def pause(self) -> None:
        self._run("pause", "stop", HostPhase.PAUSED)

    def resume(self) -> None:
        self._run("resume", "cont", HostPhase.RUNNING)

    def evidence(self) -> str:
        return "" if self._emulator is None else self._emulator.evidence()

    def watch(self, on_death: Callable[[GuestDied], None]) -> None:
        if self._emulator is None:
            raise self._wrong("watch", "call start() first")
        self._emulator.watch(on_death)

    def stop(self) -> None:
        self._owned.close()
        self._phase = HostPhase.STOPPED

    def kill(self) -> None:
        self._switch.pull()

    def _bring_up(self, deadline: Deadline, recovery: Recovery) -> Emulator:
        image = self._owned.enter_context(COPIES.copy_of(self._spec.image))
        with image.path.open("rb") as content:  # what is booted, whatever becomes of the file
            self._image_digest = hashlib.file_digest(content, "sha256").hexdigest()
        berth = Berth(
            name=self._name,
            folder=self._folder,
            ssh_port=0,
            attachment=self._attachment,
            loads_anew=recovery is Recovery.PROCESS,
        )
        binary = find_genode_qemu(self._spec)
        emulator = self._owned.enter_context(
            Emulator(
                berth,
                partial(build_genode_command, binary, self._spec, image.path),
                deadline,
                self._switch,
                memories=[image],
                confinement=for_qemu(memory_mib=self._spec.memory_mib),
            )
        )
        self._emulator = emulator
        names = {row["label"]: str(row["filename"]) for row in emulator.execute("query-chardev")}
        self._owned.callback(write_link(self._folder, names["console"].removeprefix("pty:"), emulator.pid))
        if self._attachment is not None:
            self._address = str(self._attachment.address), PORT
        else:
            self._address = emulator.forwarded_port(PORT)
        return emulator

    def _run(self, method: str, command: str, goal: HostPhase) -> None:
        self._switch.check()
        emulator = self._emulator
        if emulator is None or self._phase not in {HostPhase.PAUSED, HostPhase.RUNNING}:
            raise self._wrong(method, "a host takes this between start() and stop()")
        if emulator.death is not None:
            raise emulator.death
        if self._phase is not goal:
            emulator.execute(command)
            self._phase = goal

    def _wrong(self, method: str, next_step: str) -> UsageError:
        return UsageError(
            f"host {self._name}: {method} makes no sense while it is {self.phase.value}", next_step=next_step
        )
