"""Faults on real guests: each is noticed in time, told for what it is, and recovered from (`docs/faults.md` holds the deadlines)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from runner.deadline import Deadline
from runner.distributor import Distributor
from runner.errors import Fault
from runner.events import Event, Outcome, Run
from runner.faults.incidents import Incident
from runner.faults.recovery import Recovery
from runner.hosts.base import AbstractHost
from runner.machines.kinds import qemu
from runner.machines.station import MachineKind
from runner.model import Task, TaskSet
from runner.qemu.shared_memory import CopyShelf
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.sessions.ssh import TASK_LOADER, SshSession
from runner.specs import MachinePolicy, Reach, Reset
from runner.units import NS_PER_MS
from tests.fleet_samples import Tally
from tests.qemu_guests import PATIENCE_S, compiled, eventually, guest_spec, own_children
from tests.session_contract import endless, execution

pytestmark = pytest.mark.guest

#: A stopped QEMU is noticed within this, whatever else the computer does; docs/faults.md says 3 s.
STOPPED_S = 3.0
#: More than scheduling on a busy computer may add.
BUSY_S = 10.0
TRIES = MachinePolicy(max_tries=2, max_guest_tries=3, request_timeout_s=20.0)


class Observer(Tally):
    """Keeps what is told of attempts, and tells it to whoever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.incidents: list[Incident] = []
        self.tables: dict[str, str | None] = {}

    def __taskset_start__(self, run, *_) -> None:
        super().__taskset_start__(run)
        self.runs.append(run)

    def __taskset_finish__(self, run, result) -> None:
        super().__taskset_finish__(run, result)
        self.tables[run.taskset.name] = result.table_sha256

    def __incident__(self, incident) -> None:
        self.incidents.append(incident)

    @property
    def outcomes(self) -> list[Outcome]:
        return [result.outcome for result in self.of("stop")]

    @property
    def faults(self) -> list[Fault]:
        return [incident.fault for incident in self.incidents]

    @property
    def steps(self) -> list[Recovery | None]:
        return [incident.recovery for incident in self.incidents]


class Several:
    """These task sets."""

    def __init__(self, tasksets: tuple[TaskSet, ...]) -> None:
        self._tasksets = tasksets
        self.n_variants = len(tasksets)

    def variants(self) -> Iterator[TaskSet]:
        yield from self._tasksets


@dataclass
class Fleet:
    """One machine, and who listens to it."""

    distributor: Distributor
    observer: Observer

    def submit(self, *tasksets: TaskSet) -> None:
        """As one job: what its sets go through tells who is to blame."""
        self.distributor.add_job(Several(tasksets), self.observer)

    def finish(self) -> None:
        assert self.distributor.wait(PATIENCE_S * 3), self.distributor.get_distributor_state()

    def await_attempt(self, number: int) -> None:
        assert eventually(lambda: len(self.observer.runs) >= number, within_s=PATIENCE_S)


@contextmanager
def fleet(folder: Path, kind: MachineKind) -> Iterator[Fleet]:
    with Distributor(1, kind=kind, folder=folder / "run") as distributor:
        yield Fleet(distributor, Observer())


def small(name: str = "small", cost_ms: int = 2) -> TaskSet:
    return TaskSet((Task(period_ns=10 * NS_PER_MS, wcet_ns=cost_ms * NS_PER_MS, n_jobs=5),), name=name)


def of_script(folder: Path, name: str, script: str) -> TaskSet:
    """A set that runs a shell script in the guest."""
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    return TaskSet((execution(path),), name=name)


class Guests:
    """Machines with real guests, and who is at work."""

    def __init__(self, policy: MachinePolicy = TRIES) -> None:
        self.hosts: list[AbstractHost] = []
        self._policy = policy

    def kind(self, name: str, command: str = TASK_LOADER, **spec: Any) -> MachineKind:
        """`mailbox` and `ssh` as they come by default; `kept`: a guest with a mailbox for all sets."""
        reach = Reach.SSH if name == "ssh" else Reach.MAILBOX
        reset = Reset.TASKSET if name == "mailbox" else Reset.MACHINE
        guests = self

        class Watched(MailboxSession):
            def start(self, taskset: TaskSet, deadline: Deadline) -> None:
                guests.hosts.append(self._host)
                super().start(taskset, deadline)

        class WatchedSsh(SshSession):
            def start(self, taskset: TaskSet, deadline: Deadline) -> None:
                guests.hosts.append(self._host)
                super().start(taskset, deadline)

        def open_session(host: AbstractHost | None) -> AbstractSession:
            assert host is not None
            return WatchedSsh(host, command=command) if reach is Reach.SSH else Watched(host)

        return qemu(
            guest_spec(reach=reach, **spec),
            open_session,
            policy=self._policy,
            reset=reset,
        )

    @property
    def pid(self) -> int:
        """The process of the guest that was given a set last."""
        pid = self.hosts[-1].pid
        assert pid is not None
        return pid


