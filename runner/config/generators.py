"""The shapes of `tasksets`, of the generators that are composed of rules or follow results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class SetsConf:
    """How random sets are made; see `runner.tasksets.generated.RandomTaskSets`, which also checks what may have several values."""

    n_tasks: Any = MISSING
    utilizations: list[float] = MISSING
    shares: Any = "uunifast_discard"
    share_min: Any = 0.0
    share_max: Any = 1.0
    share_bounds: Any = None
    periods: Any = MISSING
    deadlines: Any = "implicit"
    priorities: Any = "rm"
    offsets: Any = 0.0
    jitter: Any = 0.0
    workload: Any = "spin"
    hyperperiods: Any = 3.0
    horizon: Any = None
    seed: int = 0
    policy: Any = "fifo"
    overrun_policy: Any = "continue"
    admission_control: Any = True
    dl_margin: Any = 0.02
    dl_margin_least: Any = "100us"


@dataclass
class RandomConf(SetsConf):
    """`tasksets=random`: so many sets of each utilization."""

    _target_: str = "runner.tasksets.generated.RandomTaskSets"
    sets_per_utilization: int = MISSING


@dataclass
class BoundaryConf(SetsConf):
    """`tasksets=boundary`; see `runner.tasksets.boundary.BoundaryTaskSets`."""

    _target_: str = "runner.tasksets.boundary.BoundaryTaskSets"
    n_sets: int = MISSING
    round: int = 20


@dataclass
class GrowingConf:
    """`tasksets=growing`; see `runner.tasksets.growing.GrowingTaskSets`."""

    _target_: str = "runner.tasksets.growing.GrowingTaskSets"
    tasks: list[Any] = MISSING
    max_tasks: int = 64
    priority: str = "rm"
    overrun_policy: str = "continue"
    admission_control: bool = True
