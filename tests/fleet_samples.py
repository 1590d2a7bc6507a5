"""Sources, sessions and monitors for the tests of the fleet: real threads, simulated processors, faults on demand."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.deadline import Deadline
from runner.distributor import Distributor
from runner.errors import RunnerError
from runner.events import Event
from runner.machines.station import MachineKind
from runner.model import Task, TaskSet
from runner.sessions.base import AbstractSession
from runner.sessions.simulation import SimulationSession
from runner.specs import MachinePolicy
from runner.units import NS_PER_MS
from tests.monitor_samples import Recorder

#: Nothing in these tests takes so long; reaching it is a hang, and fails.
HANG_S = 20.0


def one(number: int = 0, *, period_ms: int = 10, n_jobs: int = 1) -> TaskSet:
    """A small task set; every number is another one."""
    task = Task(period_ns=period_ms * NS_PER_MS, wcet_ns=NS_PER_MS + number, n_jobs=n_jobs)
    return TaskSet((task,), name=f"set{number}")


class Sets:
    """`n` different task sets (None: endless), which counts how many were drawn; `announced` hides the number."""

    def __init__(
        self, n: int | None, *, announced: bool = True, period_ms: int = 10, fails_at: int | None = None
    ) -> None:
        self.n = n
        self.n_variants = n if announced else None
        self.n_drawn = 0
        self._period_ms = period_ms
        self._fails_at = fails_at

    def variants(self) -> Iterator[TaskSet]:
        while self.n is None or self.n_drawn < self.n:
            if self.n_drawn == self._fails_at:
                raise ArithmeticError("the generator broke")
            self.n_drawn += 1
            yield one(self.n_drawn, period_ms=self._period_ms)


class Tally(Recorder):
    """Counts, by task-set id, how each attempt ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.stopped: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.machines: set[str] = set()

    def __taskset_start__(self, run, *_) -> None:
        self.started[run.taskset.taskset_id] += 1
        self.machines.add(run.machine)

    def __taskset_event__(self, run, event) -> None:
        """Not kept: there are many."""

    def __taskset_finish__(self, run, result) -> None:
        self.finished[run.taskset.taskset_id] += 1

    def __taskset_stop__(self, run, result) -> None:
        super().__taskset_stop__(run, result)
        self.stopped[run.taskset.taskset_id] += 1

    def __taskset_bad__(self, run, error) -> None:
        super().__taskset_bad__(run, error)
        self.bad[run.taskset.taskset_id] += 1

    def check_all_done_once(self, n: int) -> None:
        """Exactly `n` different sets finished, each once; each attempt began and ended once."""
        assert len(self.finished) == n
        assert set(self.finished.values()) == {1}
        assert not self.bad
        assert self.started == self.finished + self.stopped


class Plan:
    """What the sessions of one test do wrong, shared between them; calls are counted over all sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.sessions: list[AbstractSession] = []

    def count(self, method: str) -> int:
        """Note a call, and return how many there were, this one included."""
        with self._lock:
            self.calls[method] += 1
            return self.calls[method]


class Faulty(SimulationSession):
    """Raises where the test says so: `faults[method](call number)` may raise; also waits, if it likes."""

    def __init__(
        self,
        plan: Plan,
        faults: dict[str, Callable[[int], None]],
        *,
        realtime_factor: float | None = None,
    ) -> None:
        super().__init__(realtime_factor=realtime_factor)
        self._plan = plan
        self._faults = faults
        plan.sessions.append(self)

    def _may_fail(self, method: str) -> None:
        number = self._plan.count(method)
        if method in self._faults:
            self._faults[method](number)

    def open(self, deadline: Deadline) -> None:
        self._may_fail("open")
        super().open(deadline)

    def start(self, taskset: TaskSet, deadline: Deadline) -> None:
        self._may_fail("start")
        super().start(taskset, deadline)

    def events(self, deadline: Deadline) -> Iterator[Event]:
        for event in super().events(deadline):
            self._may_fail("event")
            yield event

    def close(self) -> None:
        self._may_fail("close")
        super().close()


def faulty_kind(
    plan: Plan,
    policy: MachinePolicy | None = None,
    *,
    realtime_factor: float | None = None,
    **faults: Callable[[int], None],
) -> MachineKind:
    """Machines whose sessions fail as told."""

    def open_session(host: object) -> AbstractSession:
        return Faulty(plan, faults, realtime_factor=realtime_factor)

    return MachineKind(open_host=None, open_session=open_session, policy=policy or MachinePolicy())


def kind_of(session: Callable[[], AbstractSession], policy: MachinePolicy | None = None) -> MachineKind:
    """Machines without host, with this session."""
    return MachineKind(open_host=None, open_session=lambda host: session(), policy=policy or MachinePolicy())


def failing(error: Callable[[], BaseException], *numbers: int) -> Callable[[int], None]:
    """A fault that raises at the calls with these numbers; at every call if there are none."""

    def fault(number: int) -> None:
        if not numbers or number in numbers:
            raise error()

    return fault


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until it holds; fail if it does not within that time."""
    deadline = Deadline.after(within_s)
    while not condition():
        assert not deadline.passed, "it did not come true"
        time.sleep(0.002)


def phases(distributor: Distributor) -> dict[str, str]:
    """Machine -> phase."""
    return {machine.name: machine.phase.value for machine in distributor.get_distributor_state().machines}


def wait_to_end(distributor: Distributor) -> None:
    """`wait()`, but a hang fails."""
    assert distributor.wait(timeout_s=HANG_S), f"hangs: {distributor.get_distributor_state()}"


def distributor(tmp_path: Path, kind: MachineKind, n: int = 1, **more) -> Distributor:
    """A fleet with its logs in the test's folder."""
    return Distributor(n, kind=kind, folder=tmp_path / "run", **more)


class Lost(RunnerError):
    """An error that no part of the package knows."""
