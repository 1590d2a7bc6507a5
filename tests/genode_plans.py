"""Plans of runs on Genode's hosts, as far as a manifest asks for them."""

from __future__ import annotations

from functools import partial
from typing import Any

from runner.config.plan import RunPlan
from runner.disturbance import DisturbanceLimits
from runner.specs import MachinePolicy, Reset


def plan_of(**hosts: Any) -> RunPlan:
    """At most two machines."""
    return RunPlan(
        tasksets=None,
        monitors={},
        open_session=partial(object),
        **{"qemu": None, **hosts},
        reset=Reset.MACHINE,
        policy=MachinePolicy(),
        limits=DisturbanceLimits(),
        count=1,
        limit=2,
        seed=None,
    )
