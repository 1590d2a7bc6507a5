"""A QEMU guest as a host: ready in a blink from its booted snapshot, or cold."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from runner.deadline import Deadline
from runner.errors import BootFailed, Fault, GuestDied, HostError, SessionLost, UsageError
from runner.faults.recovery import Recovery
from runner.files.private import make_private
from runner.hosts.base import AbstractHost, BootKind, HostFacts, HostPhase, SshCredentials
from runner.network import attachment, machine_number
from runner.qemu.architectures import architecture
from runner.qemu.berth import Berth
from runner.qemu.boot import BELLS, SnapshotRefused, boot, restore, save
from runner.qemu.command import GENODE_PORT, Hardware, KernelBoot, snapshot_key
from runner.qemu.console_link import write_link
from runner.qemu.contradictions import check_spec
from runner.qemu.cpus import CPUS
from runner.qemu.emulator import Emulator
from runner.qemu.image import GuestImage, cache_root
from runner.qemu.killswitch import KillSwitch
from runner.qemu.probe import choose_acceleration, find_binary
from runner.qemu.shared_memory import MailboxMemory, Memory
from runner.qemu.snapshot import Snapshot, SnapshotStore
from runner.specs import Accelerator, Clock, QemuSpec, Reach


class QemuHost(AbstractHost):
    """One guest on this computer, in a QEMU process that nothing outlives.

    Threads, besides those that `AbstractHost` speaks of: the guest has two of its own (process, monitor).
    """

    def __init__(self, spec: QemuSpec, name: str, folder: Path) -> None:
        """
        Args:
            spec: What to emulate.
            name: `qemu1`; the number at its end picks the port of a fixed `spec.ssh_port`, and the place on a bridge.
            folder: The machine's own; receives the console's log and QEMU's stderr. Made if need be.

        Raises:
            UsageError: the specification contradicts itself.
            HostError: there is no usable guest image.
        """
        check_spec(spec)
        self._spec = spec
        self._name = name
        self._folder = folder.absolute()
        self._arch = architecture(spec.arch)
        self._image = (
            GuestImage.load(spec.image, arch=spec.arch) if spec.image else GuestImage.current(spec.arch)
        )
        self._number = machine_number(name)
        self._attachment = attachment(spec.network, self._number)
        self._switch = KillSwitch(name)
        self._owned = ExitStack()
        self._phase = HostPhase.NEW
        self._recovery = Recovery.SNAPSHOT
        self._emulator: Emulator | None = None
        self._facts: HostFacts | None = None
        self._ssh_address: tuple[str, int] | None = None
        self._address: tuple[str, int] | None = None
        self._memory: MailboxMemory | None = None
        self._console_pty = ""
        self._console_shown = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def image(self) -> GuestImage:
        """What the guest boots."""
        return self._image

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
    def ssh_address(self) -> tuple[str, int]:
        if self._emulator is None:
            raise self._wrong("ssh_address", "call start() first")
        if self._attachment is not None:
            return str(self._attachment.address), 22
        if self._ssh_port() is None:
            raise self._wrong(
                "ssh_address", "machines.qemu.ssh_port=2222 forwards a port to a guest with a mailbox"
            )
        if self._ssh_address is None:
            self._ssh_address = self._emulator.forwarded_port(22)
        return self._ssh_address

    @property
    def address(self) -> tuple[str, int]:
        if self._emulator is None:
            raise self._wrong("address", "call start() first")
        if not self._spec.serves_genode:
            raise UsageError(
                f"host {self._name} has no task loader on TCP",
                where="machines.qemu.genode_port",
                next_step="set it, or choose machines=genode_guest",
            )
        if self._attachment is not None:
            return str(self._attachment.address), GENODE_PORT
        if self._address is None:
            self._address = self._emulator.forwarded_port(GENODE_PORT)
        return self._address

    @property
    def mailbox(self) -> mmap.mmap:
        if self._memory is None:
            raise self._wrong("mailbox", "call start() first, of a host with Reach.MAILBOX")
        return self._memory.region

    @property
    def pid(self) -> int | None:
        return None if self._emulator is None else self._emulator.pid

    @property
    def credentials(self) -> SshCredentials:
        return SshCredentials(user="root", client_key=self._image.client_key, host_key=self._image.host_key)

    def start(self, deadline: Deadline, recovery: Recovery = Recovery.SNAPSHOT) -> None:
        if self._phase is not HostPhase.NEW:
            raise self._wrong("start", "make a new host for each start")
        self._recovery = recovery
        self._phase = HostPhase.STARTING
        began_s = time.monotonic()
        try:
            self._switch.check()
            make_private(self._folder)
            emulator, kind, accel = self._bring_up(deadline)
            self._emulator = self._owned.enter_context(emulator)
            self._console_pty = _console_pty(emulator)
            remove_link = write_link(self._folder, self._console_pty, emulator.pid, take_over=False)
            self._owned.callback(remove_link)
            self._switch.check()
        except GuestDied as exc:
            self.stop()
            fault = Fault.HOST if exc.fault is Fault.HOST else Fault.GUEST
            raise BootFailed(exc.what, evidence=exc.evidence, log_path=exc.log_path, fault=fault) from exc
        except OSError as exc:
            self.stop()
            raise HostError.because(
                exc,
                f"{self._name}: its folder cannot be used",
                where=str(self._folder),
                next_step="make the folder writable and see that its disk has room",
            ) from exc
        except BaseException:
            self.stop()
            raise
        self._facts = HostFacts(
            name=self._name,
            arch=self._spec.arch,
            accel=accel,
            cpu_mips=self._spec.cpu_mips if self._spec.clock is Clock.ICOUNT else None,
            icount_shift=self._spec.icount_shift if self._spec.clock is Clock.ICOUNT else None,
            vcpus=self._spec.vcpus,
            memory_mib=self._spec.memory_mib,
            qemu_version=emulator.version,
            image_digest=self._image.digest,
            kernel_release=self._image.kernel_release,
            boot=kind,
            start_s=time.monotonic() - began_s,
        )
        self._phase = HostPhase.PAUSED

    def pause(self) -> None:
        self._run("pause", "stop", HostPhase.PAUSED)

    def resume(self) -> None:
        self._run("resume", "cont", HostPhase.RUNNING)
        self._show_console()

    def _show_console(self) -> None:
        """Have the machine's console be this guest's, now that it runs; of the machine's next one, which waits, it is not yet."""
        if self._emulator is None or self._console_shown:
            return
        self._console_shown = True
        with suppress(OSError):  # a full disk: no measurement is to fail for that
            write_link(self._folder, self._console_pty, self._emulator.pid)

    def run_until_bell(self, deadline: Deadline) -> None:
        bell = BELLS[Reach.MAILBOX]
        self.resume()
        assert self._emulator is not None  # noqa: S101 - resume() has asked
        if self._emulator.next_event({bell}, deadline) is None:
            raise SessionLost(
                f"{self._name}: the guest did not answer within {deadline.budget_s:g} s of real time",
                evidence=self.evidence(),
                log_path=self._emulator.berth.console_log,
                next_step="on a very slow computer raise machines.policy.taskset_timeout_s or …_factor",
                fault=Fault.TASKSET,
            )
        self._phase = HostPhase.PAUSED

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

    def _bring_up(self, deadline: Deadline) -> tuple[Emulator, BootKind, Accelerator]:
        binary = find_binary(self._spec)
        accel = choose_acceleration(self._spec, self._image, deadline, self._switch).accel
        hardware = Hardware(binary=binary, spec=self._spec, arch=self._arch, accel=accel)
        # A KVM guest carries features of the host's CPU along, and boots quickly anyway.
        # And in a snapshot, machines on a bridge would all have one card and one address.
        if self._spec.snapshot and accel is Accelerator.TCG and self._attachment is None:
            if self._recovery not in (Recovery.COLD_BOOT, Recovery.PROCESS):
                return self._start_from_snapshot(hardware, deadline), BootKind.SNAPSHOT, accel
            key = snapshot_key(hardware, self._kernel(), self._image.identity)
            SnapshotStore(cache_root() / "snapshots").discard(key, deadline=deadline, switch=self._switch)
        berth, bound = self._berth(), deadline.at_most(self._spec.boot_timeout_s)
        emulator = boot(berth, hardware, self._kernel(), bound, self._switch)
        return emulator, BootKind.COLD, accel

    def _start_from_snapshot(self, hardware: Hardware, deadline: Deadline) -> Emulator:
        """Restore the snapshot; one that QEMU refuses is made anew, once."""
        store = SnapshotStore(cache_root() / "snapshots")
        key = snapshot_key(hardware, self._kernel(), self._image.identity)
        berth = self._berth()
        make = partial(self._make_snapshot, hardware, deadline)
        refusal: SnapshotRefused | None = None
        for _ in range(2):
            with store.lease(
                key,
                make,
                memory_bytes=self._spec.memory_mib << 20,
                deadline=deadline,
                switch=self._switch,
            ) as snapshot:
                try:
                    bound = deadline.at_most(self._spec.start_timeout_s)
                    return restore(berth, hardware, snapshot, bound, self._switch)
                except SnapshotRefused as exc:
                    refusal = exc
            berth.log.warning("QEMU refuses the booted snapshot %s: making it anew (%s)", key, refusal)
            store.discard(key, deadline=deadline, switch=self._switch)
        raise HostError(
            f"{self._name}: QEMU refuses the booted snapshot that it has just made",
            evidence=str(refusal),
            log_path=berth.stderr_log,
            next_step="machines.qemu.snapshot=false boots cold each time",
        )

    def _make_snapshot(self, hardware: Hardware, deadline: Deadline, snapshot: Snapshot) -> None:
        bound = deadline.at_most(self._spec.boot_timeout_s)
        with ExitStack() as booted:
            mailbox = booted.enter_context(self._new_memory()) if self._has_mailbox else None
            ram = booted.enter_context(Memory(f"{self._name}-ram", self._spec.memory_mib << 20))
            berth = Berth(name=self._name, folder=self._folder, mailbox=mailbox, log_prefix="snapshot-")
            emulator = boot(berth, hardware, self._kernel(), bound, self._switch, ram=ram)
            save(booted.enter_context(emulator), ram, snapshot, bound)

    @property
    def _has_mailbox(self) -> bool:
        return self._spec.reach is Reach.MAILBOX

    def _new_memory(self) -> MailboxMemory:
        return MailboxMemory(self._name, self._spec.mailbox_mib << 20)

    def _berth(self) -> Berth:
        if self._has_mailbox:
            self._memory = self._owned.enter_context(self._new_memory())
        # Its threads take turns: on one CPU they do not wait for one another to be woken on another.
        cpu = self._owned.enter_context(CPUS.share()) if self._spec.clock is Clock.ICOUNT else None
        return Berth(
            name=self._name,
            folder=self._folder,
            ssh_port=self._ssh_port(),
            genode_port=self._genode_port(),
            mailbox=self._memory,
            cpu=cpu,
            attachment=self._attachment,
            loads_anew=self._recovery is Recovery.PROCESS,
        )

    def _kernel(self) -> KernelBoot:
        return KernelBoot(self._image.kernel, self._image.initrd)

    def _ssh_port(self) -> int | None:
        """The port to ask QEMU for; 0 for a free one. None: a guest that has a mailbox needs none."""
        if self._spec.ssh_port is None:
            return None if self._has_mailbox else 0
        return self._spec.ssh_port + self._number - 1

    def _genode_port(self) -> int | None:
        """As `_ssh_port`. None: there is nothing to forward."""
        if not self._spec.serves_genode or self._attachment is not None:
            return None
        return 0 if self._spec.genode_port is None else self._spec.genode_port + self._number - 1

    def _wrong(self, method: str, next_step: str) -> UsageError:
        return UsageError(
            f"host {self._name}: {method} makes no sense while it is {self.phase.value}", next_step=next_step
        )


def _console_pty(emulator: Emulator) -> str:
    names = {row["label"]: str(row["filename"]) for row in emulator.execute("query-chardev")}
    return names["console"].removeprefix("pty:")