@pytest.fixture
def guests() -> Guests:
    return Guests()


# What is done to QEMU from outside


@pytest.mark.parametrize("kind", ["mailbox", "kept", "ssh"])
@pytest.mark.parametrize(
    ("number", "fault", "what"),
    [
        (signal.SIGKILL, Fault.HOST, "SIGKILL"),
        (signal.SIGTERM, Fault.HOST, "signal from outside"),
        (signal.SIGSEGV, Fault.GUEST, "SIGSEGV"),
        (signal.SIGSTOP, Fault.HOST, "has stopped QEMU"),
    ],
)
def test_a_signal_to_qemu_is_noticed_and_blamed_on_the_right_one(
    tmp_path: Path, kind: str, number: signal.Signals, fault: Fault, what: str
) -> None:
    guests = Guests()
    with fleet(tmp_path, guests.kind(kind)) as one:
        one.submit(endless())
        one.await_attempt(1)
        assert eventually(lambda: bool(guests.hosts), within_s=PATIENCE_S)
        time.sleep(0.3)  # well into the set
        pid, began_s = guests.pid, time.monotonic()
        os.kill(pid, number)
        assert eventually(lambda: bool(one.observer.incidents), within_s=PATIENCE_S)
        took_s = time.monotonic() - began_s
        one.await_attempt(2)
        one.distributor.kill_all_machines()
        one.finish()
    print(f"{kind}, {number.name}: noticed after {took_s:.2f} s")
    assert took_s < STOPPED_S + BUSY_S
    (incident,) = one.observer.incidents
    assert (incident.fault, incident.recovery) == (fault, Recovery.SNAPSHOT)
    assert what in incident.what
    assert one.observer.outcomes == [Outcome.GUEST_CRASH, Outcome.ABORTED]
    assert one.observer.runs[1].recovery is Recovery.SNAPSHOT
    assert not one.observer.bad
    assert pid not in own_children()


def test_whoever_is_stopped_for_a_moment_goes_on(tmp_path: Path, guests: Guests) -> None:
    """A debugger that looks in; in exact mode it does not even show in the result."""
    with fleet(tmp_path, guests.kind("mailbox")) as one:
        one.submit(small("before", 5), small("during", 5))
        one.finish()
    undisturbed = one.observer.tables
    stopped = threading.Event()

    class Stopping(Observer):
        def __taskset_start__(self, run, *_) -> None:
            super().__taskset_start__(run)
            if run.taskset.name == "during" and eventually(lambda: len(guests.hosts) == 2):
                os.kill(guests.pid, signal.SIGSTOP)
                time.sleep(0.2)
                os.kill(guests.pid, signal.SIGCONT)
                stopped.set()

    guests.hosts.clear()
    with fleet(tmp_path / "again", guests.kind("mailbox")) as other:
        other.observer = Stopping()
        other.submit(small("before", 5), small("during", 5))
        other.finish()
    assert stopped.is_set()
    assert other.observer.tables == undisturbed
    assert not other.observer.incidents


# What a set does to its guest

PANIC = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 9"
ORPHAN = "kill -9 $(pidof taskloader); sleep 9"
RESET = "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger; sleep 9"


