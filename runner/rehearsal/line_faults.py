"""What can happen on the way between a session and its guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runner.rehearsal.emulator_faults import END_S
from runner.rehearsal.fault import Fault, Injection
from runner.rehearsal.link import Call
from runner.rehearsal.scene import Scene
from runner.rehearsal.sessions import RESET
from runner.rehearsal.setup import Reached, Setup


@dataclass(frozen=True)
class SshReset(Fault):
    """The connection to a guest is reset."""

    name: ClassVar[str] = "ssh_reset"
    what: ClassVar[str] = "the connection to the guest is reset"
    source: ClassVar[str] = "the end of a connection is seen at once"

    def applies_to(self, setup: Setup) -> str:
        reached = setup.reached in (Reached.SSH, Reached.SIMULATION)
        return "" if reached else f"no SSH ({setup.reached.value})"

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        return END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        if call.host_pid is None:
            return RESET
        relay = scene.relay_of(call)
        if relay is None:
            return None
        relay.reset()
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))


@dataclass(frozen=True)
class SshBlackHole(Fault):
    """The connection to a guest stays, but nothing comes through any more."""

    name: ClassVar[str] = "ssh_black_hole"
    what: ClassVar[str] = "nothing comes through the connection to the guest any more"
    source: ClassVar[str] = (
        "machines.policy.taskset_timeout_s and _factor: nothing else tells silence from work"
    )

    def applies_to(self, setup: Setup) -> str:
        return "" if setup.reached is Reached.SSH else f"no SSH ({setup.reached.value})"

    def deadline_s(self, setup: Setup, injection: Injection) -> float | None:
        end_ns = injection.call.facts.get("end_ns", 0) if injection.call is not None else 0
        return setup.set_budget_s(end_ns) + END_S

    def inject(self, scene: Scene, injection: Injection, call: Call) -> str | None:
        relay = scene.relay_of(call)
        if relay is None:
            return None
        relay.swallow()
        return ""

    def noticed(self, scene: Scene, injection: Injection) -> bool:
        return bool(scene.told(injection, "stop", "incident", machine=True))
