"""The fleet: as many machines as wanted, as long as there are task sets for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.admission.capacity import Needs, Reserves
from runner.admission.gate import Gate
from runner.cluster.crew import Crew
from runner.cluster.link import Hooks
from runner.data.progress import Progress
from runner.data.reuse import EarlierRun
from runner.deadline import Deadline
from runner.errors import RunnerError, UsageError
from runner.faults.evidence import EvidenceStore
from runner.faults.incidents import Incident
from runner.faults.quarantine import Standing
from runner.fleet import FleetState, RunState
from runner.machines.kinds import qemu_by_mailbox
from runner.machines.machine import Machine
from runner.machines.roster import Roster
from runner.machines.station import MachineKind
from runner.model import TaskSetSource
from runner.monitors.base import AbstractMonitor
from runner.monitors.channel import MonitorChannel
from runner.monitors.dispatcher import MonitorDispatcher
from runner.paths import RunPaths
from runner.queue.jobs import JobQueue, queue_of
from runner.queue.lease import Job
from runner.shortage import as_shortage
from runner.steering import Steerable, checked

MACHINE_LIMIT = 7
CLOSE_TIMEOUT_S = 60.0

_log = logging.getLogger("runner.distributor")


class Distributor(Steerable):
    """Owns the queue of jobs and the fleet of machines, and keeps the machines busy.

        with Distributor(max_machine=2) as distributor:
            distributor.add_job(Hey0TaskSet(), StdoutMonitor())
            distributor.wait()

    Machines are started when there is work, up to `max_machine`, and end when there is none. A machine that is to close
    finishes its task set first; only `kill_all_machines` does not wait. One that fails again and again is put aside for a while.
    What this computer is short of leads to fewer machines, or holds the queue until there is more of it (see `Gate`).

    Guarantees: every task set that was added ends as done or as bad, or is still pending; none is lost, whichever machine
    dies. After `close()` no machine, guest or thread of the fleet is left.
    Threads: every method may be called from any thread. The monitors' threads live until `close()`: call it, or use `with`,
    otherwise the interpreter waits for them at its end.

    Args:
        max_machine: How many machines at most, 0 … `machine_limit`.
        machine_limit: What nobody can go beyond while this object lives.
        kind: What the machines are made of; exact QEMU guests unless told otherwise.
        repeat: How often each task set is measured.
        reuse: Where to look for results before they are measured; stays the caller's, and open until `close()` has returned.
        folder: The run folder, for the logs and consoles of the machines; a new one under `outputs/` by default.
        reserves: What is left to everybody else on this computer.
        standby: Keep machines that have nothing to do until `close()`: more is to come. `wait()` does not return then.
        crew: The workers of a cluster, which have the machines; this computer has none. `kind` says then what the queue is to be
            patient with.
        on_change: Called from any thread whenever `get_distributor_state()` would answer something else; must return at once.

    Raises:
        UsageError: when `max_machine` is out of range.
        HostError: when this computer can never bear one such machine, or a port of the first ones is taken.
    """

    def __init__(
        self,
        max_machine: int = 1,
        *,
        machine_limit: int = MACHINE_LIMIT,
        kind: MachineKind | None = None,
        repeat: int = 1,
        reuse: EarlierRun | None = None,
        folder: Path | None = None,
        reserves: Reserves | None = None,
        standby: bool = False,
        crew: Crew | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._limit = machine_limit
        self._max = checked(max_machine, self._limit)
        self._kind = kind or qemu_by_mailbox()
        self._repeat = repeat
        self._reuse = reuse
        self._paths = RunPaths(folder) if folder is not None else RunPaths.new(Path("outputs"))
        self._on_change = on_change
        self._queue = JobQueue(standby=standby)
        self._n_submissions = 0
        self._machines = Roster(machine_limit, self._kind.policy, self._new_machine)
        self._roster: Roster | Crew = self._machines if crew is None else crew
        needs = self._kind.needs if crew is None else Needs()
        self._gate = Gate(needs, reserves or Reserves(), self._paths.folder, self._roster, self._look)
        self._dispatcher = MonitorDispatcher(
            on_failure=self._take_monitor_failure, on_trouble=self._gate.look_at_monitors
        )
        self._changed = threading.Condition(threading.RLock())
        self._evidence = EvidenceStore(self._paths.bad)
        self._state = RunState.RUN
        self._error: Exception | None = None
        self._held = False
        self._closed = False
        self._gate.open(max_machine, self._dispatcher.troubles)
        self._dispatcher.__enter__()
        if crew is not None:
            crew.begin(
                Hooks(
                    queue=self._queue,
                    policy=self._kind.policy,
                    evidence=self._evidence,
                    on_change=self._look_again,
                    on_error=self._take_error,
                    on_incident=self._note,
                )
            )

    # Work

    def add_job(
        self,
        taskset: TaskSetSource,
        monitor: AbstractMonitor | Iterable[AbstractMonitor] = (),
        *session_parameters: Any,  # noqa: ANN401 - only the session knows their types
        progress: Progress | None = None,
    ) -> None:
        """Add task sets to the end of the queue; machines start on them at once.

        Args:
            taskset: A task set, a generator of task sets, or anything else that has `variants()`.
            monitor: Who is told about them: one monitor or several.
            session_parameters: Handed to each machine's session before the first of these task sets.
            progress: How far an earlier runner came with them, from the ledger that one of the monitors goes on with.
        """
        self._refuse_if_closed("add_job")
        monitors = (monitor,) if isinstance(monitor, AbstractMonitor) else tuple(monitor)
        # Without the lock: opening waits for the monitors' threads, which may want it to report a failure.
        channel = self._dispatcher.channel(monitors)
        with self._changed:
            self._refuse_if_closed("add_job")
            self._n_submissions += 1
            job = Job(taskset, channel, session_parameters, self._n_submissions, progress)
            queue = queue_of(job, self._kind.policy, repeat=self._repeat)
        channel.submission(queue.submission)
        with self._changed:
            self._refuse_if_closed("add_job")
            self._queue.add(queue)
            self._reconcile()

    # The fleet

    def get_max_machine_value(self) -> int:
        """How many machines there may be."""
        return self._max

    def get_distributor_state(self) -> FleetState:
        """What the fleet is doing."""
        with self._changed:
            return FleetState(
                state=self._state,
                desired_machines=self._max,
                machines=self._roster.states,
                recoveries=dict(self._roster.recoveries),
                n_total=self._queue.n_total,
                n_done=self._queue.n_done,
                n_bad=self._queue.n_bad,
                n_running=self._queue.n_running,
                held=self._gate.held,
                allowed_machines=self._gate.at_most(self._max),
                shortage=self._gate.shortage,
            )

    def _steer(self, method: str, max_machine: int | None, state: RunState | None) -> None:
        """Take over what the operator wants; None changes nothing. Whatever failed before gets another chance."""
        with self._changed:
            self._refuse_if_closed(method)
            if max_machine is not None:
                self._max = checked(max_machine, self._limit)
                self._gate.want(max_machine)
                self._roster.pardon()
            if state is not None and state is not self._state:
                _log.info("state: %s → %s", self._state.value, state.value)
            self._state = state or self._state
            if state is RunState.RUN:
                self._roster.pardon()
                self._error = None
            self._reconcile()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called: nothing can be asked for any more."""
        return self._closed

    def _refuse_if_closed(self, method: str) -> None:
        if self._closed:
            raise UsageError(f"Distributor.{method}() after close()", next_step="create a new Distributor")

    @property
    def failure(self) -> Exception | None:
        """Why the fleet gave up: what `wait()` raises; None if it did not."""
        return self._error

    @property
    def busy(self) -> bool:
        """Whether there are machines."""
        with self._changed:
            return bool(self._roster.names)

    # The end

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until there is nothing more to do: all task sets done or bad, or the fleet shut down or killed.

        Returns False when `timeout_s` ran out before that.

        Raises:
            Exception: what made the fleet give up: `HostError` where this computer cannot run it, a bug otherwise.
        """
        deadline = Deadline.after(threading.TIMEOUT_MAX / 2 if timeout_s is None else timeout_s)
        with self._changed:
            # A full disk pauses the run until its last result is written; nobody says when that is.
            while not (self._at_rest and (self._ended_early or self._error or self._dispatcher.settled)):
                if deadline.passed:
                    return False
                self._changed.wait((deadline.at_most(0.01) if self._at_rest else deadline).remaining_s)
            if self._error is not None:
                raise self._error
            return True

    @property
    def _at_rest(self) -> bool:
        if self._roster.names:
            return False
        return self._ended_early or self._error is not None or self._queue.drained

    @property
    def _ended_early(self) -> bool:
        return self._closed or self._state in (RunState.DRAIN, RunState.KILL)

    def close(self) -> None:
        """Kill what still runs, tell the monitors that it is over, and release everything; idempotent.

        Raises:
            RunnerError: when a machine would not end within a minute.
        """
        with self._changed:
            if self._closed:
                return
            if self._roster.names:
                self.kill_all_machines()
            self._closed = True
            self._changed.notify_all()
            deadline = Deadline.after(CLOSE_TIMEOUT_S)
            while self._roster.names and not deadline.passed:
                self._changed.wait(deadline.remaining_s)
            stuck = self._roster.names
            leaving = self._roster.leaving
        for machine in leaving:  # they have nothing more to do than to return
            machine.join()
        self._gate.close()
        self._dispatcher.close()
        if stuck:
            raise RunnerError(f"machines {', '.join(stuck)} did not end within {CLOSE_TIMEOUT_S:.0f} s")

    @property
    def monitor_failures(self) -> Mapping[str, int]:
        """How many calls of each monitor failed, by its name; final after `close()`."""
        return self._dispatcher.failures

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Machines come and go

    def _reconcile(self) -> None:
        """Make the fleet what it should be now; called, with the lock held, whenever anything changed."""
        held = self._state is not RunState.RUN or self._error is not None or bool(self._gate.held)
        self._dispatcher.relent(held)
        (self._queue.hold if held else self._queue.release)()
        self._roster.recall()
        if self._state is RunState.KILL:
            self._roster.kill()
        else:
            with self._gate.starting():
                useful = 0 if self._over or self._closed else self._useful()
                self._gate.claim(useful)
                allowed = 0 if self._over else self._gate.at_most(self._max)
                self._roster.rescale(self._gate.at_most(useful), allowed, paused=held)
        waiting = not (self._over or self._closed or self._state is RunState.KILL or self._queue.drained)
        if waiting and not self._gate.held and (error := self._roster.despair(self._max)) is not None:
            self._give_up(error)
        self._changed.notify_all()
        self._tell()

    @property
    def _over(self) -> bool:
        return self._state is RunState.DRAIN or self._error is not None

    def _useful(self) -> int:
        """How many machines would have something to do: one more than there are task sets would boot for nothing."""
        n_left, fit = self._queue.n_left, max(0, self._max - self._roster.n_unfit)
        return fit if n_left is None else min(fit, n_left + self._queue.n_running)

    def _new_machine(self, name: str, standing: Standing) -> Machine:
        return Machine(
            name,
            self._kind,
            self._queue,
            folder=self._paths.machine(name),
            on_change=self._tell,
            on_end=self._ended,
            on_incident=self._note,
            standing=standing,
            evidence=self._evidence,
            reuse=self._reuse,
        )

    def _note(self, incident: Incident, channel: MonitorChannel | None) -> None:
        with self._changed:
            self._roster.note(incident)
        if incident.aside_s is not None:
            _log.warning("%s is put aside for %.0f s: %s", incident.machine, incident.aside_s, incident.what)
        # Without the lock: to publish may be to wait for a monitor's thread.
        (channel.incident if channel is not None else self._dispatcher.publish_incident)(incident)

    def _ended(self, machine: Machine) -> None:
        with self._at_top():
            error = self._queue.error or machine.error
            fatal = self._machines.ended(machine) or self._queue.error is not None
            if fatal and error is not None and not self._gate.short(error):
                self._give_up(error)
            self._reconcile()

    def _look(self, changed: bool) -> None:
        """This computer has more than before, or less; or somebody who was put aside may come back."""
        with self._at_top():
            held, self._held = self._held, bool(self._gate.held)
            if held and not self._held:
                self._roster.pardon()  # whoever failed meanwhile did so for want of the same
            if (changed or self._roster.due) and not self._closed:
                self._reconcile()

    def _look_again(self) -> None:
        """A worker has something new."""
        with self._at_top():
            self._reconcile()

    def _take_error(self, error: Exception) -> None:
        """What a worker's results led to must end the run."""
        with self._at_top():
            self._give_up(error)
            self._reconcile()

    @contextmanager
    def _at_top(self) -> Iterator[None]:
        """With the lock, at the top of a thread: what is raised here comes out of `wait()`."""
        with self._changed:
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - as the line above says
                self._give_up(as_shortage(exc))

    def _give_up(self, error: Exception) -> None:
        """The whole fleet ends; `wait()` raises the first reason."""
        self._error = self._error or error
        self._queue.hold()
        self._changed.notify_all()

    def _take_monitor_failure(self, monitor: AbstractMonitor, error: BaseException) -> None:
        """A monitor that the run is for (the data set) has failed: measuring on would be for nothing."""
        if not monitor.required:
            return
        with self._changed:
            self._give_up(error if isinstance(error, Exception) else RuntimeError(f"{error!r}"))
            self._reconcile()

    def _tell(self) -> None:
        if self._dispatcher.watched:  # with many machines the state is long
            with self._changed:  # so that an older one is never told after a newer one
                self._dispatcher.publish_fleet(self.get_distributor_state())
        if self._on_change is not None:
            self._on_change()