@pytest.mark.parametrize("kind", ["mailbox", "ssh"])
@pytest.mark.parametrize("script", [PANIC, ORPHAN, RESET], ids=["panic", "orphan", "reset"])
def test_a_set_that_ruins_its_guest_is_bad_once_and_its_evidence_is_kept(
    tmp_path: Path, guests: Guests, kind: str, script: str
) -> None:
    with fleet(tmp_path, guests.kind(kind)) as one:
        one.submit(small("one"), of_script(tmp_path, "poison", script), small("two"))
        one.finish()
        state = one.distributor.get_distributor_state()
    observer = one.observer
    assert (state.n_done, state.n_bad) == (2, 1)
    assert set(observer.bad.values()) == {1}
    assert observer.faults == [Fault.TASKSET] * 2, observer.incidents
    assert not [incident for incident in observer.incidents if incident.aside_s is not None]
    kept = tmp_path / "run" / observer.incidents[-1].evidence
    assert observer.incidents[-1].evidence
    assert {path.name for path in kept.iterdir()} >= {"error.txt", "console.log", "qemu.stderr", "events.txt"}
    assert (script != PANIC) or ("sysrq triggered crash" in (kept / "console.log").read_text().lower())
    if script is ORPHAN and kind == "ssh":
        # The guest itself is well: a new session is all it takes.
        assert observer.steps == [Recovery.TASK_LOADER] * 2
    else:
        assert observer.steps == [Recovery.SNAPSHOT] * 2


HANG = """
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>
int main(void) {
    struct sched_param most = {99};
    sched_setscheduler(0, SCHED_FIFO, &most);
    for (;;) { }
}
"""


def test_a_guest_that_hangs_is_found_by_its_watchdog(tmp_path: Path) -> None:
    guests = Guests(replace(TRIES, max_tries=1))
    program = compiled("arm64", tmp_path / "hang", HANG)
    with fleet(tmp_path, guests.kind("mailbox")) as one:
        one.submit(TaskSet((execution(program),), name="hang"), small("after"))
        one.finish()
        state = one.distributor.get_distributor_state()
    assert (state.n_done, state.n_bad) == (1, 1)
    assert one.observer.faults == [Fault.TASKSET]
    assert "watchdog" in one.observer.incidents[0].what


def test_a_guest_that_does_not_answer_in_time_is_given_up(tmp_path: Path) -> None:
    guests = Guests(replace(TRIES, taskset_timeout_s=1.0, taskset_timeout_factor=1e-3, max_tries=1))
    with fleet(tmp_path, guests.kind("mailbox")) as one:
        one.submit(endless())
        one.finish()
    assert one.observer.faults == [Fault.TASKSET]
    assert "did not answer within" in one.observer.incidents[0].what
    assert sum(one.observer.bad.values()) == 1


# What happens to the line


def garbled_once(word: str) -> str:
    """A task loader whose first line that begins with this word is lost to noise."""
    return f"taskloader serve | awk '/^{word}/ && !n++ {{ print \"garbage\"; fflush(); next }} {{ print; fflush() }}'"


def test_over_ssh_garbage_is_met_with_a_question_and_the_guest_stays(tmp_path: Path, guests: Guests) -> None:
    with fleet(tmp_path, guests.kind("ssh", command=garbled_once("job"))) as one:
        one.submit(small("one"), small("two", 3))
        one.finish()
    one.observer.check_all_done_once(2)
    assert one.observer.faults == [Fault.GUEST]
    assert one.observer.steps == [Recovery.MESSAGE]
    assert len(set(guests.hosts)) == 1
    assert [run.recovery for run in one.observer.runs] == [None, Recovery.MESSAGE, None]


def test_over_ssh_an_acceptance_that_is_garbage_takes_a_new_task_loader(
    tmp_path: Path, guests: Guests
) -> None:
    """Nobody knows whether the set runs."""
    marked = f"if mkdir /tmp/once; then {garbled_once('accepted')}; else {TASK_LOADER}; fi"
    with fleet(tmp_path, guests.kind("ssh", command=marked)) as one:
        one.submit(small("one"), small("two", 3))
        one.finish()
    one.observer.check_all_done_once(2)
    assert one.observer.steps == [Recovery.MESSAGE, Recovery.TASK_LOADER]
    assert len(set(guests.hosts)) == 1


def test_a_connection_that_breaks_takes_a_new_one(tmp_path: Path, guests: Guests) -> None:
    """The SSH server's process for this connection is killed: a reset."""
    killing = of_script(
        tmp_path, "cut", 'for p in $(pidof dropbear); do [ "$p" = 1 ] || kill -9 $p; done; sleep 9'
    )
    with fleet(tmp_path, guests.kind("ssh")) as one:
        one.submit(small("one"), killing)
        one.finish()
    # With the connection goes the server that would take the next one, so the second step fails, and a fresh guest is needed.
    assert one.observer.faults[0] is Fault.GUEST
    assert one.observer.steps[:2] == [Recovery.TASK_LOADER, Recovery.SNAPSHOT], one.observer.incidents


