"""What can happen to a run itself: to its control file, its monitors, its process."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass
from typing import ClassVar

from runner.exit_codes import ExitCode
from runner.fleet import RunState
from runner.operator import control
from runner.rehearsal.emulator_faults import END_S
from runner.rehearsal.fault import WAIT, Fault, Injection
from runner.rehearsal.link import Call
from runner.rehearsal.monitor import RAISE
from runner.rehearsal.processes import descendants
from runner.rehearsal.scene import Scene
from runner.rehearsal.setup import Setup

# A monitor counts as stuck after 10 s in one call; another 2 until that is looked at.
_STUCK_S = 12.0
# Machines are waited for for a minute when a run is closed.
_CLOSE_S = 60.0


@dataclass(frozen=True)
class _ToAnyRun(Fault):
    """A fault that needs neither guests nor a session of ours."""

    def applies_to(self, setup: Setup) -> str:
        return ""


@dataclass(frozen=True)
class ControlGarbage(_ToAnyRun):
    """The control file holds nonsense, for a while."""

    name: ClassVar[str] = "control_garbage"
    what: ClassVar[str] = "nonsense in the control file"
    source: ClassVar[str] = "what is saved takes effect within a second; status.json says why it does not"
    holds: ClassVar[bool] = True

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return 1.0 + END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        noise = random.Random(injection.seed).randbytes(200)  # noqa: S311 - to be repeated, not to be secret
        scene.inside(scene.paths.control).write_bytes(noise)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.status().get("control_error"))

    def heal(self, scene: Scene, injection: Injection) -> None:
        machines = scene.setup.config["machines"]
        path = scene.inside(scene.paths.control)
        if path.exists():
            text = control.render(control.Control(machines["count"], RunState.RUN), machines["limit"])
            path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class MonitorRaises(_ToAnyRun):
    """A monitor fails."""

    name: ClassVar[str] = "monitor_raises"
    what: ClassVar[str] = "a monitor raises"
    source: ClassVar[str] = "it is in the log at once"
    moments: ClassVar[frozenset[str]] = frozenset({"finish"})
    holds: ClassVar[bool] = True

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        return RAISE

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return "RehearsalMonitor failed" in scene.logged(injection)


@dataclass(frozen=True)
class MonitorStuck(_ToAnyRun):
    """A monitor does not come back."""

    name: ClassVar[str] = "monitor_stuck"
    what: ClassVar[str] = "a monitor does not come back from a call"
    source: ClassVar[str] = "after 10 s in one call a monitor counts as stuck"
    moments: ClassVar[frozenset[str]] = frozenset({"finish"})
    holds: ClassVar[bool] = True

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return _STUCK_S + END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        return WAIT

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return "RehearsalMonitor" in f"{scene.held(injection)}{scene.logged(injection)}"


@dataclass(frozen=True)
class RunnerKilled(_ToAnyRun):
    """The runner is killed; everything that it had in memory is lost."""

    name: ClassVar[str] = "runner_killed"
    what: ClassVar[str] = "SIGKILL to the runner"
    source: ClassVar[str] = "the kernel ends its guests with it"
    exits: ClassVar[frozenset[int]] = frozenset({-signal.SIGKILL})

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        os.kill(call.pid, signal.SIGKILL)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return scene.ended and not descendants(os.getpid())


@dataclass(frozen=True)
class RunnerTerminated(_ToAnyRun):
    """The runner is asked to end: by a batch system, or as this computer is shut down."""

    name: ClassVar[str] = "runner_terminated"
    what: ClassVar[str] = "SIGTERM to the runner"
    source: ClassVar[str] = (
        "it drains: the sets that run are finished, within machines.policy.taskset_timeout_s and _factor"
    )
    exits: ClassVar[frozenset[int]] = frozenset({ExitCode.STOPPED})
    number: ClassVar[int] = signal.SIGTERM

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        end_ns = injection.call.facts.get("end_ns", 0) if injection.call is not None else 0
        return setup.set_budget_s(end_ns) + _CLOSE_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        os.kill(call.pid, self.number)
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return scene.ended


@dataclass(frozen=True)
class Interrupted(RunnerTerminated):
    """Ctrl-C, once."""

    name: ClassVar[str] = "interrupted"
    what: ClassVar[str] = "Ctrl-C (SIGINT to the runner)"
    number: ClassVar[int] = signal.SIGINT