class Noise:
    """Damages what the guest has put into its mailbox, the first `n` times."""

    def __init__(self, n: int) -> None:
        self.left = n

    def session(self, host: AbstractHost) -> AbstractSession:
        noise = self

        class Noisy(MailboxSession):
            def events(self, deadline: Deadline) -> Iterator[Event]:
                ring = self._host.run_until_bell

                def and_damage(deadline: Deadline) -> None:
                    ring(deadline)
                    if noise.left > 0:
                        noise.left -= 1
                        self._host.mailbox[0x98:0xA0] = b"\xff" * 8

                self._host.run_until_bell = and_damage  # type: ignore[method-assign]
                try:
                    yield from super().events(deadline)
                finally:
                    self._host.run_until_bell = ring  # type: ignore[method-assign]

        return Noisy(host)

    def kind(self, guests: Guests, name: str) -> MachineKind:
        return replace(guests.kind(name), open_session=lambda host: self.session(_known(host)))


def _known(host: AbstractHost | None) -> AbstractHost:
    assert host is not None
    return host


@pytest.mark.parametrize("kind", ["mailbox", "kept"])
def test_a_damaged_answer_in_the_mailbox_takes_a_fresh_guest(
    tmp_path: Path, guests: Guests, kind: str
) -> None:
    """A guest whose results repeat is not asked again: who knows what it went through."""
    with fleet(tmp_path, Noise(1).kind(guests, kind)) as one:
        one.submit(small("one"), small("two", 3))
        one.finish()
    one.observer.check_all_done_once(2)
    assert one.observer.faults == [Fault.GUEST]
    assert one.observer.steps == [Recovery.SNAPSHOT]


def test_all_the_way_up_the_ladder_the_table_is_the_same(tmp_path: Path, guests: Guests) -> None:
    """Restored, booted, and in a QEMU that was loaded anew: exact is exact."""
    with fleet(tmp_path, guests.kind("mailbox")) as one:
        one.submit(small())
        one.finish()
    policy = MachinePolicy(max_failures=9, max_guest_tries=9)
    n_before = 0
    for n_failing, step in enumerate((Recovery.SNAPSHOT, Recovery.COLD_BOOT, Recovery.PROCESS), 1):
        kind = Noise(n_failing).kind(Guests(policy), "mailbox")
        with fleet(tmp_path / step, kind) as other:
            other.submit(small())
            other.finish()
        last = other.observer.runs[-1]
        assert last.recovery is step
        assert last.facts["boot"] == ("snapshot" if step is Recovery.SNAPSHOT else "cold")
        assert other.observer.tables == one.observer.tables
        assert last.identity == one.observer.runs[-1].identity
        n_before += 1
    assert n_before == 3


def test_a_snapshot_that_is_damaged_unseen_costs_no_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guests panic whatever they run: the third set is a witness for the first two, and a boot brings the truth to light."""
    policy = replace(TRIES, max_failures=9, taskset_timeout_s=10.0, taskset_timeout_factor=1.0)
    kind = Guests(policy).kind("mailbox")  # with the image that there is
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    with fleet(tmp_path, kind) as one:
        one.submit(small())
        one.finish()
    (ram,) = (tmp_path / "cache" / "snapshots").glob("*/ram")
    seen = ram.stat()
    page = 4096
    with ram.open("r+b") as file:  # all of the memory that is in use
        for offset in range(0, seen.st_size, page):
            file.seek(offset)
            if any(file.read(page)):
                file.seek(offset)
                file.write(b"\x55" * page)
    os.utime(ram, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    # As the next runner finds it: this one still has a copy of its own.
    monkeypatch.setattr("runner.qemu.boot.COPIES", CopyShelf(n_kept=2))
    with fleet(tmp_path / "damaged", kind) as other:
        other.submit(*(small(f"set {number}", 1 + number) for number in range(6)))
        other.finish()
        state = other.distributor.get_distributor_state()
    assert (state.n_done, state.n_bad) == (6, 0), other.observer.incidents
    assert Recovery.COLD_BOOT in other.observer.steps
    print([(incident.what, incident.fault) for incident in other.observer.incidents])
